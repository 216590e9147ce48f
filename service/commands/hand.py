"""Whose hand it is on a command line, where everybody is `cli` until they say their name."""

from __future__ import annotations

from typing import Final

from service.errors import Refusal

NAMELESS: Final = "cli"


def refuse_nameless(asked: str, actor: str) -> None:
    """
    A second person approves what another has asked for, so both have to be somebody. `asked`: the actor of who did.

    Raises Refusal second_person.
    """
    if actor == NAMELESS:
        raise Refusal("second_person", "Say who approves it: --as NAME.")
    if asked == NAMELESS:
        raise Refusal(
            "second_person",
            "It was asked for on the command line by nobody: without --as NAME no second person can be told apart.",
        )
