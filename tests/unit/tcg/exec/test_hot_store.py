"""Results of hot blocks on disk: found again by the same key only; a foreign or damaged file is as good as none."""

from pathlib import Path

import pytest

from frontends.x86.frontend import X86Frontend
from tcg.exec.forms import Reloc, RelocKind, Stencil, SymbolKind
from tcg.exec.hot_store import HotStore, Key, Result

CODE = b"\x48\x01\xc8\xc3"  # add rax, rcx; ret
KEY: Key = (0x1000, 3, 2, CODE)


@pytest.fixture(scope="module")
def result() -> Result:
    form = X86Frontend().decode(CODE, 0x1000, 3).form
    relocs = (Reloc(4, RelocKind.REL32, SymbolKind.HELPER, 0, "helper_ld64", -4),)
    return Stencil(b"\x90" * 12, 8, relocs, (0, 1)), 3, form


def saved(path: Path, key: str, result: Result) -> HotStore:
    store = HotStore(path, key)
    store.add(KEY, result)
    assert store.save()
    return store


def test_found_again(tmp_path: Path, result: Result) -> None:
    saved(tmp_path / "hot", "k", result)
    again = HotStore(tmp_path / "hot", "k")
    assert again.find(KEY) is None
    again.load()
    assert again.find(KEY) == result
    for other in ((0x1001, 3, 2, CODE), (0x1000, 2, 2, CODE), (0x1000, 3, 1, CODE), (0x1000, 3, 2, CODE[:-1])):
        assert again.find(other) is None


def test_of_other_sources(tmp_path: Path, result: Result) -> None:
    saved(tmp_path / "hot", "k", result)
    other = HotStore(tmp_path / "hot", "l")
    other.load()
    assert len(other) == 0


@pytest.mark.parametrize("at", [0, 20, 60, 100, -1])
def test_damaged(tmp_path: Path, result: Result, at: int) -> None:
    path = tmp_path / "hot"
    saved(path, "k", result)
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)
    store = HotStore(path, "k")
    store.load()
    assert store.find(KEY) is None


def test_two_processes_keep_each_others(tmp_path: Path, result: Result) -> None:
    path = tmp_path / "hot"
    mine = HotStore(path, "k")
    mine.load()
    saved(path, "k", result)
    second: Key = (0x2000, *KEY[1:])
    mine.add(second, result)
    assert mine.save()
    again = HotStore(path, "k")
    again.load()
    assert again.find(KEY) == again.find(second) == result


def test_oldest_go_first(tmp_path: Path, result: Result, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "hot"
    monkeypatch.setattr("tcg.exec.hot_store.LIMIT", 2000)
    store = HotStore(path, "k")
    for n in range(20):
        store.add((n, *KEY[1:]), result)
    assert store.save()
    again = HotStore(path, "k")
    again.load()
    assert 0 < len(again) < 20
    assert again.find((19, *KEY[1:])) == result
    assert again.find((0, *KEY[1:])) is None


def test_no_place_to_write(tmp_path: Path, result: Result) -> None:
    (tmp_path / "file").write_text("")
    store = HotStore(tmp_path / "file" / "hot", "k")
    store.add(KEY, result)
    assert not store.save()
