"""What the house rules read: our files, and who imports whom."""

from __future__ import annotations

import ast
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = ("service", "outbox", "scheduler")


@cache
def files() -> tuple[Path, ...]:
    """Every file of the project: tracked, or new and not ignored. Relative to the root."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        check=False,
    )
    if listed.returncode == 0:
        names = [name for name in listed.stdout.decode().split("\0") if name]
    else:  # an unpacked archive has no git; then everything that is not hidden and not made by tools
        skip = {"build", "dist", "__pycache__", "caisse-dev"}
        names = [
            str(path.relative_to(ROOT))
            for path in ROOT.rglob("*")
            if not any(part in skip or part.endswith(".egg-info") for part in path.parts)
            and (not path.relative_to(ROOT).parts[0].startswith(".") or path.relative_to(ROOT).parts[0] == ".ci")
        ]
    return tuple(sorted(path for name in set(names) if (ROOT / (path := Path(name))).is_file()))


@cache
def text(path: Path) -> str:
    """The file's text, empty for what is not text."""
    try:
        return (ROOT / path).read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return ""


def python_files(*tops: str) -> Iterator[Path]:
    """Our Python files below these top-level folders."""
    return (path for path in files() if path.suffix == ".py" and path.parts[0] in tops)


def module_name(path: Path) -> str:
    """`service/api/errors.py` is `service.api.errors`, `service/api/__init__.py` is `service.api`."""
    parts = path.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@dataclass(frozen=True)
class Import:
    """`of` imports `what`; for `from a.b import c` that is `a.b.c`, since c may be a module. `typing`: a type alone."""

    of: str
    what: str
    line: int
    typing: bool = False

    def __str__(self) -> str:
        return f"{self.of}:{self.line} imports {self.what}"


def imports(module: str, source: str) -> list[Import]:
    """Every import of a module, wherever it stands: at the top, in a function, under TYPE_CHECKING."""
    tree = ast.parse(source)
    typing = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) in {"TYPE_CHECKING", "typing.TYPE_CHECKING"}
        for statement in node.body
        for inner in ast.walk(statement)
    }
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [Import(module, alias.name, node.lineno, id(node) in typing) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}:{node.lineno}: imports are absolute here"
            names = (f"{node.module}.{alias.name}" for alias in node.names)
            found += [Import(module, name, node.lineno, id(node) in typing) for name in names]
    return found


def under(name: str, *prefixes: str) -> bool:
    """Whether a dotted name is one of these or lies below one."""
    return any(name == prefix or name.startswith(f"{prefix}.") for prefix in prefixes)
