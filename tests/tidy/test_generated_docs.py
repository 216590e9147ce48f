"""The pages made from the code say what the code does now, and the code shown in them works."""

from __future__ import annotations

import difflib
import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.tidy import pages as made
from tests.tidy.house import ROOT

NAMES = ("docs/states.md", "docs/events.md", "docs/settings.md", "docs/commands.md", "docs/metrics.md")


@pytest.fixture(scope="module")
def fresh() -> dict[str, str]:
    """Every page as it would be written now."""
    return made.pages()


def test_every_made_page_is_compared(fresh: dict[str, str]) -> None:
    """A new page is added to the list of this file."""
    assert tuple(fresh) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_made_page_is_not_stale(name: str, fresh: dict[str, str]) -> None:
    """What stands in docs/ is what the code says, letter for letter."""
    path = ROOT / name
    stands = path.read_text("utf-8") if path.exists() else ""
    if stands != fresh[name]:
        lines = difflib.unified_diff(stands.splitlines(), fresh[name].splitlines(), "stands", "the code says", n=0)
        shown = "\n".join(list(lines)[:20])
        pytest.fail(f"{name} is stale: run `make docs` ({made.HOW}), then read the change.\n{shown}")


def test_making_twice_makes_the_same(fresh: dict[str, str]) -> None:
    """No clock, no luck and no path of this machine gets into a page."""
    again = made.pages()
    assert again == fresh
    assert not any(str(Path.home()) in text or str(ROOT) in text for text in again.values())


def fenced(page: str, language: str) -> list[str]:
    """The code blocks of one language."""
    return re.findall(rf"^```{language}\n(.*?)^```", page, re.MULTILINE | re.DOTALL)


def example(page: str) -> tuple[dict[str, str], bytes]:
    """The headers and the body of the event that the page shows, the body as it is sent."""
    lines = fenced(page, "http")[0].splitlines()[1:]
    headers = dict(line.split(": ", 1) for line in lines)
    return headers, json.dumps(json.loads(fenced(page, "json")[0]), separators=(",", ":"), ensure_ascii=False).encode()


def test_the_python_of_the_page_verifies_the_webhook_of_the_page(
    fresh: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes the example, refuses another body, another secret and another time, and takes a rotated secret."""
    headers, body = example(fresh["docs/events.md"])
    names: dict[str, Any] = {}
    exec(fenced(fresh["docs/events.md"], "python")[0], names)
    verified: Callable[[str, dict[str, str], bytes], bool] = names["verified"]
    stamp = int(headers["webhook-timestamp"])
    monkeypatch.setattr("time.time", lambda: float(stamp + 3))
    assert verified(made.EXAMPLE_SECRET, headers, body)
    two = headers | {"webhook-signature": "v1,AAAA " + headers["webhook-signature"]}
    assert verified(made.EXAMPLE_SECRET, two, body)
    assert not verified(made.EXAMPLE_SECRET, headers, body + b" ")
    assert not verified("whsec_" + "A" * 44, headers, body)
    monkeypatch.setattr("time.time", lambda: float(stamp + 3600))
    assert not verified(made.EXAMPLE_SECRET, headers, body)


def test_the_official_library_agrees_with_the_page(fresh: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The example verifies with `standardwebhooks`, too."""
    import standardwebhooks.webhooks as official

    headers, body = example(fresh["docs/events.md"])
    stamp = int(headers["webhook-timestamp"])

    class At(official.datetime):  # type: ignore[misc, name-defined]
        """A clock that stands where the example was made."""

        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return cls.fromtimestamp(stamp, tz)

    monkeypatch.setattr(official, "datetime", At)
    assert official.Webhook(made.EXAMPLE_SECRET).verify(body, headers)["type"] == "payment.succeeded"


@pytest.mark.skipif(shutil.which("php") is None, reason="there is no PHP here; where there is, its example is run")
def test_the_php_of_the_page_verifies_the_webhook_of_the_page(fresh: dict[str, str], tmp_path: Path) -> None:
    """The same in PHP, with the example's time put in the place of now."""
    headers, body = example(fresh["docs/events.md"])
    source = fenced(fresh["docs/events.md"], "php")[0].replace("time()", headers["webhook-timestamp"])
    given = json.dumps({"headers": headers, "body": body.decode()})
    (tmp_path / "given.json").write_text(given, "utf-8")
    (tmp_path / "it.php").write_text(
        f"<?php\n{source}\n$given = json_decode(file_get_contents($argv[1]), true);\n"
        "echo json_encode([verified($argv[2], $given['headers'], $given['body']),"
        " verified($argv[2], $given['headers'], $given['body'] . ' ')]);"
    )
    command = ["php", str(tmp_path / "it.php"), str(tmp_path / "given.json"), made.EXAMPLE_SECRET]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == [True, False]
