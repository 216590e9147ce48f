"""
Money is integer minor units with its currency. This file knows how many minor units a major unit has (ISO 4217), and
turns what providers write into them. Decimals and digits only: a float never comes near money.
"""

from __future__ import annotations

import re
from decimal import Decimal

from service.payments.facts import AMOUNT_MINOR_MAX

_WHOLE = "BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF"
_EXPONENTS: dict[str, int] = {
    **dict.fromkeys(_WHOLE.split(), 0),
    **dict.fromkeys(("BHD", "IQD", "JOD", "KWD", "LYD", "OMR", "TND"), 3),
    **dict.fromkeys(("CLF", "UYW"), 4),
}
"""ISO 4217; every currency that is not named here has 2."""

_PLAIN = re.compile(r"[0-9]{1,16}(\.[0-9]{1,8})?")
# Longer or finer than any of these and it is no amount of money; it also keeps Decimal's work small.
_DIGITS_MAX, _PLACES_MAX = 24, 8


def exponent(currency: str) -> int:
    """How many decimal places a currency's major unit has: 2 for EUR, 0 for XOF."""
    return _EXPONENTS.get(currency, 2)


def from_major(value: object, currency: str) -> int | None:
    """
    Minor units of an amount written in major units: an int, a Decimal, or plain digits with or without a point.

    None for anything else, for what is no whole number of minor units (0.5 XOF), for less than nothing and for more
    than `AMOUNT_MINOR_MAX`.
    """
    return _minor(_decimal(value), exponent(currency))


def from_wire(value: object, places: int, currency: str) -> int | None:
    """Minor units of a whole number that a provider counts in its own units of `places` decimals, else None."""
    given = _decimal(value)
    if given is None or given != given.to_integral_value():
        return None
    return _minor(given.scaleb(-places), exponent(currency))


def to_wire(amount_minor: int, places: int, currency: str) -> int | None:
    """The way back: an amount in a provider's own units of `places` decimals, None if it is no whole number of them."""
    units = to_major(amount_minor, currency).scaleb(places)
    return int(units) if units == units.to_integral_value() else None


def to_major(amount_minor: int, currency: str) -> Decimal:
    """The amount as people write it: 1050 EUR is 10.50, 1050 XOF is 1050."""
    return Decimal(amount_minor).scaleb(-exponent(currency))


def _decimal(value: object) -> Decimal | None:
    if isinstance(value, str):
        value = Decimal(value) if _PLAIN.fullmatch(value) else None
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 10**_DIGITS_MAX:
        return Decimal(value)
    if isinstance(value, Decimal) and value.is_finite() and not value.is_signed():
        _, digits, power = value.as_tuple()
        assert isinstance(power, int)  # finite
        if -_PLACES_MAX <= power <= _DIGITS_MAX and len(digits) + max(power, 0) <= _DIGITS_MAX:
            return value
    return None


def _minor(major: Decimal | None, places: int) -> int | None:
    if major is None:
        return None
    minor = major.scaleb(places)
    if minor != minor.to_integral_value() or minor > AMOUNT_MINOR_MAX:
        return None
    return int(minor)
