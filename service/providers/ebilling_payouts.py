"""
eBilling, paying out by SHAP: a token, a payout, the payout found again, and what each operator's float holds.

All of it is read in others' code [3p, five], so every address and word can be set. SHAP has an address and credentials
of its own. A payout is found by our reference and the payee's number; asking for a token moves nothing, so whatever
breaks there is proof that nothing was sent. Whether a second payout under the same reference is refused is written
nowhere [unv]: one whose answer was lost is asked about and never simply sent again.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Generator, Mapping
from decimal import Decimal
from typing import Final
from urllib.parse import quote

from service.payments import money
from service.providers import called, ebilling, meaning, strict
from service.providers.base import Credentials, NotKnown, Parked, Unclear
from service.providers.calls import Broken, Call, Facts, Lost, NotSent, Response
from service.providers.ebilling_calls import COUNTRY, SYSTEMS
from service.providers.payouts import (
    AskingFloat,
    AskingPayout,
    PaidOut,
    Payee,
    Paying,
    PayoutAnswer,
    PayoutChannel,
    PayoutRefused,
    Payouts,
    PayoutTold,
    Sending,
    Stage,
)

# --- tables -------------------------------------------------------------------------------------------

FACTS: Facts = {
    "shap_url": "https://staging.billing-easy.net",  # where money moves, whatever its name says
    "test_shap_url": "https://test.billing-easy.net",
    "auth_path": "/shap/api/v1/merchant/auth",
    "payout_path": "/shap/api/v1/merchant/payout",
    "find_path": "/shap/api/v1/merchant/payout?payee_msisdn={payee}&external_reference={reference}",
    "balance_path": "/shap/api/v1/merchant/balance",
    "payout_written": "text",  # JSON inside a text, as two send it; one sends an `object`
    "payout_type": "withdrawal",  # or cashback
    "refund_payout_type": "refund",  # what goes back to whoever paid
    "dialled": "241",  # taken from numbers, which are wanted as they are dialled in Gabon; empty: E.164
    "paid_words": ("success",),
    "failed_words": ("failed",),
    "in_transit_words": ("initiated", "pending", "processing"),
    "amount_words": ("sp0011",),
    "unsupported_words": ("sp0014",),
    "insufficient_float_words": ("sp0016",),
    "not_known_words": ("sp0027",),
    "bad_account_words": ("invalid msisdn", "invalid payee"),  # [unv]
    "duplicate_reference_words": ("duplicate", "already"),  # [unv]
    "refused_words": (),  # further codes that are a definite no; nobody has a list
}
"""What is believed and may be set. Words of refusals are codes or parts of their descriptions, in small letters."""

STAGES: Final[tuple[Stage, ...]] = ("paid", "failed", "in_transit")
REASONS: Final = ("duplicate_reference", "amount", "unsupported", "insufficient_float", "bad_account", "refused")

MIN_MINOR: Final = 100
"""The least that is paid out [3p]."""

FLOATS: Mapping[str, str] = {"airtel": "airtelmoney", "moov": "moovmoney"}
"""How the name of an operator's float begins: Moov's ends in a number that is not the same everywhere [3p]."""

WRITTEN: Mapping[str, Callable[[Mapping[str, object]], object]] = {"text": json.dumps, "object": dict}
"""The two ways in which `payout` is sent [3p]."""

TOKEN_CHARACTERS_MAX: Final = 4096
PLACES_MAX: Final = 20

# --- the token ----------------------------------------------------------------------------------------


def _enter(
    live: bool, credentials: Credentials, facts: Facts
) -> Generator[Call, Response, Mapping[str, str] | NotSent]:
    """`POST auth {api_id, api_secret}` → `{access_token, token_type, expires_in}`: the headers of what comes next."""
    pair = {name: called.credential(credentials, f"shap_{name}") for name in ("id", "secret")}
    if not all(pair.values()):
        return called.CREDENTIALS_WRONG
    wanted = {f"api_{name}": value for name, value in pair.items()}
    response = yield _call("POST", str(facts["auth_path"]), {"Accept": "application/json"}, live, facts, wanted)
    stopped, said = called.turned_away(response.status), strict.document(response.body)
    if stopped is not None:
        return stopped if isinstance(stopped, NotSent) else NotSent(stopped.reason)
    token = None if isinstance(said, Parked) else said.get("access_token")
    # In a header: one printable word, or nothing at all.
    if not isinstance(token, str) or not re.fullmatch(rf"[!-~]{{1,{TOKEN_CHARACTERS_MAX}}}", token):
        return NotSent("unreadable")
    return {"Authorization": f"Bearer {token}", "Accept": "application/json"}


def _call(
    method: str, path: str, headers: Mapping[str, str], live: bool, facts: Facts, body: object | None = None
) -> Call:
    return Call(method, path, headers, json=body, base_url=str(facts["shap_url" if live else "test_shap_url"]))


# --- sending ------------------------------------------------------------------------------------------


def send(paying: Paying, channel: PayoutChannel, credentials: Credentials, facts: Facts = FACTS) -> Sending:
    """A token, then `POST payout`, the only step that moves money: what broke before it can be begun again."""
    written, amount, number = (
        WRITTEN.get(str(facts["payout_written"])),
        _amount(paying, channel),
        _number(paying, facts),
    )
    if written is None:
        return NotSent("settings", alert=True)
    if not channel.fits(paying.payee) or paying.currency != channel.currency:
        return PayoutRefused("unsupported")
    if amount is None or number is None:
        return PayoutRefused("amount" if amount is None else "bad_account")
    try:
        headers = yield from _enter(paying.live, credentials, facts)
    except Broken as broken:
        return NotSent(broken.reason)
    if isinstance(headers, NotSent):
        return headers
    payout = {
        "payee_msisdn": number,
        "amount": amount,
        "external_reference": paying.reference,
        "payout_type": str(facts["refund_payout_type" if paying.purpose == "refund" else "payout_type"]),
    }
    body = {"payment_system_name": channel.code, "payout": written(payout)}
    try:
        response = yield _call("POST", str(facts["payout_path"]), headers, paying.live, facts, body)
    except Broken as broken:
        return Lost(broken.reason) if broken.sent else NotSent(broken.reason)
    return _sent(paying, response, facts)


def _amount(paying: Paying, channel: PayoutChannel) -> int | None:
    """In whole francs, within the limits; None where it cannot be paid out here."""
    minor, most = paying.amount_minor, channel.max_minor
    if minor < channel.min_minor or (most is not None and minor > most) or minor % channel.step_minor:
        return None
    return called.whole(minor, paying.currency)


def _number(paying: Paying, facts: Facts) -> str | None:
    """The wallet as Gabon writes it, nine digits. A payout is found by the number that it was sent with."""
    number, dialled = called.digits(paying.payee.number), str(facts["dialled"])
    if number is None or not dialled or not number.startswith(dialled):
        return number
    local = number.removeprefix(dialled)
    return local if local.startswith("0") else f"0{local}"


def _sent(paying: Paying, response: Response, facts: Facts) -> PaidOut:
    """`{successful, success_message, response: {payout_id, …, state}}`, or `{error_code, error_description}`."""
    stopped, said = called.turned_away(response.status), strict.document(response.body)
    if isinstance(said, Parked):
        return _by_status(response.status, stopped)
    it = strict.branch(said, "response")
    names = _names(it)
    if stopped is not None and (names or response.status // 100 != 4):
        return Lost("contradictory") if isinstance(stopped, NotSent) else stopped
    if stopped is not None or "error_code" in said:
        return Lost("contradictory") if names else _refused(response.status, stopped, said, facts)
    if not names:
        return Lost("unreadable")
    wrong = _wrong(paying, it)
    # A word in no table says no more than that it was taken: it is asked about.
    return Lost(wrong) if wrong else _told(it, _stage(it, facts) or "in_transit", facts)


def _by_status(status: int, stopped: NotSent | Lost | None) -> PaidOut:
    """What an answer comes to whose body says nothing. 422 is a definite no."""
    return PayoutRefused("unsupported") if status == 422 else stopped or Lost("unreadable")


def _refused(status: int, stopped: NotSent | Lost | None, said: strict.Document, facts: Facts) -> PaidOut:
    """By its code or description. One in no table is no definite no: it can be asked what became of it."""
    reason, words = _reason(said, facts), strict.word(said.get("error_description"), 300)
    if reason == "duplicate_reference":
        return Lost(reason)
    if isinstance(stopped, NotSent) and status != 422:
        return stopped
    if reason or status == 422:
        return PayoutRefused(reason or "refused", words)
    return stopped or Lost("refused")


def _reason(said: strict.Document, facts: Facts) -> str:
    """The fixed word of a refusal, by its code or the words of its description; empty where they are in no table."""
    texts = (said.get("error_code"), said.get("error_description"), said.get("error"))
    read = " ".join(strict.word(text, 300) for text in texts).casefold()
    return next((one for one in REASONS if any(word in read for word in called.words(facts, f"{one}_words"))), "")


# --- reading ------------------------------------------------------------------------------------------


def _names(it: Mapping[str, object]) -> tuple[str, ...]:
    """SHAP's ids of a payout; callbacks name it by the first, as `shap_reference`, and by the second."""
    found = (strict.identifier(it.get(key)) for key in ("payout_id", "transaction_id"))
    return tuple(dict.fromkeys(name for name in found if name))


def _wrong(paying: Paying, it: Mapping[str, object]) -> str | None:
    """Why an answer is not to be believed, None where nothing in it speaks against it."""
    if strict.identifier(it.get("external_reference")) not in (None, paying.reference):
        return "other_payout"
    read = strict.amounts(money.from_major, it.get("currency") or paying.currency, it.get("amount"))
    if isinstance(read, Parked):
        return read.reason
    currency, (amount,) = read
    return "other_payout" if currency != paying.currency or amount not in (None, paying.amount_minor) else None


def _stage(it: Mapping[str, object], facts: Facts) -> Stage | None:
    state = strict.word(it.get("state")).casefold()
    return next((stage for stage in STAGES if state in called.words(facts, f"{stage}_words")), None)


def _told(it: Mapping[str, object], stage: Stage, facts: Facts) -> PayoutTold:
    """Why one failed stands in no field that is known; where there is an error beside it, that is it."""
    failed = stage == "failed"
    reason = _reason(dict(it), facts) if failed else ""
    return PayoutTold(
        stage,
        _names(it),
        reason=("refused" if reason in ("", "duplicate_reference") else reason) if failed else "",
        words=strict.word(it.get("error_description") or it.get("reason"), 300) if failed else "",
        at_ms=strict.first_ms(it.get("updated_at"), it.get("created_at")),
    )


# --- asking -------------------------------------------------------------------------------------------


def ask(paying: Paying, credentials: Credentials, facts: Facts = FACTS) -> AskingPayout:
    """A token, then `GET payout` by the payee's number and our reference → `{payout: {state, …}}`."""
    number = _number(paying, facts)
    if number is None:
        return Unclear("no_number")
    headers = yield from _enter(paying.live, credentials, facts)
    if isinstance(headers, NotSent):
        return Unclear(headers.reason)
    path = str(facts["find_path"]).format(payee=quote(number, safe=""), reference=quote(paying.reference, safe=""))
    response = yield _call("GET", path, headers, paying.live, facts)
    return _found(paying, response, facts)


def _found(paying: Paying, response: Response, facts: Facts) -> PayoutAnswer:
    """
    "Not known" by SHAP's own code alone, and never of a payout that it has given us an id of.

    Whoever believed another 404, or one after a change of `dialled`, would pay again.
    """
    turned_away, said = meaning.turned_away(response.status), strict.document(response.body)
    if turned_away in (None, NotKnown(), Unclear("refused")) and not isinstance(said, Parked) and "payout" not in said:
        code = strict.word(said.get("error_code")).casefold()
        if code and code in called.words(facts, "not_known_words"):
            return Unclear("not_known") if any(name != paying.reference for name in paying.names) else NotKnown()
    if turned_away is not None:
        return Unclear("no_route") if isinstance(turned_away, NotKnown) else turned_away
    it = strict.branch(said, "payout")
    if not it:
        return Unclear("unreadable")
    wrong, stage = _wrong(paying, it), _stage(it, facts)
    if wrong or stage is None:
        return Unclear(wrong or "unknown_status")
    return _told(it, stage, facts)


def float_(payee: Payee, live: bool, credentials: Credentials, facts: Facts = FACTS) -> AskingFloat:
    """`GET balance` → `{data: [{payment_system_name, amount}]}`: the payee's operator's, in whole francs."""
    begins = FLOATS.get(payee.operator)
    if begins is None or payee.currency != ebilling.CURRENCY:
        return Unclear("unsupported")
    headers = yield from _enter(live, credentials, facts)
    if isinstance(headers, NotSent):
        return Unclear(headers.reason)
    response = yield _call("GET", str(facts["balance_path"]), headers, live, facts)
    turned_away, said = meaning.turned_away(response.status), strict.document(response.body)
    if turned_away is not None:
        return Unclear("no_route") if isinstance(turned_away, NotKnown) else turned_away
    rows = None if isinstance(said, Parked) else said.get("data")
    if not isinstance(rows, list):
        return Unclear("unreadable")
    named = {strict.word(row.get("payment_system_name")): row.get("amount") for row in rows if isinstance(row, dict)}
    ours = {name: amount for name, amount in named.items() if name.startswith(begins)}
    exact = {name: amount for name, amount in ours.items() if name == SYSTEMS[payee.operator]}
    if len(exact or ours) != 1:
        return Unclear("no_float")
    held = _francs(next(iter((exact or ours).values())))
    return Unclear("bad_amount") if held is None else {ebilling.CURRENCY: held}


def _francs(value: object) -> int | None:
    """A float may hold a part of a franc, which nobody can be paid."""
    if (
        isinstance(value, Decimal)
        and value.is_finite()
        and not value.is_signed()
        and abs(value.adjusted()) < PLACES_MAX
    ):
        value = int(value)
    elif isinstance(value, str) and re.fullmatch(r"[0-9]{1,16}\.[0-9]{1,8}", value):
        value = value.partition(".")[0]
    return money.from_major(value, ebilling.CURRENCY)


# --- the record ---------------------------------------------------------------------------------------

PAYOUTS = Payouts(
    channels=tuple(
        PayoutChannel("mobile_money", ebilling.CURRENCY, COUNTRY, operator, code, min_minor=MIN_MINOR)
        for operator, code in SYSTEMS.items()
    ),
    send=send,
    ask=ask,
    float_=float_,
    facts=FACTS,
)
