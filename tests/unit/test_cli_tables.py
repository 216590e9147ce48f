"""What people see of money in a terminal: written as money, never folded where it is copied, and short."""

from __future__ import annotations

from typing import Any

import pytest
from rich.console import Console

from service.cli import balances, closing, holds, jobs, payouts, show

ZONE = "Europe/Paris"
HOLD: dict[str, Any] = {
    "id": "hold_01K9Z3X5Y7Q2M4N6P8R0S2T4V6", "status": "release_scheduled", "held": 1_257_840, "currency": "EUR",
    "seller": "Moussa Traoré et fils, couture", "against": [], "release_at": "2026-11-21T22:36:00.000Z",
    "updated_at": "2026-11-19T08:01:00.000Z",
}  # fmt: skip
PAYOUT: dict[str, Any] = {
    "id": "po_01K9Z3X5Y7Q2M4N6P8R0S2T4V6", "status": "awaiting_approval", "amount": 1_200_000, "currency": "XOF",
    "seller": "Moussa Traoré et fils, couture", "otp_wanted": False, "waits_for": None, "paid_at": None,
    "failure_reason": "account_closed: this account is closed", "created_at": "2026-11-21T22:36:00.000Z",
}  # fmt: skip


@pytest.fixture(autouse=True)
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal of 100 columns."""
    monkeypatch.setattr(show, "_console", lambda: Console(width=100))


def listed(group: Any, found: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    """What a list command prints of this answer."""
    monkeypatch.setattr(group, "run", lambda *_, **__: found)
    name = group.__name__.rpartition(".")[2]
    command = getattr(group, name)
    (command.commands["list"] if hasattr(command, "commands") else command).main(list(arguments), standalone_mode=False)


def test_amounts_are_money_of_their_currency() -> None:
    """Two places or none, thousands apart, below zero too."""
    shown = {"578,40 EUR": 57_840, "12 000 XOF": 12_000, "-0,05 EUR": -5, "0 XOF": 0, "1 234 567 XAF": 1_234_567}
    for money, minor in shown.items():
        assert show.money(minor, money[-3:]) == money


def test_a_time_is_the_installation_s_and_nothing_is_nothing() -> None:
    """The same moment is another day elsewhere."""
    assert show.when("2026-11-21T23:36:00.000Z", ZONE) == "22 Nov 00:36"
    assert show.when("2026-11-21T23:36:00.000Z", "Africa/Abidjan") == "21 Nov 23:36"
    assert show.when(None, ZONE) == ""


@pytest.mark.parametrize(
    ("group", "row", "words"),
    [
        (holds, HOLD, ["12 578,40 EUR", "release_scheduled", "due 21 Nov"]),
        (holds, HOLD | {"against": ["buyer"]}, ["buyer"]),
        (payouts, PAYOUT, ["1 200 000 XOF", "21 Nov", "closed"]),
        (payouts, PAYOUT | {"waits_for": "beneficiary"}, ["beneficiary"]),
    ],
)
def test_what_is_copied_is_whole_in_a_hundred_columns(
    group: Any,
    row: dict[str, Any],
    words: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Ids and amounts are on one line each, with the longest names and words."""
    listed(group, [row], monkeypatch)
    said = capsys.readouterr().out
    assert all(word in said for word in (row["id"], *words)), said
    assert max(map(len, said.splitlines())) <= 100


def test_a_balance_and_a_closing_show_only_what_moved(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """By the merchant's name; what is 0 for everybody takes no room, and a second account of a provider is named."""
    none = dict.fromkeys(("paid_out", "reserved", "beneficiaries", "unallocated", "disputed"), 0)
    row = {"name": "Boutique Awa", "merchant": "mer_1", "live": True, "currency": "XOF", "available": 0,
           "pending": 12_000, "at_providers": 12_000, "month": "2026-11"} | none  # fmt: skip
    listed(balances, [row], monkeypatch)
    said = capsys.readouterr().out
    assert "Boutique Awa" in said and "12 000" in said and "available" in said and "disputed" not in said
    line = dict.fromkeys((*closing._AMOUNTS, *closing._COUNTS), 0) | {
        "provider": "stripe", "account": "acc_1", "currency": "EUR", "received": 57_840,
    }  # fmt: skip
    day = {"day": "2026-11-21", "timezone": ZONE, "merchant": "mer_1", "name": "Awa", "live": True, "closed": True}
    one = day | {"lines": [line], "totals": [line]}
    listed(closing, [one, one | {"lines": [line, line | {"account": "acc_2"}]}], monkeypatch)
    first, _, second = capsys.readouterr().out.partition("\n\n")
    assert "578,40" in first and "acc_1" not in first and "refunded" not in first
    assert "acc_1" in second and "acc_2" in second


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ((None, {}, None), ""),
        (("done", {"released": 0, "left": 0}, None), "nothing"),
        (("done", {"released": 1, "left": 0, "held_too_long": 1_200}, None), "1 released, 1 200 held too long"),
        (("failed", {}, "OSError: " + "x" * 90), "failed: OSError: " + "x" * 43 + "…"),
    ],
)  # fmt: skip
def test_what_a_job_found_is_said_in_words(said: Any, words: str) -> None:
    """Counters that are 0 are not what was found, and why it failed is not lost."""
    assert jobs._found(*said) == words
