"""
What goes wrong in the sandbox, switched on by provider, operation and count.

    trouble.on("paystack", "timeout_after")                         the next and all later charges
    trouble.on("stripe", "error_5xx_before", "refund", times=2)     the next two refunds
    trouble.on("paystack", "payout_returned_later", delay_ms=60_000)  payouts arrive, and come back a minute later
    trouble.off()                                                   all is well again

`before` troubles let nothing happen; `after` troubles strike when the operation has been done, and only where it was
not refused: the charge is there, and whoever asked for it does not know.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal, get_args

Operation = Literal["create", "fetch", "otp", "cancel", "refund", "callback", "capture", "prepare", "payout"]
OPERATIONS: Final[tuple[Operation, ...]] = get_args(Operation)
"""`payout` is the call that sends money out, `prepare` one that has to come before it and moves none."""

KINDS: Final[dict[str, tuple[str, str]]] = {
    # name: the operation it stands for when none is named (empty: every one), and what it does
    "timeout_before": ("create", "nothing happens and no answer comes"),
    "timeout_after": ("create", "it is done and no answer comes"),
    "refuse": ("", "connections are refused: the listener is closed (needs a port for each provider; not counted)"),
    "reset": ("create", "it is done and the connection is dropped"),
    "error_5xx_before": ("create", "500, nothing has happened"),
    "error_5xx_after": ("create", "it is done, and the answer is 500"),
    "garbage_2xx": ("create", "it is done, and the answer is 200 with bytes that nobody can read"),
    "rate_limited": ("create", "429"),
    "unauthorized": ("create", "401"),
    "maintenance": ("create", "503 with a page for people"),
    "wrong_amount": ("capture", "the amount that is taken differs by `minor`"),
    "otp_wrong": ("otp", "the right code is called wrong"),
    "refund_fails_later": ("refund", "the refund is taken, succeeds, and fails afterwards"),
    "payout_fails": ("payout", "the payout is taken, and fails before anybody is paid"),
    "payout_returned_later": ("payout", "the payee is paid, and the money comes back after `delay_ms`"),
    "payout_slow": ("payout", "the payout is in transit for `delay_ms`"),
    "payout_otp": ("payout", "the payout wants a code from a person first (Paystack)"),
    "insufficient_float": ("payout", "there is not enough to pay out, whatever the float holds"),
    "duplicate": ("callback", "callbacks are sent twice"),
    "reordered": ("callback", "callbacks that wait are sent last first"),
    "late": ("callback", "callbacks are sent `delay_ms` later"),
    "silence": ("callback", "no callbacks"),
}

BEFORE: Final = ("timeout_before", "error_5xx_before", "rate_limited", "unauthorized", "maintenance")
AFTER: Final = ("timeout_after", "reset", "error_5xx_after", "garbage_2xx")
PAYOUT: Final = ("payout_fails", "payout_returned_later", "payout_slow", "payout_otp", "insufficient_float")

RULES_MAX: Final = 200
DELAY_MS_MAX: Final = 7 * 24 * 3_600_000
MINOR_MAX: Final = 10**12


@dataclass(slots=True)
class Rule:
    """One trouble. `left`: how often it still strikes, None: always. `minor`: added to the amount, below 0 less."""

    provider: str  # or *
    kind: str
    operation: str  # or *
    left: int | None = None
    delay_ms: int = 0
    minor: int = 0


class Trouble:
    """The rules in the order they were made; the first that fits strikes."""

    def __init__(self, providers: tuple[str, ...]) -> None:
        self._providers = providers
        self._rules: list[Rule] = []
        self.changed: Callable[[], None] = lambda: None

    def on(
        self,
        provider: str,
        kind: str,
        operation: str = "",
        *,
        times: int | None = None,
        delay_ms: int = 5_000,
        minor: int = -1,
    ) -> Rule:
        """Switch one on, `provider` and `operation` may be `*`. What makes no sense is a ValueError with a sentence."""
        if provider != "*" and provider not in self._providers:
            raise ValueError(f"provider is * or one of {', '.join(self._providers)}.")
        if kind not in KINDS:
            raise ValueError(f"kind is one of {', '.join(KINDS)}.")
        usual = KINDS[kind][0]
        operation = operation or usual or "*"
        if operation != "*" and operation not in OPERATIONS:
            raise ValueError(f"operation is * or one of {', '.join(OPERATIONS)}.")
        own = usual in ("capture", "callback") or kind in PAYOUT
        if own and operation not in (usual, "*"):
            raise ValueError(f"{kind} is for the operation {usual}.")
        if times is not None and not 0 < times <= 1_000_000:
            raise ValueError("times is between 1 and 1000000.")
        if kind == "refuse" and (times is not None or operation != "*"):
            raise ValueError("refuse closes the port: it knows neither operations nor times.")
        if not 0 <= delay_ms <= DELAY_MS_MAX or not abs(minor) <= MINOR_MAX:
            raise ValueError("delay_ms is at most a week, minor at most 10^12 either way.")
        if len(self._rules) >= RULES_MAX:
            raise ValueError(f"There are {RULES_MAX} rules already.")
        rule = Rule(provider, kind, operation, times, delay_ms, minor)
        self._rules.append(rule)
        self._change()
        return rule

    def off(self, provider: str = "*", kind: str = "*") -> None:
        """Switch off what fits: all of it by default."""
        fits = [rule for rule in self._rules if provider in ("*", rule.provider) and kind in ("*", rule.kind)]
        self._rules = [rule for rule in self._rules if rule not in fits]
        self._change()

    def take(self, provider: str, operation: str, *kinds: str) -> Rule | None:
        """The first of these kinds that strikes now; it is counted."""
        for rule in self._rules:
            if rule.kind in kinds and rule.provider in ("*", provider) and rule.operation in ("*", operation):
                if rule.left is not None:
                    rule.left -= 1
                    if rule.left == 0:
                        self._rules.remove(rule)
                return rule
        return None

    def refuses(self, provider: str) -> bool:
        """Whether connections to a provider are refused; not counted."""
        return any(rule.kind == "refuse" and rule.provider in ("*", provider) for rule in self._rules)

    def rules(self) -> tuple[Rule, ...]:
        """What is switched on."""
        return tuple(self._rules)

    def _change(self) -> None:
        try:
            self.changed()
        except ValueError:
            self._rules = [rule for rule in self._rules if rule.kind != "refuse"]
            raise
