"""The translation tables on disk: forms, patterns and stencils that earlier runs have made.

One file a guest and set of announced features, keyed by a hash of the sources that made it, LLVM and the host CPU. A
file that is damaged, truncated or of another key is ignored and replaced at the end of the run; a disk that takes no
file costs the next start a translation, nothing else.
"""

import hashlib
from collections.abc import Iterable
from pathlib import Path

import llvmlite.binding as llvm

from tcg.exec.tables import Tables
from tcg.runtime.object import cache_directory

_SOURCES = ("tcg/ir", "tcg/opt", "tcg/exec", "tcg/runtime/layout.py", "tcg/runtime/struct.py", "frontends", "backends")
_ROOT = Path(__file__).resolve().parents[2]


def source_files() -> list[Path]:
    """The sources that stencils and patterns depend on."""
    found: list[Path] = []
    for name in _SOURCES:
        path = _ROOT / name
        found += sorted(path.rglob("*.py")) if path.is_dir() else [path]
    return found


def source_hash() -> str:
    digest = hashlib.sha256()
    for path in source_files():
        digest.update(str(path.relative_to(_ROOT)).encode() + b"\0" + path.read_bytes())
    features = llvm.get_host_cpu_features().flatten()
    digest.update(f"{llvm.llvm_version_info}{llvm.get_host_cpu_name()}{features}".encode())
    return digest.hexdigest()[:32]


class TableCache:
    """The file of one guest's tables. status: what `load` found, for `tessera cache info` and --stats."""

    def __init__(self, tables: Tables, guest: str, features: Iterable[str], directory: Path | None = None) -> None:
        self.tables = tables
        variant = hashlib.sha256(" ".join(sorted(features)).encode()).hexdigest()[:8]
        self.path = (directory or cache_directory()) / f"tables-{guest}-{variant}.bin"
        self.key = source_hash()
        self.status = "not read"

    def load(self) -> bool:
        """Fill the tables; False, and they stay empty, when no usable file is there."""
        if not self.path.exists():
            self.status = "absent"
            return False
        found = self.tables.load(self.path, self.key)
        self.status = "loaded" if found else "ignored (other sources or host, or damaged)"
        return found

    def save(self) -> bool:
        return self.tables.save(self.path, self.key)
