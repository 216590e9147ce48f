"""
The one table of named commands.

The command line runs them in its own process, or hands name and arguments to the running one; nothing else may be
done to a running service. A command is `async f(app, **arguments)`; its answer is plain JSON, its no a `Refusal`.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from service.commands import (
    accounts,
    attention,
    backup,
    balances,
    beneficiaries,
    callbacks,
    closing,
    deliveries,
    doctor,
    endpoints,
    erase,
    escrow,
    events,
    holds,
    jobs,
    keys,
    merchants,
    payments,
    payouts,
    prune,
    reconcile,
    recoveries,
    refunds,
    routes,
    settlements,
    verify,
)
from service.errors import Refusal

if TYPE_CHECKING:
    from service.application import Application

Progress = Callable[[int, int | None], None]


@dataclass(frozen=True, slots=True)
class Command:
    """A name's function. Its first sentence is its documentation."""

    does: Callable[..., Awaitable[Any]]

    @property
    def sentence(self) -> str:
        """What it does."""
        return (inspect.getdoc(self.does) or "").partition("\n")[0]


COMMANDS: Mapping[str, Command] = {
    "merchant.create": Command(merchants.create),
    "merchant.list": Command(merchants.listed),
    "merchant.disable": Command(merchants.disable),
    "account.add": Command(accounts.add),
    "account.list": Command(accounts.listed),
    "account.rotate": Command(accounts.rotate),
    "endpoint.add": Command(endpoints.add),
    "endpoint.list": Command(endpoints.listed),
    "endpoint.show": Command(endpoints.show),
    "endpoint.change": Command(endpoints.change),
    "endpoint.disable": Command(endpoints.disable),
    "endpoint.enable": Command(endpoints.enable),
    "endpoint.rotate-secret": Command(endpoints.rotate_secret),
    "endpoint.test": Command(endpoints.test),
    "keys.create": Command(keys.create),
    "keys.list": Command(keys.listed),
    "keys.revoke": Command(keys.revoke),
    "keys.rotate-master": Command(keys.rotate_master),
    "callbacks.list": Command(callbacks.listed),
    "callbacks.show": Command(callbacks.show),
    "callbacks.replay": Command(callbacks.replay),
    "events.list": Command(events.listed),
    "events.show": Command(events.show),
    "deliveries.list": Command(deliveries.listed),
    "deliveries.show": Command(deliveries.show),
    "deliveries.retry": Command(deliveries.retry),
    "deliveries.recover": Command(recoveries.recover),
    "deliveries.recoveries": Command(recoveries.listed),
    "deliveries.recovery": Command(recoveries.show),
    "deliveries.recovery.change": Command(recoveries.change),
    "payments.list": Command(payments.listed),
    "payments.show": Command(payments.show),
    "payments.explain": Command(payments.explained),
    "payments.sync": Command(payments.sync),
    "payments.decide": Command(payments.decide),
    "refunds.list": Command(refunds.listed),
    "refunds.show": Command(refunds.show),
    "refunds.create": Command(refunds.create),
    "refunds.done": Command(refunds.done),
    "refunds.give-up": Command(refunds.give_up),
    "refunds.pay-out": Command(refunds.pay_out),
    "escrow.show": Command(escrow.show),
    "escrow.set": Command(escrow.change),
    "holds.list": Command(holds.listed),
    "holds.show": Command(holds.show),
    "holds.release": Command(holds.release),
    "holds.unfreeze": Command(holds.unfreeze),
    "holds.buyer-link": Command(holds.buyer_link),
    "beneficiaries.list": Command(beneficiaries.listed),
    "beneficiaries.show": Command(beneficiaries.show),
    "beneficiaries.add": Command(beneficiaries.add),
    "beneficiaries.pay-to": Command(beneficiaries.pay_to),
    "beneficiaries.approve": Command(beneficiaries.approve),
    "beneficiaries.change": Command(beneficiaries.change),
    "beneficiaries.link": Command(beneficiaries.link),
    "payouts.list": Command(payouts.listed),
    "payouts.show": Command(payouts.show),
    "payouts.add": Command(payouts.add),
    "payouts.approve": Command(payouts.approve),
    "payouts.cancel": Command(payouts.cancel),
    "payouts.retry": Command(payouts.retry),
    "payouts.decide": Command(payouts.decide),
    "payouts.otp": Command(payouts.otp),
    "attention.list": Command(attention.listed),
    "attention.act": Command(attention.act),
    "routes.list": Command(routes.listed),
    "routes.show": Command(routes.show),
    "routes.add": Command(routes.add),
    "routes.change": Command(routes.change),
    "routes.remove": Command(routes.remove),
    "routes.order": Command(routes.order),
    "routes.set": Command(routes.set_all),
    "routes.simulate": Command(routes.simulated),
    "balances.list": Command(balances.listed),
    "balances.statement": Command(balances.statement),
    "closing": Command(closing.closed),
    "closing.csv": Command(closing.as_csv),
    "settlements.add": Command(settlements.add),
    "settlements.list": Command(settlements.listed),
    "verify": Command(verify.verify),
    "jobs.list": Command(jobs.listed),
    "jobs.show": Command(jobs.show),
    "jobs.runs": Command(jobs.runs),
    "jobs.run": Command(jobs.run),
    "jobs.pause": Command(jobs.pause),
    "jobs.resume": Command(jobs.resume),
    "prune": Command(prune.prune),
    "backup": Command(backup.backup),
    "reconcile": Command(reconcile.reconcile),
    "erase": Command(erase.erase),
    "doctor": Command(doctor.look),
    "migrate": Command(doctor.migrated),
}


async def run(app: Application, name: str, arguments: Mapping[str, Any], progress: Progress | None = None) -> Any:
    """Run a command by name. Long ones report their progress where somebody listens."""
    command = COMMANDS.get(name)
    if command is None:
        raise Refusal("unknown_command", f"The running process knows no command {name[:60]!r}; is it an older version?")
    for key, value in arguments.items():
        if not _is_text(value):
            raise Refusal("not_text", f"{key[:60]} is no text: it has a NUL or a lone surrogate in it.")
    takes = inspect.signature(command.does).parameters
    if "progress" in takes and progress is not None:
        arguments = {**arguments, "progress": progress}
    try:
        inspect.signature(command.does).bind(app, **arguments)
    except TypeError:
        raise Refusal("bad_arguments", f"{name} was called with arguments it does not have.") from None
    return await command.does(app, **arguments)


def _is_text(value: Any) -> bool:
    """Whether every string in it can be stored: what neither SQLite nor PostgreSQL takes is refused before the work."""
    match value:
        case str():
            return "\0" not in value and value == value.encode(errors="ignore").decode()
        case Mapping():
            return all(_is_text(key) and _is_text(one) for key, one in value.items())
        case list() | tuple():
            return all(map(_is_text, value))
        case _:
            return True
