"""What every provider's file says in the same way: keys, what is told, what is only hinted, and refused answers."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence

from service.payments.facts import Fact, Kind, Reason, Source, Told
from service.providers import strict
from service.providers.base import Ask, Ignored, NotKnown, Parked, Unclear, Unmapped

KEY_CHARACTERS_MAX = 200

MONEY_MOVED = frozenset({Kind.CAPTURED, Kind.RECEIVED_PART, Kind.REVERSED, Kind.REFUND_SUCCEEDED})
"""Kinds that are worth nothing without their amount: nobody may fulfil, or pay back, what was never named."""


def key(raw: bytes, *words: object) -> str:
    """
    The exactly-once key where the provider numbers no events: its words about the event, and a hash of the raw body.

    The hash is what makes two events two: an object's id is the same in all of its events. Without words, or where
    they are too long, it is a hash alone.
    """
    digest = hashlib.sha256(raw).hexdigest()
    if not words:
        return f"sha256:{digest}"
    joined = "|".join([*(strict.identifier(word) or "" for word in words), digest])
    return joined if len(joined) <= KEY_CHARACTERS_MAX else short(joined)


def short(long: str) -> str:
    """A name of fixed length for what is too long to be a key."""
    return "sha256:" + hashlib.sha256(long.encode()).hexdigest()


def of_no_payment(kind: str, ignored: Mapping[str, str]) -> Ignored | Unmapped:
    """What a type means that moves no payment: known (by the beginning of its name) and ignored, or in no table."""
    return next((Ignored(why) for prefix, why in ignored.items() if kind.startswith(prefix)), Unmapped(kind))


def tell(
    references: Iterable[object],
    facts: Sequence[Fact],
    reference: object = None,
    metadata: Mapping[str, str] | None = None,
) -> Told | Parked:
    """The facts about the payment of these names, in their order; parked where it has no name or money no amount."""
    names = dict.fromkeys(name for given in references if (name := strict.identifier(given)))
    if not names:
        return Parked("missing:id")
    for fact in facts:
        if fact.kind in MONEY_MOVED and fact.currency is None:
            return Parked("missing:currency")
        if fact.kind in MONEY_MOVED and fact.amount_minor is None:
            return Parked("missing:amount")
    return Told(tuple(names), tuple(facts), strict.identifier(reference), metadata or {})


def hint(
    read: strict.Read,
    name: str,
    currency: object,
    amount: object,
    reference: object = None,
    metadata: Mapping[str, str] | None = None,
) -> Told | None:
    """What may be shown until the provider has answered: a pending payment, if the callback names what it is about."""
    said = strict.amounts(read, currency, amount)
    if isinstance(said, Parked) or said[0] is None or said[1][0] is None:
        return None
    pending = Fact(Kind.PENDING, name, asked_minor=said[1][0], currency=said[0], source=Source.HINT)
    return Told((name,), (pending,), strict.identifier(reference), metadata or {})


def as_hint(told: Told) -> Told | Ask:
    """
    A callback's word that money came in, taken for a hint: ask. What only takes money away, or moves none, is believed:
    nobody has anything from forging it, and not every provider can be asked about it.
    """
    captured = next((fact for fact in told.facts if fact.kind is Kind.CAPTURED), None)
    if captured is None:
        return told
    pending = Fact(
        Kind.PENDING,
        told.references[0],
        asked_minor=captured.asked_minor,
        currency=captured.currency,
        source=Source.HINT,
    )
    said = captured.asked_minor is not None and captured.currency is not None
    shown = Told(told.references[:1], (pending,), told.reference, told.metadata) if said else None
    return Ask(told.references[0], shown, told.references)


def reason(table: Mapping[str, Reason], *texts: object) -> Reason:
    """Why it failed: the first entry of a provider's table that is contained in one of its words, in their order."""
    for text in texts:
        plain = strict.word(text, 500).casefold().replace("_", " ").replace("-", " ")
        for word, why in table.items():
            if plain and word in plain:
                return why
    return Reason.UNKNOWN


_TURNED_AWAY: Mapping[int, NotKnown | Unclear] = {
    401: Unclear("credentials"),
    403: Unclear("credentials"),
    404: NotKnown(),
    429: Unclear("rate_limited"),
}


def turned_away(status: int) -> NotKnown | Unclear | None:
    """What an HTTP status says by itself; None where the body has to be read."""
    if 200 <= status < 300:
        return None
    return _TURNED_AWAY.get(status) or Unclear("refused" if 400 <= status < 500 else "provider_error")


def knows_no_such(body: bytes) -> bool:
    """
    Whether a 404 is about the payment: an object with a `message` that is not about routes, as frameworks' and
    gateways' are [unv]. "Not known" ends an unknown attempt and lets another provider charge: a moved route must not.
    """
    said = strict.document(body)
    message = None if isinstance(said, Parked) else said.get("message")
    return isinstance(message, str) and bool(message.strip()) and "route" not in message.casefold()


def answered(said: Told | Parked) -> Told | Unclear:
    """An answer that says too little is asked for again."""
    return Unclear(said.reason) if isinstance(said, Parked) else said
