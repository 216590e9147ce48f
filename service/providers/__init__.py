"""The six providers, by name. A seventh is one file beside these, one line here, and the conformance suite."""

from __future__ import annotations

from collections.abc import Mapping

from service.providers.base import Provider
from service.providers.ebilling import EBILLING
from service.providers.fedapay import FEDAPAY
from service.providers.moneroo import MONEROO
from service.providers.monetbil import MONETBIL
from service.providers.paystack import PAYSTACK
from service.providers.stripe import STRIPE

PROVIDERS: Mapping[str, Provider] = {
    provider.name: provider for provider in (STRIPE, PAYSTACK, FEDAPAY, MONETBIL, MONEROO, EBILLING)
}
