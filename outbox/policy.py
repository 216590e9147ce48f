"""How often, how long and how many at once: one frozen record per topic, and the schedules of delays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

SHORT_MS = (1_000, 2_000, 4_000, 8_000, 16_000)
STANDARD_MS = (
    *SHORT_MS,
    60_000,
    5 * 60_000,
    15 * 60_000,
    3_600_000,
    3 * 3_600_000,
    6 * 3_600_000,
    12 * 3_600_000,
    24 * 3_600_000,
    24 * 3_600_000,
)

DELAY_MS_MAX = 7 * 24 * 3_600_000
RETRIES_MAX = 50
BATCH_MAX = 50
SETTLE_MARGIN_MS = 5_000
"""Time left between the end of the longest try and the end of the lease, for the settle to be committed."""


def schedule(setting: str | Sequence[int]) -> tuple[int, ...]:
    """
    The delays in ms that a setting means: `short`, `standard`, or an explicit list of ms. An empty list: one try.

    Raises ValueError for another word, more than 50 delays, or a delay outside 0 … 7 days.
    """
    if isinstance(setting, str):
        if setting not in _PRESETS:
            raise ValueError(f"A schedule is 'short', 'standard' or a list of delays, not {setting!r}.")
        return _PRESETS[setting]
    delays_ms = tuple(setting)
    if len(delays_ms) > RETRIES_MAX:
        raise ValueError(f"A schedule has at most {RETRIES_MAX} delays, this one has {len(delays_ms)}.")
    for delay_ms in delays_ms:
        if type(delay_ms) is not int or not 0 <= delay_ms <= DELAY_MS_MAX:
            raise ValueError(f"A delay is a whole number of ms between 0 and {DELAY_MS_MAX}, not {delay_ms!r}.")
    return delays_ms


_PRESETS = {"short": SHORT_MS, "standard": STANDARD_MS}


@dataclass(frozen=True, slots=True)
class Policy:
    """
    How one topic is worked on. Refused with ValueError when it cannot work: above all a `limit_ms` that does not fit
    into `lease_ms` with 5 s to spare, because then a second try would start while the first still runs.

    `delays_ms`: the retries after the first try. `batch`: messages a claim. `in_flight`: acts at the same time, of
    which at most `per_destination` to one destination. `jitter`: each delay is moved by up to this share, either way.
    `breaker`: whether a destination that only fails is left alone for a while (`health.py`).
    """

    topic: str
    delays_ms: tuple[int, ...]
    lease_ms: int
    limit_ms: int
    batch: int = BATCH_MAX
    in_flight: int = 64
    per_destination: int = 16
    jitter: float = 0.2
    breaker: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "delays_ms", schedule(self.delays_ms))
        if self.limit_ms <= 0 or self.limit_ms + SETTLE_MARGIN_MS > self.lease_ms:
            raise ValueError(
                f"The time limit of {self.topic!r} ({self.limit_ms} ms) must be positive and end "
                f"{SETTLE_MARGIN_MS} ms before its lease ({self.lease_ms} ms)."
            )
        if not 1 <= self.batch <= BATCH_MAX:
            raise ValueError(f"A batch of {self.topic!r} is 1 to {BATCH_MAX} messages, not {self.batch}.")
        if self.in_flight < 1 or self.per_destination < 1:
            raise ValueError(f"{self.topic!r} needs room for at least one message in flight.")
        if not 0 <= self.jitter < 1:
            raise ValueError(f"The jitter of {self.topic!r} is a share from 0 to below 1, not {self.jitter}.")
