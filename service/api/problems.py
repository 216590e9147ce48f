"""Answers to faults: problem+json (RFC 9457). The domain knows words, this is the one place that knows the numbers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from http import HTTPStatus

import msgspec
from msgspec import UNSET, UnsetType

from service.errors import Refusal

PROBLEM_TYPE = b"application/problem+json"

_IS: Mapping[int, str] = {
    401: "unauthorized",
    403: "missing_scope not_yours second_person test_key",
    404: "not_found",
    408: "too_slow",
    # It is not in the state for that: it may be later, or has been before.
    409: "job_already_running payout_open refund_over account_gone already_attached already_known "
    "changed_meanwhile endpoint_disabled erased "
    "idempotency_in_progress idempotency_lost link_inactive link_used_up merchant_disabled "
    "no_live_attempt no_money no_tries_left not_attachable not_cancelable not_delivered not_manual "
    "not_offered not_open not_paid not_resting not_revivable not_unknown not_waiting_for_otp "
    "nothing_captured order_not_payable out_of_stock payment_under_way prompt_open recovery_over "
    "session_not_open too_many_endpoints too_many_otps too_many_payments too_many_refunds too_many_routes "
    "too_many_secrets too_many_changes "
    # Of money that is held and paid out.
    "balance_short beneficiary_disabled escrow_off hold_frozen hold_not_released hold_paid_out hold_refunded "
    "hold_released no_otp_wanted not_awaiting not_failed not_frozen nothing_waits payee_changed payee_erased "
    "payee_waits "
    "reference_taken refund_open retried_already",
    413: "too_large",
    415: "bad_content_type compressed",
    # Understood, and not to be done for anybody.
    422: "above_maximum bad_account bad_approve_above bad_bank_code bad_escrow bad_kind bad_number bad_outcome "
    "bad_source bad_timezone below_minimum no_way not_a_step not_understood otp_refused "
    "above_the_rest address_refused bad_amount bad_country bad_currency bad_embedded bad_expires_at "
    "bad_late bad_lines bad_locale bad_max_amount bad_metadata bad_method bad_methods bad_min_amount "
    "bad_name bad_note bad_operator bad_order bad_otp bad_overlap bad_payer_phone bad_per_minute "
    "bad_phone bad_price bad_providers bad_quantity bad_reason bad_replay bad_return_url bad_route "
    "bad_schedule bad_since bad_stock bad_url idempotency_key_reused no_provider no_provider_reference "
    "no_reason nothing_to_change order_needed payer_unknown partial_not_possible reason_missing reason_needed "
    "unknown_account unknown_action unknown_event_type unknown_provider",
    429: "link_busy too_many_polls",
    503: "otp_not_sent provider_unavailable stopping storage",
}
STATUS: Mapping[str, int] = {code: status for status, codes in _IS.items() for code in codes.split()}
"""Of the words that are not simply a bad request (400): what cannot be read, or is not what the document says."""

HEADERS: Mapping[str, Mapping[str, str]] = {
    "unauthorized": {"WWW-Authenticate": 'Bearer realm="caisse"'},
    # What is still coming is not read.
    **{code: {"Connection": "close"} for code in ("bad_body", "too_large", "too_slow", "incomplete")},
    "idempotency_in_progress": {"Retry-After": "2"},
    "link_busy": {"Retry-After": "5"},
    **{code: {"Retry-After": "5"} for code in ("too_many_polls", "otp_not_sent", "stopping", "storage")},
}


class Problem(msgspec.Struct):
    """What is wrong. `type` is for programs and stays as it is, `detail` is one sentence for people."""

    type: str
    title: str
    status: int
    detail: str
    field: str | UnsetType = UNSET
    """The field of the body or the query that it is about, where it is about one."""


def problem(status: int, code: str, detail: str, field: str = "") -> bytes:
    """The body: `type` is a stable word, `detail` one sentence that names what is wrong."""
    title = HTTPStatus(status).phrase
    return msgspec.json.encode(Problem(f"urn:caisse:{code}", title, status, detail, field or UNSET))


_OF_A_FIELD = re.compile(r"([a-z_]+(?:\.[a-z_]+)*): ")
_COMMAND = re.compile(r"; `caisse [^`]*` shows them\.$")


class Wrong(Refusal):
    """A Refusal that names the field it is about, a path such as `customer.phone`."""

    def __init__(self, code: str, field: str, sentence: str) -> None:
        super().__init__(code, sentence)
        self.field = field

    def __reduce__(self) -> tuple[type[Refusal], tuple[str, str]]:
        return Refusal, (self.code, self.sentence)


def field_of(refusal: Refusal) -> str:
    """The field that a refusal is about: `bad_…` ones say it at the beginning of their sentence."""
    if isinstance(refusal, Wrong):
        return refusal.field
    found = _OF_A_FIELD.match(refusal.sentence) if refusal.code.startswith("bad_") else None
    return found.group(1) if found else ""


def detail(refusal: Refusal) -> str:
    """Its sentence, without the command line's commands: who asks here has none."""
    return _COMMAND.sub(".", refusal.sentence)
