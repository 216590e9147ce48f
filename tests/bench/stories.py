"""
What becomes of money, a hundred thousand times over: a few stories are run once by the service's own functions, and
their rows are copied under other names, at other times, for other merchants and beneficiaries. So every copy is as
sound as the story was, and the ledger of all of them is what the service would have made of it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from random import Random
from typing import Any, Final

from service.escrow import payout_rows
from service.escrow.states import PayoutStep
from service.orders.orders import Line
from service.payments.facts import Fact, Kind, Source
from service.payments.heard import Context
from tests.property.test_book_machine import ACCOUNT
from tests.support.escrow import Market

PRICE_MINOR, FEE_MINOR = 5_000, 150
CURRENCY: Final = "XOF"
HOUR_MS: Final = 3_600_000
TABLES: Final = (
    *("orders", "order_lines", "payments", "attempts", "decisions", "facts", "aliases", "refunds", "holds", "payouts"),
    *("attention", "postings"),
)
"""In an order in which rows may refer to those before them."""
CAST: Final = ("beneficiaries", "payees", "payees_personal")
LEDGER_IDS: Final = frozenset({"debit_id", "credit_id"})

_ID = re.compile(r"_([0-9A-HJKMNP-TV-Z]{26})\b")
_OWNERS: Final = {"mer_1": "%(merchant)s", ACCOUNT.id: "%(account)s"}


@dataclass(frozen=True)
class Row:
    """
    One row to be copied. `texts`, `times` and `ledger`: where cells stand that each copy has of its own, and what is
    put there: a pattern of names, the milliseconds since the story began, an account of the ledger by kind.
    """

    table: str
    columns: tuple[str, ...]
    cells: tuple[Any, ...]
    texts: tuple[tuple[int, str], ...]
    times: tuple[tuple[int, int], ...]
    ledger: tuple[tuple[int, str], ...]

    def copied(self, names: Mapping[str, str], at_ms: int, accounts: Mapping[str, int]) -> list[Any]:
        """Its values for one copy of the story."""
        values = list(self.cells)
        for place, pattern in self.texts:
            values[place] = pattern % names
        for place, since_ms in self.times:
            values[place] = at_ms + since_ms
        for place, kind in self.ledger:
            values[place] = accounts[kind]
        return values


@dataclass(frozen=True)
class Story:
    """What happened once, and how many in a hundred are like it. `things`: how many ids it has of its own."""

    name: str
    share: int
    rows: tuple[Row, ...]
    things: int

    @property
    def postings(self) -> int:
        return sum(row.table == "postings" for row in self.rows)


def of(name: str, share: int, happen: Callable[[Market], object], tables: Sequence[str] = TABLES) -> Story:
    """Let it happen, and keep the rows."""
    market = Market(payout_on_release=False)
    try:
        begun_ms = market.clock()
        happen(market)
        found = {table: _rows(market, table) for table in tables}
        kinds = {row["id"]: row["kind"] for row in _rows(market, "ledger_accounts")}
        shared = {_rows(market, table)[0]["id"]: word for table, word in _SHARED.items()}
    finally:
        market.close()
    bodies = {id_.partition("_")[2]: f"%({word})s" for id_, word in shared.items()}
    own = sorted({body for rows in found.values() for row in rows for body in _bodies(row)} - bodies.keys())
    bodies |= {body: f"%({number})s" for number, body in enumerate(own)}
    rows = [_row(table, row, bodies, kinds, begun_ms) for table in tables for row in found[table]]
    return Story(name, share, tuple(rows), len(own))


_SHARED: Final = {"beneficiaries": "beneficiary", "payees": "payee"}


def _rows(market: Market, table: str) -> list[dict[str, Any]]:
    with market.tx() as tx:
        return [dict(row) for row in tx.exec_driver_sql(f"SELECT * FROM {table}").mappings()]


def _bodies(row: Mapping[str, Any]) -> list[str]:
    return [body for value in row.values() if isinstance(value, str) for body in _ID.findall(value)]


def _row(table: str, row: Mapping[str, Any], bodies: Mapping[str, str], kinds: Mapping[int, str], begun_ms: int) -> Row:
    # Postings are numbered by the database that they are copied to.
    kept = {name: value for name, value in row.items() if (table, name) != ("postings", "id")}
    texts, times, ledger = [], [], []
    for place, (name, value) in enumerate(kept.items()):
        if name in LEDGER_IDS:
            ledger.append((place, kinds[value]))
        elif name.endswith("_ms") and value:
            times.append((place, value - begun_ms))
        elif isinstance(value, str) and (pattern := _pattern(value, bodies)) is not None:
            texts.append((place, pattern))
    return Row(table, tuple(kept), tuple(kept.values()), tuple(texts), tuple(times), tuple(ledger))


def _pattern(value: str, bodies: Mapping[str, str]) -> str | None:
    """With the names of a copy in their places, also where an id was put into something else; None: none is in it."""
    if value in _OWNERS:
        return _OWNERS[value]
    pattern = value.replace("%", "%%")
    for body, word in bodies.items():
        pattern = pattern.replace(body, word).replace(body.lower(), word)
    return pattern if pattern != value.replace("%", "%%") else None


# --- what happens -------------------------------------------------------------------------------------


def _captured(market: Market, payment_id: str) -> None:
    at_ms = market.clock()
    fact = Fact(
        *(Kind.CAPTURED, f"ch_{payment_id}", at_ms, PRICE_MINOR, PRICE_MINOR, CURRENCY, FEE_MINOR, "card"),
        source=Source.CALLBACK,
    )
    market.tell((payment_id, fact))


def _bought(market: Market, *, escrow: bool, declined: bool = False) -> tuple[str, str]:
    """An order and the payment that paid it."""
    more = {"beneficiary_id": market.seller} if escrow else {}
    order_id = market.order(Line(1, description="Couture", unit_minor=PRICE_MINOR), **more)
    if declined:
        first = market.pay(order_id, asked=(PRICE_MINOR, CURRENCY))
        market.said(first, Kind.FAILED, f"ch_{first}")
        market.clock.advance(60_000)
    payment_id = market.pay(order_id, asked=(PRICE_MINOR, CURRENCY))
    market.clock.advance(20_000)
    _captured(market, payment_id)
    return order_id, payment_id


def _plain(market: Market) -> None:
    payment_id = market.pay(asked=(PRICE_MINOR, CURRENCY))
    market.clock.advance(20_000)
    _captured(market, payment_id)


def _never_paid(market: Market) -> None:
    payment_id = market.pay(asked=(PRICE_MINOR, CURRENCY))
    market.said(payment_id, Kind.EXPIRED, f"ch_{payment_id}")


def _plain_refunded(market: Market) -> None:
    payment_id = market.pay(asked=(PRICE_MINOR, CURRENCY))
    _captured(market, payment_id)
    _refund(market, payment_id, None)


def _refund(market: Market, payment_id: str, amount_minor: int | None) -> None:
    """Ours: asked for, sent, and done."""
    refund_id = market.refund(payment_id, amount_minor)
    market.clock.advance(HOUR_MS)
    with market.tx() as tx:
        sent = "UPDATE refunds SET state = 'pending', provider_reference = ? WHERE id = ?"
        tx.exec_driver_sql(sent, (f"re_{refund_id}", refund_id))
    market.said(payment_id, Kind.REFUND_SUCCEEDED, f"re_{refund_id}", amount_minor or PRICE_MINOR)


def _delivered(market: Market) -> tuple[str, str]:
    order_id, payment_id = _bought(market, escrow=True)
    market.clock.advance(24 * HOUR_MS)
    market.deliver(order_id)
    return order_id, payment_id


def _released(market: Market) -> tuple[str, str]:
    order_id, payment_id = _delivered(market)
    market.clock.advance(48 * HOUR_MS)
    market.release_due()
    return order_id, payment_id


def _paid_out(market: Market) -> None:
    order_id, _ = _released(market)
    payout_id = market.pay_out(PRICE_MINOR, hold_id=market.hold_of(order_id)["id"])
    for step in (PayoutStep.SENDING, PayoutStep.SAID_IN_TRANSIT, PayoutStep.SAID_PAID):
        market.clock.advance(60_000)
        with market.tx() as tx:
            context = Context(market.queue, market.ids, market.clock())
            payout_rows.move(tx, payout_rows.one(tx, payout_id), step, context)


def _waits_for_its_payout(market: Market) -> None:
    order_id, _ = _released(market)
    market.pay_out(PRICE_MINOR, hold_id=market.hold_of(order_id)["id"])


def _held_and_refunded(market: Market, amount_minor: int | None) -> None:
    _, payment_id = _bought(market, escrow=True)
    _refund(market, payment_id, amount_minor)


def _disputed(market: Market) -> None:
    _, payment_id = _delivered(market)
    market.said(payment_id, Kind.DISPUTE_OPENED, f"dp_{payment_id}", PRICE_MINOR)


def _late(market: Market) -> None:
    order_id = market.order(Line(1, description="Couture", unit_minor=PRICE_MINOR))
    payment_id = market.pay(order_id, asked=(PRICE_MINOR, CURRENCY))
    market.cancel(order_id)
    market.said(payment_id, Kind.CANCELED, f"x_{payment_id}")
    _captured(market, payment_id)


def history() -> list[Story]:
    """A marketplace's and its shops' years: most of what is sold is held, delivered and paid out."""
    return [
        of("paid", 25, _plain),
        of("never paid", 5, _never_paid),
        of("refunded", 2, _plain_refunded),
        of("an order paid", 10, partial(_bought, escrow=False)),
        of("an order paid at the second try", 3, partial(_bought, escrow=False, declined=True)),
        of("held", 4, partial(_bought, escrow=True)),
        of("delivered", 4, _delivered),
        of("released", 2, _released),
        of("to be paid out", 2, _waits_for_its_payout),
        of("paid out", 37, _paid_out),
        of("held and refunded", 2, partial(_held_and_refunded, amount_minor=None)),
        of("held and refunded in part", 2, partial(_held_and_refunded, amount_minor=2_000)),
        of("disputed", 1, _disputed),
        of("paid late", 1, _late),
    ]


def due() -> list[Story]:
    """Nothing but holds that were delivered and are due by the clock 48 hours later."""
    return [of("delivered", 1, _delivered)]


def unpaid() -> list[Story]:
    """Nothing but orders that nobody pays."""
    return [of("unpaid", 1, Market.order)]


def cast() -> list[Row]:
    """A beneficiary and where their money goes."""
    return list(of("", 0, lambda _: None, CAST).rows)


def deck(stories: Sequence[Story]) -> list[Story]:
    """Each as often as its share, well mixed and always alike."""
    cards = [story for story in stories for _ in range(story.share)]
    Random(1).shuffle(cards)
    return cards


def copies(stories: Sequence[Story], postings: int) -> int:
    """How many copies make so many postings, to the nearest."""
    shares = sum(story.share for story in stories)
    return round(postings * shares / sum(story.share * story.postings for story in stories))
