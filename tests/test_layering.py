"""The folder is the architecture: which package may import which, read from every module's import statements.

frontends and backends import tcg only; tcg imports none of the others; hw imports tcg's published contracts at most;
the command line alone sees all four.
"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("tcg", "frontends", "backends", "hw")

# Importer (its longest matching prefix) to what it may import of the four packages, itself aside.
ALLOWED: dict[str, tuple[str, ...]] = {
    "tcg": (),
    "tcg.cli": ("frontends", "backends", "hw"),
    "frontends": ("tcg",),
    "backends": ("tcg",),
    "hw": ("tcg.runtime.layout",),
}

# The struct that native code, translator and devices share: a contract, open to all.
CONTRACTS = ("tcg.runtime.layout",)

# Inside tcg: the IR knows nothing that is built on it, and nothing but the command line knows the command line.
FORBIDDEN_INSIDE = {
    "tcg.ir": ("tcg.opt", "tcg.exec", "tcg.mem", "tcg.runtime", "tcg.cli"),
    "tcg.opt": ("tcg.exec", "tcg.mem", "tcg.runtime", "tcg.cli"),
    "tcg.runtime": ("tcg.cli",),
    "tcg.exec": ("tcg.cli",),
    "tcg.mem": ("tcg.cli",),
    "frontends": ("tcg.cli",),
    "backends": ("tcg.cli",),
}

# A guest knows no other guest, a host no other host.
SEPARATE = ("frontends", "backends")


def modules() -> list[tuple[str, Path]]:
    """Every module of the four packages: dotted name and file."""
    found = []
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found.append((".".join(parts[:-1] if parts[-1] == "__init__" else parts), path))
    return found


def imports(name: str, source: str, is_package: bool) -> set[str]:
    """Dotted names that a module imports, relative imports resolved, those inside functions included."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = name.split(".")
                parts = parts[: len(parts) - node.level + is_package]
                base = ".".join([*parts, base] if base else parts)
            found |= {f"{base}.{alias.name}" for alias in node.names}
    return found


def within(name: str, prefix: str) -> bool:
    """Is ``name`` the package ``prefix`` or inside it?"""
    return name == prefix or name.startswith(prefix + ".")


def violations(name: str, imported: set[str]) -> list[str]:
    """What a module imports against the rules."""
    importer = max((prefix for prefix in ALLOWED if within(name, prefix)), key=len)
    own = name.split(".")[0]
    bad = []
    for target in sorted(imported):
        if target.split(".")[0] not in PACKAGES:
            continue
        foreign = not within(target, own)
        if foreign and not any(within(target, allowed) for allowed in ALLOWED[importer]):
            bad.append(target)
        for prefix, forbidden in FORBIDDEN_INSIDE.items():
            contract = any(within(target, open_to_all) for open_to_all in CONTRACTS)
            if within(name, prefix) and not contract and any(within(target, other) for other in forbidden):
                bad.append(target)
        if own in SEPARATE and not foreign and len(name.split(".")) > 1 and len(target.split(".")) > 1:
            here, there = name.split(".")[1], target.split(".")[1]
            if here != there and (ROOT / own / there).is_dir():
                bad.append(target)
    return bad


@pytest.mark.parametrize(("name", "path"), modules(), ids=[name for name, _ in modules()])
def test_imports(name: str, path: Path) -> None:
    imported = imports(name, path.read_text(), path.name == "__init__.py")
    assert violations(name, imported) == []


def test_every_package_is_one() -> None:
    """Without ``__init__.py`` an installed package of that name would win, and the folder would not be in the wheel."""
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            assert (path.parent / "__init__.py").is_file(), path.parent


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("tcg.exec.loop", "import frontends.x86"),
        ("tcg.exec.loop", "def f():\n    from backends.llvm import lower"),
        ("tcg.ir.ops", "from tcg.opt import rules"),
        ("tcg.ir.ops", "from ..opt import rules"),
        ("frontends.x86.state", "from hw.core import bus"),
        ("backends.llvm.lower", "from frontends.x86 import state"),
        ("backends.llvm.lower", "from tcg.cli import main"),
        (
            "backends.llvm.lower",
            "from backends.interp import run" if (ROOT / "backends" / "interp").is_dir() else "import hw",
        ),
        ("hw.core.bus", "from tcg.ir import ops"),
    ],
)
def test_the_rules_bite(name: str, source: str) -> None:
    assert violations(name, imports(name, source, False))


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("tcg.cli.main", "from hw.machines import q35\nimport frontends.x86, backends.llvm"),
        ("frontends.x86.state", "from tcg.runtime import layout\nfrom . import operands\nimport capstone"),
        ("hw.core.bus", "from tcg.runtime.layout import ENV\nfrom hw.core import regs"),
    ],
)
def test_the_rules_allow(name: str, source: str) -> None:
    assert violations(name, imports(name, source, False)) == []
