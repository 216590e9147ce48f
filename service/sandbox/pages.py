"""
The pages a person clicks on, as words and forms without a script: a provider's hosted page, a phone, and what was
paid out.

Every page is small, works at 320 px, says everything in French and English, and shows nothing unescaped.
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import Final

from service.payments import money
from service.payments.facts import Reason
from service.sandbox.bank import Bank, Charge
from service.sandbox.treasury import Payout, Treasury

TITLES: Final = {
    "stripe": "Stripe",
    "paystack": "Paystack",
    "fedapay": "FedaPay",
    "monetbil": "Monetbil",
    "moneroo": "Moneroo",
    "ebilling": "E-Billing",
}
REASONS: Final[dict[Reason, str]] = {
    Reason.INSUFFICIENT_FUNDS: "Solde insuffisant · Insufficient funds",
    Reason.DECLINED_BY_USER: "Refusé par le client · Declined by the payer",
    Reason.LIMIT_REACHED: "Plafond atteint · Limit reached",
    Reason.WRONG_PIN: "Code faux · Wrong PIN",
    Reason.TIMED_OUT: "Délai dépassé · Timed out",
    Reason.NO_WALLET: "Pas de compte · No wallet",
    Reason.NUMBER_MISMATCH: "Mauvais opérateur · Number of another operator",
    Reason.PROVIDER_UNAVAILABLE: "Opérateur indisponible · Operator unavailable",
    Reason.UNKNOWN: "Sans raison · No reason given",
}
STATES: Final = {
    "created": "À payer · To be paid",
    "waiting": "En attente · Waiting",
    "pending": "En cours · In progress",
    "succeeded": "Payé · Paid",
    "failed": "Échoué · Failed",
    "canceled": "Annulé · Cancelled",
    "expired": "Expiré · Expired",
}
PAYOUT_STATES: Final = {
    "created": "Créé · Created",
    "otp": "Attend un code · Waits for a code",
    "queued": "Envoyé · Sent",
    "in_transit": "En route · In transit",
    "paid": "Versé · Paid out",
    "failed": "Échoué · Failed",
    "returned": "Revenu · Returned",
}
PAYOUTS_SHOWN: Final = 20
_STYLE: Final = (
    "body{font:1rem/1.5 system-ui,sans-serif;max-width:26rem;margin:1rem auto;padding:0 1rem;color:#1b1b1b}"
    "button,select{font:inherit;width:100%;padding:.7rem;margin:.3rem 0;border:1px solid #767676;border-radius:.4rem}"
    "button{background:#fff}button[value=pay]{background:#0a6640;color:#fff}small{color:#595959}"
    "section{border:1px solid #bbb;border-radius:.4rem;padding:.5rem 1rem;margin:1rem 0}.sum{font-size:1.6rem}"
)


def _page(title: str, inside: str) -> str:
    return (
        '<!doctype html><html lang="fr"><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{html.escape(title)}</title><style>{_STYLE}</style>"
        "<main><p><small>Bac à sable, aucun argent réel · Sandbox, no real money</small></p>"
        f"<h1>{html.escape(title)}</h1>{inside}</main></html>"
    )


def _sum(charge: Charge | Payout) -> str:
    return _money(charge.amount_minor, charge.currency)


def _money(minor: int, currency: str) -> str:
    return f"{money.to_major(minor, currency):,f} {currency}".replace(",", " ")


def _button(choice: str, words: str) -> str:
    return f'<button name="choice" value="{choice}">{words}</button>'


def _reasons() -> str:
    options = "".join(f'<option value="{reason.value}">{words}</option>' for reason, words in REASONS.items())
    return f'<label>Raison du refus · Reason<select name="reason">{options}</select></label>'


def hosted(charge: Charge) -> str:
    """A provider's page for one charge: pay, fail or abandon while it is open, and what became of it after that."""
    title = TITLES.get(charge.provider, charge.provider)
    about = (
        f'<p class="sum">{html.escape(_sum(charge))}</p>'
        f"<p>{html.escape(str(charge.asked.get('description') or charge.reference))}<br>"
        f"<small>{html.escape(charge.reference)} · {STATES[charge.state]}</small></p>"
    )
    if not charge.live:
        return _page(title, about)
    refused = f"<p role=alert>{REASONS[charge.tries[-1].reason]}</p>" if charge.tries else ""
    form = (
        '<form method="post">'
        + _button("pay", "Payer · Pay")
        + _reasons()
        + _button("fail", "Échouer · Fail")
        + _button("abandon", "Abandonner · Abandon")
        + "</form>"
    )
    return _page(title, about + refused + form)


def phone(number: str, bank: Bank) -> str:
    """What waits for the owner of a number: the code to be typed, or a prompt to approve or decline."""
    return _page(f"☎ {number}", _prompts(bank.waiting(number), bank))


def _prompts(charges: Sequence[Charge], bank: Bank) -> str:
    if not charges:
        return "<p>Rien n'attend ce numéro · Nothing waits for this number</p>"
    found = []
    for charge in charges[-20:]:
        head = f"<strong>{TITLES.get(charge.provider, charge.provider)}</strong> {html.escape(_sum(charge))}<br>"
        what = (
            f'Code : <strong class="sum">{html.escape(bank.payer(charge.phone).otp)}</strong>'
            if charge.waits == "otp"
            else _button("pay", "Approuver · Approve")
        )
        found.append(
            f'<section>{head}<form method="post"><input type="hidden" name="provider" value="{charge.provider}">'
            f'<input type="hidden" name="id" value="{html.escape(charge.id)}">{what}{_reasons()}'
            + _button("fail", "Refuser · Decline")
            + "</form></section>"
        )
    return "".join(found)


def payouts(treasury: Treasury) -> str:
    """The floats that were used, and the newest payouts of each provider."""
    rows = [payout for provider in TITLES for payout in treasury.of(provider)[:PAYOUTS_SHOWN]]
    paid = "".join(
        f"<section><strong>{TITLES[one.provider]}</strong> {html.escape(_sum(one))} → {html.escape(one.payee)}<br>"
        f"<small>{html.escape(one.reference or one.id)} · {PAYOUT_STATES[one.state]}</small></section>"
        for one in rows
    )
    floats = "".join(
        f"<li>{TITLES.get(one['provider'], one['provider'])} {html.escape(one['purse'])} : "
        f"{html.escape(_money(one['minor'], one['currency']))}</li>"
        for one in treasury.floats()
    )
    nothing = "<p>Rien n'a été versé · Nothing was paid out</p>"
    return _page("Versements · Payouts", f"<ul>{floats}</ul>{paid or nothing}")


def plain(title: str, words: str) -> str:
    """A page that only says something."""
    return _page(title, f"<p>{html.escape(words)}</p>")
