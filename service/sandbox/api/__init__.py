"""The six providers' APIs, a file or two each; `service.sandbox.desk` has the contract."""

from __future__ import annotations

from collections.abc import Mapping

from service.sandbox.api import ebilling, fedapay, moneroo, monetbil, paystack, stripe
from service.sandbox.desk import Api

APIS: Mapping[str, Api] = {
    module.API.name: module.API for module in (stripe, paystack, fedapay, monetbil, moneroo, ebilling)
}
