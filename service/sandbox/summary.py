"""What the demonstration says at its end: what came, what went, and whether anything was lost."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from rich.console import Console

from service.sandbox.closing import Closing
from service.sandbox.figures import grouped, money
from service.sandbox.merchant import Counters
from service.sandbox.player import Played
from service.sandbox.stall import Sales


@dataclass(frozen=True, slots=True)
class Ended:
    """What is said at the end."""

    closing: Closing
    played: Played
    shop: Counters
    refused: int  # webhooks that a listener could not verify
    recover: list[str]  # the commands that bring what failed
    sales: Sales = field(default_factory=Sales)  # for the seller whose money is held


def summarise(ended: Ended, console: Console) -> None:
    """The closing words."""
    say = sayer(console)
    played, shop, closing = ended.played, ended.shop, ended.closing
    say("")
    say(
        f"Callbacks  {grouped(played.acknowledged)} acknowledged"
        f" ({grouped(played.repeats)} sent twice, {grouped(played.retries)} tried again)"
    )
    say(f"           {grouped(closing.worked_on)} of {grouped(closing.callbacks)} different ones worked on")
    say(f"Webhooks   {grouped(shop.verified)} verified by the shop, {grouped(shop.on_purpose)} failed on purpose")
    say(f"           {grouped(shop.retried)} got by a retry, {grouped(shop.repeat)} repeats dropped")
    say(f"Events     {grouped(closing.events)} told")
    for name, told in closing.told.items():
        say(
            f"  {name:<9}{grouped(told.delivered)} delivered"
            + (f", {grouped(told.waiting)} waiting for their next try" if told.waiting else "")
            + (f", {grouped(told.failed)} failed and kept" if told.failed else "")
        )
    for command in ended.recover:
        say(f"           when it runs again, {command}")
    sales = ended.sales
    if sales.sold:
        say(
            f"Sales      {grouped(sales.sold)} sold for the seller ({money(sales.sold_minor, 'XOF')}),"
            f" {grouped(sales.paid_out)} paid out to them ({money(sales.paid_out_minor, 'XOF')})"
        )
    for number, words in (
        (closing.unfinished, "callbacks have work or a question open; the next start goes on"),
        (closing.aside, "callbacks set aside (parked or deferred)"),
        (played.owed, "callbacks not acknowledged before the end"),
        (played.given_up, "callbacks that the player gave up"),
        (played.refused, "callbacks refused, which should not be"),
        (ended.refused, "webhooks that could not be verified, which should not be"),
    ):
        if number:
            say(f"           {grouped(number)} {words}")
    if closing.lost:
        say(f"LOST       {grouped(len(closing.lost))}:")
        for what in closing.lost[:20]:
            say(f"           {what}")
    else:
        say("Nothing was lost: every acknowledged callback was kept and worked on,")
        say("every event is delivered, owed, or kept as failed where nobody answered.")


def sayer(console: Console) -> Any:
    """Says lines as they are."""

    def say(text: str) -> None:
        console.print(text, markup=False, highlight=False, soft_wrap=True)

    return say
