"""docs/providers.md says what the code says, and every belief that can be set is explained in it."""

from __future__ import annotations

import pytest

from service.providers import CALLS, PAYOUTS
from tests.support.beliefs import BELIEFS, PAYOUT_BELIEFS
from tests.support.provider_page import PAGE, page


def test_the_page_is_what_the_code_says() -> None:
    """Letter for letter; `python -m tests.support.provider_page` writes it."""
    assert PAGE.read_text(encoding="utf-8") == page()


@pytest.mark.parametrize("provider", CALLS)
def test_every_fact_is_explained(provider: str) -> None:
    """With its weight, and none that is gone."""
    for below, beliefs, facts in (
        ("facts.", BELIEFS[provider], CALLS[provider].facts),
        ("payout_facts.", PAYOUT_BELIEFS[provider], PAYOUTS[provider].facts),
    ):
        explained = [belief.setting for belief in beliefs if belief.setting.startswith(below)]
        assert sorted(explained) == sorted(f"{below}{name}" for name in facts)
        assert all(belief.weight in ("SDK", "docs", "3p", "unv") for belief in beliefs)
