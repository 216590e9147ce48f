"""A merchant's own software at `/v1`: requests with a key, problems that are problems."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from service.merchants import keys
from service.merchants.audit import By
from tests.support.service import Till


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back. `said` is the JSON, None for an empty body."""

    status: int
    said: Any
    headers: Mapping[str, str]

    @property
    def code(self) -> str:
        """The word of a problem."""
        return str(self.said["type"]).removeprefix("urn:caisse:")

    @property
    def replayed(self) -> bool:
        """Whether nothing was done again."""
        return self.headers.get("Idempotent-Replayed") == "true"


@dataclass(frozen=True, slots=True)
class Api:
    """Bound to a running service and a key."""

    t: Till
    key: str

    async def __call__(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        once: str = "",
        headers: Mapping[str, str] | None = None,
        **more: Any,
    ) -> Answer:
        """One request; `once` is the Idempotency-Key. What is refused must be a problem, and none a 5xx but 503."""
        given = (
            {"Authorization": f"Bearer {self.key}"} | ({"Idempotency-Key": once} if once else {}) | dict(headers or {})
        )
        if body is not None:
            more["json"] = body
        async with self.t.client.request(method, f"{self.t.url}/v1{path}", headers=given, **more) as answer:
            raw = await answer.read()
            said: Any = await answer.json(content_type=None) if raw else None
            if answer.status >= 400:
                assert answer.content_type == "application/problem+json", raw
                assert said["status"] == answer.status and said["detail"].endswith("."), said
                assert answer.status < 500 or answer.status == 503, said
            return Answer(answer.status, said, answer.headers.copy())


def api_of(t: Till) -> Api:
    """The first merchant's, with a test key that may do everything."""
    assert t.merchant is not None
    return Api(t, t.merchant.key.key)


async def another(t: Till, *, live: bool = False, scopes: tuple[str, ...] = ("*",), merchant: str = "") -> Api:
    """Another key, of the first merchant unless `merchant` names one."""
    assert t.merchant is not None
    whose, by = merchant or t.merchant.id, By("test", t.app.clock(), t.app.ids)
    made = await t.app.db.write(lambda tx: keys.create(tx, whose, live, by, scopes=scopes))
    return Api(t, made.key)
