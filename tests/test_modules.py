"""Every module says what it is, and is short enough to be read in one sitting."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FOLDERS = ("tcg", "frontends", "backends", "hw", "benchmarks", "tests")
LIMIT = 700  # lines; 50 to 300 is what we aim at

# Tables may be longer: they are looked things up in, not read through.
TABLES: frozenset[str] = frozenset()


def modules() -> list[Path]:
    """Every Python file of ours, relative to the root."""
    return [path.relative_to(ROOT) for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))]


@pytest.mark.parametrize("path", modules(), ids=str)
def test_module(path: Path) -> None:
    text = (ROOT / path).read_text()
    tree = ast.parse(text)
    assert ast.get_docstring(tree) or not tree.body, "no docstring"
    assert text.count("\n") <= LIMIT or str(path) in TABLES, "too long: split it along its subjects"


def test_the_tables_are_there_and_long() -> None:
    """An entry that is not needed any more goes."""
    for name in TABLES:
        assert (ROOT / name).read_text().count("\n") > LIMIT, name
