"""The six providers' APIs, a few files each, payouts in their own; `service.sandbox.desk` has the contract."""

from __future__ import annotations

from collections.abc import Mapping

from service.sandbox.api.ebilling_payouts import API as EBILLING
from service.sandbox.api.fedapay_payouts import API as FEDAPAY
from service.sandbox.api.moneroo_payouts import API as MONEROO
from service.sandbox.api.monetbil_payouts import API as MONETBIL
from service.sandbox.api.paystack_payouts import API as PAYSTACK
from service.sandbox.api.stripe_payouts import API as STRIPE
from service.sandbox.desk import Api

APIS: Mapping[str, Api] = {api.name: api for api in (STRIPE, PAYSTACK, FEDAPAY, MONETBIL, MONEROO, EBILLING)}
"""Each whole: what it takes in and what it pays out."""
