"""Products and their stock, orders, checkout sessions, payment links."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    PrimaryKeyConstraint,
    Table,
    Text,
    text,
)

from service.payments.tables import payments
from service.schema import counter, identifier, metadata, milliseconds


def _merchant() -> Column[str]:
    return Column("merchant_id", Text, ForeignKey("merchants.id"), nullable=False)


products = Table(
    "products",
    metadata,
    identifier(),  # prod_…
    _merchant(),
    Column("live", Boolean, nullable=False),
    Column("name", Text, nullable=False),
    Column("price_minor", BigInteger, nullable=False),
    Column("currency", Text, nullable=False),
    Column("stock", BigInteger),  # what is free to be sold, without what orders hold; null: unlimited
    Column("active", Boolean, nullable=False),
    milliseconds("created_at_ms"),
    milliseconds("updated_at_ms"),
    CheckConstraint("stock >= 0", name="stock_not_negative"),
    CheckConstraint("price_minor > 0", name="price_positive"),
    Index("ix_products_merchant_id", "merchant_id", "id"),
)

orders = Table(
    "orders",
    metadata,
    identifier(),  # ord_…
    _merchant(),
    Column("live", Boolean, nullable=False),
    Column("state", Text, nullable=False),  # states.Order
    Column("payment_status", Text, nullable=False),  # unpaid | partially_paid | paid: by the amounts alone
    Column("exceptions", Text, nullable=False, server_default=""),  # sorted, comma-separated
    Column("amount_minor", BigInteger, nullable=False),
    Column("paid_minor", BigInteger, nullable=False, server_default="0"),  # captured and not refunded, its currency
    Column("currency", Text, nullable=False),
    Column("reference", Text),
    Column("description", Text, nullable=False, server_default=""),
    Column("late", Text, nullable=False),  # revive | refund | ask: what becomes of money that comes after the end
    Column("restock", Boolean, nullable=False),  # a full refund by us gives the stock back
    Column("metadata", Text, nullable=False, server_default="{}"),
    milliseconds("created_at_ms"),
    milliseconds("updated_at_ms"),
    milliseconds("expires_at_ms"),
    milliseconds("ending_since_ms", nullable=True),  # when it began to expire, or to be cancelled
    milliseconds("ended_at_ms", nullable=True),
    milliseconds("fulfilled_at_ms", nullable=True),  # written once: whoever writes it tells order.paid
    milliseconds("delivered_at_ms", nullable=True),
    counter("version"),
    counter("sequence"),  # of the last event told
    Column("beneficiary_id", Text),  # its money is held for them; null: it is the merchant's
    CheckConstraint("amount_minor > 0 AND paid_minor >= 0", name="amounts_not_negative"),
    Index("ix_orders_merchant_id", "merchant_id", "id"),
    Index("ix_orders_reference", "merchant_id", "reference"),
    # What the clock looks for: few rows of many.
    Index("ix_orders_awaiting", "expires_at_ms", sqlite_where=text("state = 'awaiting_payment'")),
    Index("ix_orders_expiring", "ending_since_ms", sqlite_where=text("state = 'expiring'")),
)

order_lines = Table(
    "order_lines",
    metadata,
    Column("order_id", Text, ForeignKey("orders.id"), nullable=False),
    Column("number", Integer, nullable=False),
    Column("product_id", Text, ForeignKey("products.id")),  # null: free text
    Column("description", Text, nullable=False, server_default=""),
    Column("quantity", BigInteger, nullable=False),
    Column("unit_minor", BigInteger, nullable=False),
    Column(
        "held", BigInteger, nullable=False, server_default="0"
    ),  # taken from the product's stock, and not given back
    CheckConstraint("quantity > 0 AND unit_minor >= 0 AND held >= 0", name="amounts_not_negative"),
    PrimaryKeyConstraint("order_id", "number"),
)

links = Table(
    "links",
    metadata,
    identifier(),  # lnk_…
    _merchant(),
    Column("live", Boolean, nullable=False),
    Column("active", Boolean, nullable=False),
    Column("amount_minor", BigInteger),  # null: the product's price, or what the buyer says within the bounds
    Column("min_minor", BigInteger),
    Column("max_minor", BigInteger),
    Column("currency", Text, nullable=False),
    Column("product_id", Text, ForeignKey("products.id")),
    Column("quantity", BigInteger, nullable=False, server_default="1"),
    Column("description", Text, nullable=False, server_default=""),
    Column("reference", Text),
    Column("methods", Text, nullable=False),  # comma-separated
    Column("country", Text, nullable=False, server_default=""),
    Column("return_url", Text, nullable=False, server_default=""),
    Column("max_uses", Integer),  # null: as often as one likes
    milliseconds("created_at_ms"),
    milliseconds("updated_at_ms"),
    Index("ix_links_merchant_id", "merchant_id", "id"),
)

sessions = Table(
    "sessions",
    metadata,
    identifier(),  # ses_…
    _merchant(),
    Column("live", Boolean, nullable=False),
    Column("state", Text, nullable=False),  # states.Session
    Column("order_id", Text, ForeignKey("orders.id"), index=True),
    Column("link_id", Text, ForeignKey("links.id")),
    Column("product_id", Text, ForeignKey("products.id")),  # of a link: ordered with the first submit
    Column("quantity", BigInteger, nullable=False, server_default="1"),
    Column("payment_id", Text),  # the last one, or the one that paid
    Column("amount_minor", BigInteger, nullable=False),
    Column("currency", Text, nullable=False),
    Column("description", Text, nullable=False, server_default=""),
    Column("reference", Text),
    Column("methods", Text, nullable=False),  # comma-separated
    Column("country", Text, nullable=False, server_default=""),
    Column("locale", Text, nullable=False),
    Column("return_url", Text, nullable=False, server_default=""),
    Column("metadata", Text, nullable=False, server_default="{}"),
    Column("secret", LargeBinary, nullable=False),  # SHA-256 of the client secret, which has 256 random bits
    Column("tries_left", Integer, nullable=False),
    Column("ended_by", Text),  # time | tries | cancel | order
    milliseconds("created_at_ms"),
    milliseconds("updated_at_ms"),
    milliseconds("expires_at_ms"),
    milliseconds("ended_at_ms", nullable=True),
    milliseconds("paid_at_ms", nullable=True),
    counter("version"),
    counter("sequence"),
    CheckConstraint("amount_minor > 0 AND tries_left >= 0", name="amounts_not_negative"),
    Index("ix_sessions_merchant_id", "merchant_id", "id"),
    Index("ix_sessions_link_id", "link_id", "state"),
    Index("ix_sessions_going", "expires_at_ms", sqlite_where=text("state IN ('open', 'processing')")),
)

buyers = Table(
    "buyers",
    metadata,
    # Personal data of a session, apart, so that it can be erased for one person.
    Column("session_id", Text, ForeignKey("sessions.id"), primary_key=True),
    Column("name", Text, nullable=False, server_default=""),
    Column("email", Text, nullable=False, server_default=""),
    Column("phone", Text, nullable=False, server_default=""),
)

# Here, because it is orders that look payments up by it; most payments have none.
Index("ix_payments_order_id", payments.c.order_id, sqlite_where=text("order_id IS NOT NULL"))

tallies = Table(
    "tallies",
    metadata,
    # What metrics count of steps that may be run twice: added up in the transaction that did it.
    Column("name", Text, primary_key=True),  # orders_expired | payments_canceled | stock_released
    Column("value", BigInteger, nullable=False),
)
