"""`tessera cache`: what it says of each sort of file, and that it removes nothing that is not ours."""

import hashlib
import io
import pickle
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from frontends.x86.recipe import RUNTIME
from tcg.cli.cache import cache_command, entries
from tcg.exec import tables as table_files
from tcg.exec.cache import source_hash
from tcg.exec.forms import Form, Pattern, Stencil, Variant
from tcg.exec.hot_store import HotStore
from tcg.exec.memory_map import Mapping
from tcg.exec.tables import FIXED, MAGIC, Tables
from tcg.runtime.layout import MACHINE
from tcg.runtime.object import pack, source_key
from tcg.runtime.registry import RUNTIMES
from tcg.runtime.struct import View

SEED = 20261120


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    made = tmp_path / "tessera"
    made.mkdir()
    return made


def runtime_file(directory: Path, key: str | None = None) -> Path:
    path = directory / f"runtime-{RUNTIME}-{key or source_key(RUNTIMES[RUNTIME])}.o"
    path.write_bytes(pack(b"no object, but whole", ["one", "two"]))
    return path


class Holder:
    """Tables and the memory they publish their arrays in."""

    def __init__(self) -> None:
        self.memory = Mapping(MACHINE.size)
        self.tables = Tables(View(MACHINE, self.memory.hva), {}.__getitem__)


def table_file(directory: Path, key: str | None = None) -> Path:
    holder = Holder()
    form = Form(("nop",), "nop")
    holder.tables.add_pattern(1, Pattern(form, b"\x90", 1))
    holder.tables.set_stencil(0, Variant(), Stencil(b"\x90", 1, ()))
    for name in FIXED:
        holder.tables.set_fixed(name, Stencil(b"\x90", 1, ()))
    path = directory / "tables-x86_64-0123abcd.bin"
    assert holder.tables.save(path, key or source_hash())
    return path


def hot_file(directory: Path, key: str | None = None) -> Path:
    path = directory / "hot-x86_64-0123abcd.bin"
    store = HotStore(path, key or source_hash())
    store.add((0x1000, 1, 1, b"\x90"), (Stencil(b"\x90", 1, ()), 0, Form(("nop",), "nop")))
    assert store.save()
    return path


def states(directory: Path) -> dict[str, str]:
    return {entry.path.name: entry.state for entry in entries(directory)}


def test_whole_files_are_current(directory: Path) -> None:
    paths = (runtime_file(directory), table_file(directory), hot_file(directory))
    assert states(directory) == dict.fromkeys([p.name for p in paths], "valid, current")


def test_counts_are_shown(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table_file(directory)
    assert cache_command(["info"]) == 0
    shown = capsys.readouterr().out
    assert "1 forms, 1 patterns" in shown and str(directory) in shown


def test_other_keys_are_stale(directory: Path) -> None:
    runtime_file(directory, "0" * 32)
    table_file(directory, "0" * 32)
    hot_file(directory, "0" * 32)
    assert len(states(directory)) == 3
    assert all(state.startswith("valid, stale") for state in states(directory).values())


def damaged(data: bytes, rng: random.Random) -> bytes:
    changed = bytearray(data)
    match rng.randrange(5):
        case 0:
            changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
        case 1:
            del changed[rng.randrange(len(changed)) :]
        case 2:
            at = rng.randrange(len(changed))
            changed[at:at] = rng.randbytes(rng.randrange(1, 20))
        case 3:
            changed += rng.randbytes(rng.randrange(1, 5000))
        case _:
            changed = bytearray(rng.randbytes(rng.randrange(0, 300)))
    return bytes(changed)


@pytest.mark.parametrize("make", [runtime_file, table_file, hot_file])
def test_any_damage_is_seen(directory: Path, make: Callable[[Path], Path]) -> None:
    print("seed", SEED)
    rng = random.Random(SEED)
    path = make(directory)
    whole = path.read_bytes()
    for _ in range(200):
        data = damaged(whole, rng)
        if data == whole:
            continue
        path.write_bytes(data)
        (state,) = states(directory).values()
        assert state.startswith("damaged"), data
        assert not Holder().tables.load(path, source_hash())


def sealed(meta: bytes, rest: bytes = b"", key: str | None = None) -> bytes:
    """A table file with a right hash and key around any contents."""
    body = (key or source_hash()).encode() + b"\n" + len(meta).to_bytes(8, "little") + meta + rest
    return MAGIC + hashlib.sha256(body).digest() + body


def by_name(module: str, name: str, argument: str) -> bytes:
    """A pickle of protocol 4 that calls module.name(argument), whatever the name is."""
    out = io.BytesIO()
    out.write(b"\x80\x04")
    for text in (module, name):
        out.write(b"\x8c" + bytes((len(text),)) + text.encode())
    out.write(b"\x93\x8c" + bytes((len(argument),)) + argument.encode() + b"\x85R.")
    return out.getvalue()


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("os", "mkdir"),
        ("tcg.runtime.object", "os.mkdir"),  # an import of ours is no way out
        ("tcg.exec.tables", "Path"),
        ("tcg.runtime.object", "load"),
        ("tcg.cli.cache", "clear"),
        ("tcg.exec.tables", "Tables"),
        ("builtins", "exec"),
    ],
)
def test_a_file_cannot_call_anything(directory: Path, tmp_path: Path, module: str, name: str) -> None:
    canary = tmp_path / "canary"
    path = directory / "tables-x86_64-0123abcd.bin"
    path.write_bytes(sealed(by_name(module, name, str(canary))))
    holder = Holder()
    assert not holder.tables.load(path, source_hash())
    assert not canary.exists()
    assert states(directory)[path.name].startswith("damaged")


def test_the_check_above_can_fail(tmp_path: Path) -> None:
    pickle.loads(by_name("os", "mkdir", str(tmp_path / "canary")))
    assert (tmp_path / "canary").is_dir()


@pytest.mark.parametrize(
    "meta",
    [
        b"",
        b"\x00" * 40,
        pickle.dumps(None),
        pickle.dumps(([], [], [], {})),
        pickle.dumps(([("forms", 16)], [1], [], {})),
        pickle.dumps(([(name, 0) for name in table_files._RECORD_SIZES], [Form(("a",), "a")], [], {})),
        pickle.dumps(([(name, 0) for name in table_files._RECORD_SIZES], [], [(5, "x")], {})),
        pickle.dumps(([(name, 0) for name in table_files._RECORD_SIZES], [], [], {"block_head": 3})),
        pickle.dumps(([("forms", -16)], [], [], {})),
    ],
)
def test_contents_that_do_not_fit_change_nothing(directory: Path, meta: bytes) -> None:
    path = directory / "tables-x86_64-0123abcd.bin"
    path.write_bytes(sealed(meta))
    holder = Holder()
    form = Form(("kept",), "kept")
    holder.tables.add_pattern(1, Pattern(form, b"\x90", 1))
    assert not holder.tables.load(path, source_hash())
    assert holder.tables.form(0) is form
    assert holder.tables.find_pattern(1, b"\x90") == 0
    assert not holder.tables.has_fixed()


def test_clear_removes_ours_only(directory: Path) -> None:
    runtime_file(directory)
    table_file(directory).with_name("tables-x86_64-0123abcd.binqw3r.tmp").write_bytes(b"half")
    (directory / "tables-x86_64-ffffffff.bin").write_bytes(b"damaged")
    hot_file(directory)
    (directory / "notes.txt").write_text("mine")
    (directory / "guest").mkdir()
    (directory / "runtime-x86_64-dir.o").mkdir()
    outside = directory.parent / "outside"
    outside.write_text("not in the cache")
    (directory / "tables-link.bin").symlink_to(outside)
    assert cache_command(["clear"]) == 0
    assert sorted(p.name for p in directory.iterdir()) == [
        "guest",
        "notes.txt",
        "runtime-x86_64-dir.o",
        "tables-link.bin",
    ]
    assert outside.read_text() == "not in the cache"


def test_no_directory_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "absent"))
    assert cache_command(["info"]) == 0
    assert cache_command(["clear"]) == 0


def test_directory_that_is_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    (tmp_path / "tessera").write_text("in the way")
    assert cache_command(["info"]) == 1
    assert cache_command(["clear"]) == 1
    assert str(tmp_path / "tessera") in capsys.readouterr().err
    assert (tmp_path / "tessera").read_text() == "in the way"
    assert not Holder().tables.save(tmp_path / "tessera" / "tables-x.bin", "key")
