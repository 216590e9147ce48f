"""
The six providers, by name. A seventh is two files beside these, a line here and there, and the conformance suite.

`PROVIDERS` is the half that listens (callbacks, answers), `CALLS` the half that calls.
"""

from __future__ import annotations

from collections.abc import Mapping

from service.providers import ebilling_calls, fedapay_calls, moneroo_calls, monetbil_calls, paystack_calls, stripe_calls
from service.providers.base import Provider
from service.providers.calls import Calls
from service.providers.ebilling import EBILLING
from service.providers.fedapay import FEDAPAY
from service.providers.moneroo import MONEROO
from service.providers.monetbil import MONETBIL
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
