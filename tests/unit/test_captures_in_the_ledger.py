"""What the ledger reads of one capture and nothing more: the short way says what the long one does."""

from __future__ import annotations

from itertools import product

import pytest

from service.ledger.payments import money_of
from service.payments.facts import Fact, Kind, Source
from service.payments.records import AttemptRecord, FactRecord
from service.payments.rules import flows


@pytest.mark.parametrize("source", [Source.CALLBACK, Source.OPERATOR])
def test_a_single_capture_says_what_all_the_rules_say(source: Source) -> None:
    """Whatever it leaves unsaid, and in whatever currency: else the ledger would have other money than the payment."""
    for amount, currency, fee in product((None, 0, 5_000), (None, "XOF", "EUR"), (None, 0, 150)):
        fact = Fact(Kind.CAPTURED, "ch_1", 1, amount, None, currency, fee, source=source)
        attempt = AttemptRecord({"id": "try_1", "currency": "XOF"})
        attempt.facts[fact.kind, fact.movement] = FactRecord(fact, None, 1)
        assert money_of(attempt) == flows([fact], "XOF")
