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
