"""
What no official page says of the six providers: each belief, how it is known, and the setting that changes it.

docs/providers.md is made from this and from the code; `make contract` says which of them real sandboxes settled.
Weights: [SDK] an official library or plugin, [docs] an official page, [3p] other people's code, [unv] nobody.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Belief:
    """`setting` is below `[providers.<name>]`; what stands in `channels` is set way by way."""

    setting: str
    weight: str
    says: str


def _facts(**said: tuple[str, str]) -> tuple[Belief, ...]:
    return tuple(Belief(f"facts.{name}", weight, says) for name, (weight, says) in said.items())


BELIEFS: Mapping[str, tuple[Belief, ...]] = {
    "stripe": (
        Belief("channels.card-*", "unv", "the currencies an account takes, and the least amounts of each"),
        *_facts(name_characters_max=("unv", "how long the name of a line may be")),
    ),
    "paystack": (
        Belief("channels.*", "docs", "codes of wallets; Moov has none that is documented (moov [3p])"),
        Belief("channels.*.min_minor", "unv", "the least amounts"),
        *_facts(
            xof_places=("SDK", "XOF is counted in hundredths, like every currency; one third party says whole francs"),
            reference_characters_max=("unv", "how long our reference may be"),
            abandoned_after_ms=("unv", "from when on `abandoned` means that nobody will pay"),
            local_phones=("unv", "numbers of Côte d'Ivoire are written without +225; those of Ghana with 0 [docs]"),
            credentials_words=("SDK", "how a 400 says that the key is wrong"),
            duplicate_words=("3p", "how a 400 says that our reference was used before"),
            unknown_reference_words=("3p", "how an answer says that there is no such transaction"),
            wrong_otp_words=("unv", "how a 400 says that the code may be typed again"),
        ),
    ),
    "fedapay": (
        Belief("channels.*", "docs", "modes of direct pushes and the countries they work in"),
        Belief("channels.mtn-gn", "unv", "Guinea pays in GNF"),
        *_facts(
            sandbox_mode=("docs", "the sandbox's one mode"),
            push_path=("SDK", "where a push is posted; the API reference names another path"),
            find_path=("3p", "a transaction is found by our own reference"),
            list_path=("docs", "where transactions are listed; paging is [unv]"),
            include=("unv", "fetch, too, takes the parameter that puts the currency into the answer"),
            pushed_words=("docs", "how an answer says that the prompt is on its way"),
            reference_taken_word=("unv", "how a 422 says that our reference was used before"),
        ),
    ),
    "monetbil": (
        Belief("channels.*", "3p", "codes of operators outside Cameroon, Senegal and Benin"),
        *_facts(
            check_path=("docs", "where a payment is asked about"),
            place_path=("docs", "where a prompt is asked for"),
            widget_path=("docs", "where the page is asked for"),
            widget_url=("3p", "the page is asked for at the API's own host; the SDK uses https://www.monetbil.com"),
            credentials_words=("3p", "the status that says that the service key is wrong"),
            nothing_asked_words=("3p", "the status that says that the number was missing"),
        ),
    ),
    "moneroo": (
        Belief("channels.*", "3p", "codes of wallets outside XOF and XAF"),
        *_facts(
            description_characters_max=("unv", "how long a description may be"),
            name_characters_max=("unv", "how long a name may be"),
        ),
    ),
    "ebilling": (
        Belief("channels.airtel-ga", "3p", "airtelmoney; v2 has AIRTEL"),
        Belief("channels.moov-ga", "3p", "moovmoney4; one has moovmoney1, v2 MOOV"),
        Belief("channels.card-xaf", "3p", "ORABANK_NG is the portal's word for cards"),
        *_facts(
            bills_path=("SDK", "where bills are"),
            push_path=("3p", "where a prompt is asked for"),
            portal_url=("SDK", "where live bills are shown; most take money at https://staging.billing-easy.net [3p]"),
            test_portal_url=("SDK", "where LAB's bills are shown"),
            page_path=("SDK", "the portal's page for a bill; a guide has /?invoice={bill}&redirect_url={return_url}"),
            card_page_path=("3p", "the portal's page for cards"),
            expiry_unit_minutes=("SDK", "expiry_period counts minutes; some say hours (60) or days (1440)"),
            expiry_minutes=("unv", "ours: how long a bill lives whose payment has no end"),
            description_characters_max=("unv", "how long a description may be"),
            list_per_page=("unv", "how many bills a page of the list holds"),
            dialled=("3p", "numbers are written as in Gabon, without 241; empty: E.164"),
        ),
    ),
}


def _payouts(words: str, weight: str = "unv", **said: tuple[str, str]) -> tuple[Belief, ...]:
    """`words` are the facts that tell a refusal's reason by its words."""
    told = said | {f"{name}_words": (weight, _REASONS[name]) for name in words.split()}
    return tuple(Belief(f"payout_facts.{name}", weight_, says) for name, (weight_, says) in told.items())


_REASONS: Mapping[str, str] = {
    "float": "how a refusal says that the balance is too small",
    "insufficient_float": "how a refusal says that the balance is too small",
    "account": "how a refusal says that there is no such payee",
    "bad_account": "how a refusal says that there is no such payee",
    "amount": "how a refusal says that the amount is wrong",
    "mode": "how a refusal says that the operator is not served",
    "unsupported": "how a refusal says that the way is not served",
    "not_allowed": "how a refusal says that the account may not pay out",
    "duplicate_reference": "how a refusal says that our reference was used before: it is then asked about",
    "credentials": "how an answer says that the key is wrong",
}

PAYOUT_BELIEFS: Mapping[str, tuple[Belief, ...]] = {
    "stripe": (
        Belief("payout_channels.account-*", "unv", "the currencies an account pays out, and the most of each"),
        *_payouts(
            "",
            key_lives_ms=("docs", "how long a lost payout may be sent again by its key; a day, less an hour"),
            payout_description_characters_max=("unv", "how long a description may be"),
        ),
    ),
    "paystack": (
        Belief("payout_channels.*", "docs", "codes of wallets in Ghana and Kenya; those of Côte d'Ivoire are [unv]"),
        *_payouts(
            "float account not_allowed",
            xof_places=("SDK", "as `facts.xof_places`, and the same unless it is set here"),
            credentials_words=("SDK", "as `facts.credentials_words`, and the same unless it is set here"),
            payout_local_phones=("unv", "how wallets' numbers are written in Côte d'Ivoire; Ghana and Kenya [docs]"),
            dead_statuses=("3p", "statuses beside `failed` after which nothing is paid any more"),
            unknown_transfer_words=("SDK", "how an answer says that there is no such transfer"),
            transfer_taken_words=("unv", "how a refusal says that our reference was used before"),
            wrong_code_words=("unv", "how a refusal says that the code may be typed again"),
            transfer_reason_characters_max=("unv", "how long a description may be"),
        ),
    ),
    "fedapay": (
        Belief("payout_channels.*", "unv", "payouts take the modes of direct pushes; seen for Togo [3p]"),
        *_payouts(
            "float account mode amount",
            sandbox_mode=("docs", "as `facts.sandbox_mode`, and the same unless it is set here"),
            include=("unv", "as `facts.include`, and the same unless it is set here"),
            reference_taken_word=("unv", "as `facts.reference_taken_word`, and the same unless it is set here"),
            payout_find_path=("3p", "a payout is found by our own reference"),
            payout_start_field=(
                "SDK",
                "the list of payouts to start has a name; the API reference shows it bare: empty",
            ),
            settles_after_ms=(
                "unv",
                "how long a start may be on its way; a payout still pending then is started again",
            ),
        ),
    ),
    "monetbil": (
        Belief("payout_channels.*", "3p", "the operators that are paid out to, and their codes"),
        *_payouts(
            "credentials insufficient_float bad_account amount unsupported duplicate_reference",
            withdrawal_path=("3p", "where a withdrawal is asked for"),
            service_field=("3p", "the field that the service key stands in"),
            undecided_words=("unv", "how a refusal says that it is none yet"),
        ),
    ),
    "moneroo": (
        Belief("payout_channels.*", "docs", "the wallets that are paid out to, and their codes"),
        *_payouts(
            "insufficient_float bad_account amount unsupported duplicate_reference",
            customer_email=("docs", "what stands for the payee's e-mail address, which has to be there"),
            msisdn_as_number=("docs", "1: numbers are written as numbers; the samples have text"),
            description_characters_max=("unv", "as `facts.description_characters_max`, unless it is set here"),
            name_characters_max=("unv", "as `facts.name_characters_max`, unless it is set here"),
        ),
    ),
    "ebilling": (
        Belief("payout_channels.*", "3p", "codes of Gabon's wallets"),
        *_payouts(
            "amount unsupported insufficient_float bad_account duplicate_reference",
            shap_url=("3p", "where live money is paid out"),
            test_shap_url=("3p", "where LAB pays out"),
            auth_path=("3p", "where a token is had"),
            payout_path=("3p", "where payouts are"),
            find_path=("3p", "where a payout is asked about"),
            balance_path=("3p", "where balances are"),
            payout_written=("3p", "the payout is JSON inside a text; one writes an `object`"),
            payout_type=("3p", "the kind of payout"),
            refund_payout_type=("3p", "the kind of a payout that is a refund"),
            dialled=("3p", "as `facts.dialled`, and the same unless it is set here"),
            paid_words=("3p", "states that say that it is paid"),
            failed_words=("3p", "states that say that it failed"),
            in_transit_words=("3p", "states that say that it is not decided"),
            not_known_words=("3p", "how an answer says that there is no such payout"),
            refused_words=("unv", "further codes that are a definite no"),
        ),
    ),
}
"""The same of paying out, below `payout_channels` and `payout_facts`."""
