"""
The six providers, by name. A seventh is three files beside these, a line here and there, and the conformance suite.

`PROVIDERS` is the half that listens (callbacks, answers), `CALLS` the half that calls, `PAYOUTS` the one that pays.
"""

from __future__ import annotations

from collections.abc import Mapping

from service.providers import (
    ebilling_calls,
    ebilling_payouts,
    fedapay_calls,
    fedapay_payouts,
    moneroo_calls,
    moneroo_payouts,
    monetbil_calls,
    monetbil_payouts,
    paystack_calls,
    paystack_payouts,
    stripe_calls,
    stripe_payouts,
)
from service.providers.base import Provider
from service.providers.calls import Calls
from service.providers.ebilling import EBILLING
from service.providers.fedapay import FEDAPAY
from service.providers.moneroo import MONEROO
from service.providers.monetbil import MONETBIL
from service.providers.payouts import Payouts
from service.providers.paystack import PAYSTACK
from service.providers.stripe import STRIPE

PROVIDERS: Mapping[str, Provider] = {
    provider.name: provider for provider in (STRIPE, PAYSTACK, FEDAPAY, MONETBIL, MONEROO, EBILLING)
}

CALLS: Mapping[str, Calls] = {
    STRIPE.name: stripe_calls.CALLS,
    PAYSTACK.name: paystack_calls.CALLS,
    FEDAPAY.name: fedapay_calls.CALLS,
    MONETBIL.name: monetbil_calls.CALLS,
    MONEROO.name: moneroo_calls.CALLS,
    EBILLING.name: ebilling_calls.CALLS,
}

PAYOUTS: Mapping[str, Payouts] = {
    STRIPE.name: stripe_payouts.PAYOUTS,
    PAYSTACK.name: paystack_payouts.PAYOUTS,
    FEDAPAY.name: fedapay_payouts.PAYOUTS,
    MONETBIL.name: monetbil_payouts.PAYOUTS,
    MONEROO.name: moneroo_payouts.PAYOUTS,
    EBILLING.name: ebilling_payouts.PAYOUTS,
}
