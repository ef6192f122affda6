"""`tessera cache info|clear|warm|seeds`: the caches on disk, seen from outside.

info    every file: what it is, whether it is whole and of use to the present sources and host
clear   remove what is ours, nothing else
warm    build the run-time object and fill the tables by booting the embedded demo guest, and a kernel if one is given
seeds   print the tables' forms as a seed list (tcg.exec.seeds), from which a first boot compiles ahead

Only files named as ours are ever opened for more than their size, and no file is trusted before its hash was checked.
"""

import argparse
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from frontends.x86 import recipe as x86_recipe
from tcg.exec.cache import source_hash
from tcg.exec.hot_store import HotStore
from tcg.exec.memory_map import Mapping
from tcg.exec.seeds import collect
from tcg.exec.tables import Tables, TablesError, parse, read_file
from tcg.runtime.layout import MACHINE
from tcg.runtime.object import cache_directory, load, source_key, unpack
from tcg.runtime.registry import RUNTIMES
from tcg.runtime.struct import View

_RUNTIME, _TABLES, _HOT, _UNFINISHED = "runtime-", "tables-", "hot-", ".tmp"
_COUNTED = ("forms", "patterns", "stencils")
_DEMO = ("-demo", "-m", "64", "-device", "isa-debug-exit,iobase=0xf4,iosize=4", "-append", "exit")
_DEMO_PASSED = 0x10 << 1 | 1
_QUIET = ("-nodefaults", "-display", "none", "-no-reboot")
DEFAULT_APPEND = "console=ttyS0 quiet tessera.quiet tessera.run=true"


@dataclass(frozen=True, slots=True)
class Entry:
    """One file of the cache directory. `ours`: `clear` may remove it."""

    path: Path
    kind: str
    state: str
    ours: bool
    size: int = 0


def entries(directory: Path) -> Iterator[Entry]:
    """What is in the directory, by name. An OSError says that it cannot be read."""
    tables_key = source_hash()
    for path in sorted(directory.iterdir()):
        yield _look(path, tables_key)


def _look(path: Path, tables_key: str) -> Entry:
    try:
        size = path.lstat().st_size
    except OSError as error:
        return Entry(path, "?", f"unreadable: {error.strerror}", False)
    if path.is_symlink() or not path.is_file():
        return Entry(path, "directory" if path.is_dir() else "?", "not of these caches, left alone", False, size)
    if path.name.startswith((_RUNTIME, _TABLES, _HOT)) and path.suffix == _UNFINISHED:
        return Entry(path, "unfinished write", "left by a run that was killed", True, size)
    if path.name.startswith(_RUNTIME) and path.suffix == ".o":
        return _runtime(path, size)
    if path.name.startswith(_TABLES) and path.suffix == ".bin":
        return _tables(path, size, tables_key)
    if path.name.startswith(_HOT) and path.suffix == ".bin":
        return _hot(path, size, tables_key)
    return Entry(path, "?", "foreign, left alone", False, size)


def _runtime(path: Path, size: int) -> Entry:
    name, _, key = path.stem.removeprefix(_RUNTIME).rpartition("-")
    kind = f"run-time object, {name}"
    try:
        found = unpack(path.read_bytes())
    except OSError as error:
        return Entry(path, kind, f"unreadable: {error.strerror}", True, size)
    if found is None:
        return Entry(path, kind, "damaged: ignored and rebuilt", True, size)
    if name not in RUNTIMES:
        return Entry(path, kind, "whole, of no guest of this version", True, size)
    current = key == source_key(RUNTIMES[name])
    return Entry(path, f"{kind}: {len(found[1])} symbols", _state(current=current), True, size)


def _tables(path: Path, size: int, key: str) -> Entry:
    kind = f"translation tables, {path.stem.removeprefix(_TABLES)}"
    if not os.access(path, os.R_OK):
        return Entry(path, kind, "unreadable", True, size)
    found = read_file(path)
    if found is None:
        return Entry(path, kind, "damaged: ignored and replaced", True, size)
    if found[0] != key:
        # Other sources may lay the records out otherwise: their number is not to be known.
        return Entry(path, kind, _state(current=False), True, size)
    try:
        content = parse(found[1])
    except TablesError:
        return Entry(path, kind, "damaged: ignored and replaced", True, size)
    counts = ", ".join(f"{content.count(name)} {name}" for name in _COUNTED)
    return Entry(path, f"{kind}: {counts}", _state(current=True), True, size)


def _hot(path: Path, size: int, key: str) -> Entry:
    kind = f"hot blocks, {path.stem.removeprefix(_HOT)}"
    if not os.access(path, os.R_OK):
        return Entry(path, kind, "unreadable", True, size)
    if read_file(path) is None:
        return Entry(path, kind, "damaged: ignored and replaced", True, size)
    store = HotStore(path, key)
    store.load()
    return Entry(path, f"{kind}: {len(store)} blocks", _state(current=len(store) > 0), True, size)


def _state(*, current: bool) -> str:
    return "valid, current" if current else "valid, stale: of other sources or another host, ignored and replaced"


def info(directory: Path) -> int:
    print(directory)
    total = 0
    try:
        for entry in entries(directory):
            print(f"  {entry.path.name:<52} {entry.size:>9}  {entry.kind}; {entry.state}")
            total += entry.size if entry.ours else 0
    except FileNotFoundError:
        print("  (no such directory yet: the first run makes it)")
        return 0
    except OSError as error:
        return _fail(f"{directory}: {error.strerror}")
    print(f"  {total} bytes in caches")
    if not os.access(directory, os.W_OK):
        print("  the directory cannot be written: nothing new is kept")
    return 0


def clear(directory: Path) -> int:
    removed = size = 0
    try:
        for entry in [e for e in entries(directory) if e.ours]:
            entry.path.unlink()
            removed += 1
            size += entry.size
    except FileNotFoundError:
        pass
    except OSError as error:
        return _fail(f"{error.filename or directory}: {error.strerror}; {removed} files removed before")
    print(f"{removed} files, {size} bytes removed from {directory}")
    return 0


def warm(cpus: Sequence[str], kernel: str, initrd: str, append: str, timeout: float) -> int:
    """Build what is missing, then boot so that the tables hold what was met."""
    print(f"run-time object of {x86_recipe.RUNTIME} guests")
    load(x86_recipe.RUNTIME, progress=lambda line: print(f"  {line}", flush=True))
    for cpu in cpus:
        print(f"demo guest, -cpu {cpu}", flush=True)
        if not _boot([*_DEMO, "-cpu", cpu], timeout, _DEMO_PASSED):
            return 1
        if kernel:
            print(f"{kernel}, -cpu {cpu}", flush=True)
            arguments = ["-cpu", cpu, "-m", "512", "-kernel", kernel, "-append", append]
            if initrd:
                arguments += ["-initrd", initrd]
            if not _boot(arguments, timeout, 0):
                return 1
    directory = cache_directory()
    try:
        states = [e.state for e in entries(directory) if e.ours]
    except OSError as error:
        return _fail(f"{directory}: {error.strerror}; nothing could be kept")
    if not any(path.name.startswith(_TABLES) for path in directory.iterdir()) or "valid, current" not in states:
        return _fail(f"{directory} takes no files: nothing could be kept")
    return info(directory)


def seeds(path: Path) -> int:
    """Print the seed list of one tables file of the present sources."""
    memory = Mapping(MACHINE.size)
    tables = Tables(View(MACHINE, memory.hva), lambda _symbol: 0)
    if not tables.load(path, source_hash()):
        return _fail(f"{path}: no tables of the present sources")
    for seed in collect(tables):
        print(seed)
    return 0


def _boot(arguments: Sequence[str], timeout: float, status: int) -> bool:
    """Run a guest in a process of its own, as a user would."""
    code = "import sys; from tcg.cli.main import run; sys.exit(run(sys.argv[1:]))"
    command = [sys.executable, "-c", code, *_QUIET, "-serial", "null", *arguments]
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, timeout=timeout, check=False)
    except subprocess.TimeoutExpired:
        _fail(f"the guest did not end within {timeout:.0f} s: does its command line make it power off?")
        return False
    if done.returncode != status:
        _fail(f"the guest ended with status {done.returncode}, not {status}")
        return False
    return True


def _fail(message: str) -> int:
    print(f"tessera: {message}", file=sys.stderr)
    return 1


def cache_command(arguments: Sequence[str]) -> int:
    """The subcommand; its exit status."""
    parser = argparse.ArgumentParser(prog="tessera cache", description="The caches on disk.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="info|clear|warm|seeds")
    commands.add_parser("info", help="what is there, and whether it is of use")
    commands.add_parser("clear", help="remove it")
    parser_warm = commands.add_parser("warm", help="build it now, by booting the demo guest and what is given")
    parser_warm.add_argument("--cpu", action="append", metavar="MODEL", help="as -cpu, may be repeated (qemu64)")
    parser_warm.add_argument("--kernel", default="", metavar="FILE", help="boot this kernel too")
    parser_warm.add_argument("--initrd", default="", metavar="FILE")
    parser_warm.add_argument(
        "--append", default=DEFAULT_APPEND, metavar="CMDLINE", help=f"must make it power off ('{DEFAULT_APPEND}')"
    )
    parser_warm.add_argument("--timeout", type=float, default=600.0, metavar="S", help="for each boot (600)")
    parser_seeds = commands.add_parser("seeds", help="print what a tables file holds as a seed list")
    parser_seeds.add_argument("file", type=Path)
    options = parser.parse_args(list(arguments))
    if options.command == "seeds":
        return seeds(options.file)
    if options.command == "info":
        return info(cache_directory())
    if options.command == "clear":
        return clear(cache_directory())
    return warm(options.cpu or ["qemu64"], options.kernel, options.initrd, options.append, options.timeout)
