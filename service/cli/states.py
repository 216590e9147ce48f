"""`caisse states`"""

from __future__ import annotations

import click

from service.cli import show


@click.command()
@click.option("--mermaid", is_flag=True, help="As Mermaid diagrams, for the documentation.")
@click.option("--machine", help="Only this one.")
@show.as_json
def states(mermaid: bool, machine: str | None, json_: bool) -> None:
    """The machines: every state, what happens, and where it leads."""
    from service.escrow.states import MACHINES as OF_ESCROW
    from service.orders.states import MACHINES as OF_ORDERS
    from service.payments.states import MACHINES as OF_PAYMENTS
    from service.payments.states import mermaid as drawn

    machines = {**OF_PAYMENTS, **OF_ORDERS, **OF_ESCROW}

    if machine is not None and machine not in machines:
        raise click.BadParameter(f"there are {', '.join(machines)}", param_hint="--machine")
    chosen = {name: rows for name, rows in machines.items() if machine in (None, name)}
    if mermaid:
        if json_:
            show.dump({name: drawn(rows) for name, rows in chosen.items()})
        else:
            click.echo("\n\n".join(f"%% {name}\n{drawn(rows)}" for name, rows in chosen.items()))
        return
    spread = [
        {"machine": name, "from": str(state), "what": str(row.what), "to": str(row.to or state), "note": row.note}
        for name, rows in chosen.items()
        for row in rows
        for state in row.states
    ]
    show.rows(spread, json_, ("machine", "from", "what", "to", "note"), "")
