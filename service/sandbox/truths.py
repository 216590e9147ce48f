"""
What the player's stories say that Monetbil, Moneroo and eBilling know, written into the sandbox's bank.

A callback may say anything at all; when caisse asks, the bank answers. The player sends the callbacks of its stories
itself, so nobody is told of what is written here. Charges that were made by the providers' APIs are none of it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

from service.payments import money
from service.payments.facts import Reason
from service.sandbox.bank import Charge, State
from service.sandbox.teller import Sandbox

LIMIT: Final = 15_000  # fewer than the bank keeps, so that it forgets none of these first
UNWELL_MAX: Final = 20
"""How many 503 may wait to be given."""

COUNTRIES: Mapping[str, str] = {"monetbil": "CM", "ebilling": "GA"}


@dataclass(slots=True)
class Entry:
    """
    One payment as the provider knows it. `amount` in major units, as all three write it.

    The next `fail_times` questions to this provider, whatever they are about, get a 500.
    """

    state: State
    amount: int
    currency: str
    reference: str = ""
    operator: str = ""
    phone: str = ""
    reason: Reason | str | None = None  # a dump's is a text
    fail_times: int = 0
    at_ms: int = 0


class Book:
    """What was written: `book.write("moneroo", "py_1", Entry(…))`; the last run's is written again from its `dump`."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox
        self._entries: OrderedDict[tuple[str, str], Entry] = OrderedDict()

    def write(self, provider: str, payment_id: str, entry: Entry) -> Entry:
        """Write or replace; the oldest are not dumped any more."""
        self._entries[provider, payment_id] = entry
        while len(self._entries) > LIMIT:
            self._entries.popitem(last=False)
        bank, trouble = self._sandbox.bank, self._sandbox.trouble
        charge = bank.find(provider, payment_id)
        if charge is None:
            charge = _charge(provider, payment_id, entry)
            heard, bank.heard = bank.heard, []  # the player tells it
            bank.begin(charge)
            bank.heard = heard
        at_ms = entry.at_ms or bank.clock()
        charge.state, charge.changed_ms = entry.state, at_ms
        charge.reason = Reason(entry.reason) if entry.reason else None
        charge.captured_minor = charge.amount_minor if entry.state == "succeeded" else 0
        charge.ended_ms = None if charge.live else at_ms
        if entry.fail_times and len(trouble.rules()) < UNWELL_MAX:
            trouble.on(provider, "error_5xx_before", "fetch", times=entry.fail_times)
        return entry

    def dump(self) -> list[tuple[str, str, dict[str, Any]]]:
        """All of it as plain values: provider, payment, the fields of its entry."""
        return [
            (provider, payment_id, asdict(entry) | {"fail_times": 0})
            for (provider, payment_id), entry in self._entries.items()
        ]


def _charge(provider: str, payment_id: str, entry: Entry) -> Charge:
    """As if its API had been asked for it; `asked` is what that API repeats in its answers."""
    texts = ("payer_email", "payer_name", "payer_address", "payer_city", "additional_info", "description", "due_date")
    asked: Mapping[str, dict[str, Any]] = {
        "monetbil": {"item_ref": entry.reference, "payment_ref": entry.reference},
        "moneroo": {
            "description": "Commande",
            "customer": {"email": "payer@example.com", "first_name": "Awa", "last_name": "Kone"},
            "metadata": {"reference": entry.reference} if entry.reference else {},
        },
        "ebilling": dict.fromkeys(texts)
        | {
            "external_reference": entry.reference,
            "short_description": "Commande",
            "payer_msisdn": entry.phone,
            "expiry_period": 60,
        },
    }
    return Charge(
        payment_id,
        provider,
        "main",
        entry.amount * 10 ** money.exponent(entry.currency),
        entry.currency,
        reference=entry.reference,
        method="mobile_money",
        country=COUNTRIES.get(provider, ""),
        operator=entry.operator,
        phone=entry.phone,
        asked=asked[provider],
    )
