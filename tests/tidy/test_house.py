"""The house rules that a reader would otherwise have to remember."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from tests.tidy.house import ROOT, files, python_files, text

PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")

# --- the tree -----------------------------------------------------------------------------------------

TOP = {
    # what architecture.md requires
    *("service", "outbox", "scheduler", "tests", "deploy", "docs", "pyproject.toml"),
    # what a project always has
    *("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "LICENSE", "Makefile", ".ci"),
    # what its tools find only here
    *(".gitignore", ".gitattributes", ".dockerignore", ".pre-commit-config.yaml"),
    *("requirements.lock", "requirements-dev.lock"),
}

LINES_MAX = 400
LINES_OF_TESTS_MAX = 800  # a test file follows its subject, and tables of cases are long
LONG_FILES: dict[str, str] = {
    # path: why it is one thing, and better long than cut
}

NAMES_THAT_SAY_NOTHING = {"util", "utils", "helper", "helpers", "common", "manager", "managers", "misc", "base_service"}


def test_the_top_level_holds_what_the_picture_allows() -> None:
    """A newcomer sees the house at one look; a new entry is a decision, written down in TOP."""
    assert {path.parts[0] for path in files()} <= TOP


def test_the_top_level_is_complete() -> None:
    """What every project has is here too."""
    later = {".gitattributes", ".dockerignore", "deploy"}  # each comes with the first thing that needs it
    missing = {name for name in TOP - later if not (ROOT / name).exists()}
    assert missing == set()


def test_a_long_file_has_its_reason() -> None:
    """Over 400 lines a file is two things, or LONG_FILES says why not."""
    long = {str(path) for path in python_files("service", "outbox", "scheduler") if lines(path) > LINES_MAX}
    long |= {str(path) for path in python_files("tests") if lines(path) > LINES_OF_TESTS_MAX}
    assert long - set(LONG_FILES) == set()


def test_the_list_of_long_files_is_true() -> None:
    """A file that became short, or went away, leaves the list."""
    assert {name for name in LONG_FILES if not (ROOT / name).exists() or lines(Path(name)) <= LINES_MAX} == set()


def lines(path: Path) -> int:
    return text(path).count("\n")


def test_a_file_is_named_for_what_it_does() -> None:
    """Nobody finds anything in a file called utils."""
    bad = [str(path) for path in files() if path.stem.lower() in NAMES_THAT_SAY_NOTHING]
    assert bad == []


def test_every_module_opens_with_what_it_is() -> None:
    """The first statement of a module with code in it is its docstring."""
    silent = [
        str(path)
        for path in python_files("service", "outbox", "scheduler", "tests")
        if text(path).strip() and not re.match(r'(#![^\n]*\n)?\s*r?"""', text(path))
    ]
    assert silent == []


# --- what no file may hold -----------------------------------------------------------------------------

LOCKS = {"requirements.lock", "requirements-dev.lock"}

# Written in pieces, so that this file does not catch itself.
FORBIDDEN = {
    "what is left to do stands in an issue": re.compile(r"\b(TO" + r"DO|FIX" + r"ME)\b"),
    "a path of somebody's machine": re.compile(r"(?<![\w.])/(wo" + r"rk|ro" + r"ot|Us" + r"ers|ho" + r"me)/[A-Za-z.]"),
    "the name of a package registry's host": re.compile(
        r"\b(pypi\.(org|io)|python" + r"hosted|regis" + r"try\.npm|npm" + r"js\.(com|org)|deb\.deb" + r"ian)",
        re.IGNORECASE,
    ),
}
PLANTED = {
    "what is left to do stands in an issue": "# TO" + "DO: later",
    "a path of somebody's machine": "open('/ro" + "ot/caisse.db')",
    "the name of a package registry's host": "--index-url=files.python" + "hosted.org",
}
SPARED = {
    # path prefix: the rule it may break, and why
    "deploy/": "a path of somebody's machine",  # units and containers name the machine they run on
}


@pytest.mark.parametrize("rule", FORBIDDEN)
def test_no_file_holds(rule: str) -> None:
    """No tracked file says what it must not."""
    found = [
        f"{path}:{number}: {line.strip()[:100]}"
        for path in files()
        if not any(str(path).startswith(prefix) and rule == spared for prefix, spared in SPARED.items())
        for number, line in enumerate(text(path).splitlines(), 1)
        if FORBIDDEN[rule].search(line)
    ]
    assert found == []


@pytest.mark.parametrize("rule", FORBIDDEN)
def test_what_is_planted_is_found(rule: str) -> None:
    """The control: each rule finds its own example."""
    assert FORBIDDEN[rule].search(PLANTED[rule])


# --- dependencies --------------------------------------------------------------------------------------


def plain(requirement: str) -> str:
    """`SQLAlchemy[asyncio]>=2.1` is `sqlalchemy`."""
    return re.split(r"[\[<>=!~; ]", requirement, maxsplit=1)[0].lower().replace("_", "-")


def declared() -> set[str]:
    groups = PYPROJECT["dependency-groups"]
    listed = [one for group in groups.values() for one in group if isinstance(one, str)]
    return {plain(one) for one in [*PYPROJECT["project"]["dependencies"], *listed]}


def locked(name: str) -> set[str]:
    return {plain(line) for line in text(Path(name)).splitlines() if re.match(r"[A-Za-z0-9]", line)}


def test_every_dependency_has_its_reason() -> None:
    """docs/dependencies.md has one row for each direct dependency, and none for what is gone."""
    rows = set(re.findall(r"^\| `([a-z0-9-]+)` \|", text(Path("docs/dependencies.md")), re.MULTILINE))
    assert rows == declared()


def test_the_locks_hold_what_is_declared() -> None:
    """`make lock` was run after the last change; the dev lock holds the runtime lock, version for version."""
    runtime = {plain(one) for one in PYPROJECT["project"]["dependencies"]}
    assert runtime <= locked("requirements.lock")
    assert declared() <= locked("requirements-dev.lock")
    versions = {name: set(re.findall(r"^([a-z0-9-]+==\S+)", text(Path(name)), re.MULTILINE)) for name in LOCKS}
    assert versions["requirements.lock"] <= versions["requirements-dev.lock"]


def test_every_locked_wheel_has_hashes_and_no_index() -> None:
    """A lock says what to install, byte for byte, and leaves where from to the machine."""
    for name in LOCKS:
        entries = re.split(r"^(?=[A-Za-z0-9])", text(Path(name)), flags=re.MULTILINE)[1:]
        assert [entry.splitlines()[0] for entry in entries if "--hash=sha256:" not in entry] == []
        assert "://" not in text(Path(name))
        assert "--index" not in text(Path(name))


# --- what the docs promise -----------------------------------------------------------------------------

TARGETS = set(re.findall(r"^([a-z][a-z-]*):", MAKEFILE, re.MULTILINE))


def test_make_help_tells_every_target() -> None:
    """A target without `## what it does` is a secret."""
    assert set(re.findall(r"^([a-z][a-z-]*):.*## \S", MAKEFILE, re.MULTILINE)) == TARGETS
    assert set(re.search(r"^\.PHONY: (.+)$", MAKEFILE, re.MULTILINE)[1].split()) == TARGETS  # type: ignore[index]


def test_the_first_screen_of_the_readme_has_the_two_commands() -> None:
    """Somebody who reads forty lines can start it and test it, with commands that exist."""
    first_screen = "\n".join(text(Path("README.md")).splitlines()[:40])
    for target in ("run", "test"):
        assert f"make {target}" in first_screen
        assert target in TARGETS


def test_docs_name_no_target_that_is_not_there() -> None:
    """`make something` in a page is a target of the Makefile, or said to come."""
    coming = {"proof", "contract"}
    pages = [path for path in files() if path.suffix == ".md" and "plan" not in path.parts]
    named = {(str(path), target) for path in pages for target in re.findall(r"`make ([a-z]+)", text(path))}
    assert {(page, target) for page, target in named if target not in TARGETS | coming} == set()


def test_links_between_pages_lead_somewhere() -> None:
    """A relative link in a page points at a file that is there."""
    lost = [
        f"{path}: {target}"
        for path in files()
        if path.suffix == ".md"
        for target in re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", text(path))
        if not (ROOT / path.parent / target).exists()
    ]
    assert lost == []


def test_the_changelog_has_a_place_for_what_is_next() -> None:
    """A change and its line in the changelog land together."""
    assert re.search(r"^## Unreleased$", text(Path("CHANGELOG.md")), re.MULTILINE)


def test_the_words_of_the_house_are_explained() -> None:
    """docs/glossary.md explains each word that the guide allows."""
    words = ("callback", "fact", "transition", "event", "endpoint", "webhook", "message", "try", "tick", "work", "act")
    page = text(Path("docs/glossary.md"))
    assert [word for word in words if f"**{word}**" not in page] == []


def test_a_decision_has_its_number_and_its_place_in_the_list() -> None:
    """docs/adr is numbered without gaps, and its README lists every page."""
    pages = sorted(path for path in files() if path.parent == Path("docs/adr") and path.name != "README.md")
    assert [int(path.name[:4]) for path in pages] == list(range(len(pages)))
    listed = text(Path("docs/adr/README.md"))
    assert [path.name for path in pages if f"({path.name})" not in listed] == []
