"""The translation tables as native code sees them, and their cache file."""

import ctypes
from pathlib import Path

import pytest

from tcg.exec.forms import Form, Pattern, Reloc, RelocKind, Stencil, SymbolKind, Variant
from tcg.exec.memory_map import Mapping
from tcg.exec.tables import FIXED, Tables, TablesError
from tcg.runtime.layout import FORM, MACHINE, MODE_LIMIT, PATTERN, RELOC, STENCIL, VALUE_COLD, VALUE_EXIT0, VALUE_ZERO
from tcg.runtime.struct import View

HELPERS = {"helper_a": 0x7000_0000_1000, "helper_b": 0x7000_0000_2000}
ADD = Form(("add", 8), "add64", kills_status=True, status_out=3)
JCC = Form(("jz",), "jz", reads_status=True, ends_block=True)
LOAD = Form(("load", 4), "load32", may_fault=True)


class Made:
    """Tables with their machine struct, and native code's way to them."""

    def __init__(self, helpers: dict[str, int] | None = None) -> None:
        self.memory = Mapping(MACHINE.size)
        self.machine = View(MACHINE, self.memory.hva)
        self.tables = Tables(self.machine, (HELPERS if helpers is None else helpers).__getitem__)

    def pattern(self, index: int) -> View:
        return View(PATTERN, self.machine.get("patterns") + index * PATTERN.size)

    def stencil(self, form: int, variant: Variant) -> View:
        record = View(FORM, self.machine.get("forms") + form * FORM.size)
        status = variant.status_in if record.get("statuses") > 1 else 0
        at = self.machine.get("variants") + 4 * (record.get("variants") + 2 * status + variant.status_live)
        index = ctypes.c_int32.from_address(at).value
        return View(STENCIL, self.machine.get("stencils") + index * STENCIL.size)

    def relocs(self, stencil: View) -> list[tuple[int, int, int, int]]:
        count = stencil.get("hot_relocs") + stencil.get("cold_relocs")
        views = (
            View(RELOC, self.machine.get("relocs") + (stencil.get("relocs") + n) * RELOC.size) for n in range(count)
        )
        return [(v.get("offset"), v.get("kind"), v.get("value"), v.get("addend")) for v in views]


@pytest.fixture
def made() -> Made:
    return Made()


def test_form_is_entered_once(made: Made) -> None:
    first = made.tables.add_form(ADD)
    assert made.tables.add_form(Form(("add", 8), "add64", kills_status=True, status_out=3)) == first
    assert made.tables.add_form(JCC) == first + 1
    record = View(FORM, made.machine.get("forms") + first * FORM.size)
    assert (record.get("flags"), record.get("status_out"), record.get("statuses")) == (2, 3, 1)
    assert made.tables.form(first) is ADD


def test_patterns_are_found_by_head_and_length(made: Made) -> None:
    tables = made.tables
    one = tables.add_pattern(5, Pattern(ADD, b"\x48\x01\xc0", 3, regs=(1024, 1032)))
    two = tables.add_pattern(5, Pattern(LOAD, b"\x48\x8b\x05", 7, disp=(3, 4), disp_pc_relative=True))
    assert tables.find_pattern(5, b"\x48\x01\xc0") == one
    assert tables.find_pattern(5, b"\x48\x01\xc0\x90") == one
    assert tables.find_pattern(5, b"\x48\x8b\x05\0\0\0\0") == two
    assert tables.find_pattern(5, b"\x48\x8b\x05\0\0\0") == -1, "an instruction cut off"
    assert tables.find_pattern(5, b"\x48\x01") == tables.find_pattern(5, b"\x48\x02\xc0") == -1
    assert tables.find_pattern(4, b"\x48\x01\xc0") == -1, "another mode"
    record = made.pattern(two)
    assert [record.get(n) for n in ("length", "disp_at", "disp_size", "imm_size", "flags")] == [7, 3, 4, 0, 1]
    assert [made.pattern(one).get("regs", n) for n in range(3)] == [1024, 1032, 0]


def test_heads_are_prefix_free(made: Made) -> None:
    made.tables.add_pattern(0, Pattern(ADD, b"\x01\x02", 2))
    with pytest.raises(TablesError):
        made.tables.add_pattern(0, Pattern(ADD, b"\x01", 2))
    with pytest.raises(TablesError):
        made.tables.add_pattern(0, Pattern(ADD, b"\x01\x02\x03", 3))
    with pytest.raises(TablesError):
        made.tables.add_pattern(MODE_LIMIT, Pattern(ADD, b"\x05", 1))


def test_same_head_again_replaces(made: Made) -> None:
    first = made.tables.add_pattern(0, Pattern(ADD, b"\x01\x02", 2))
    assert made.tables.add_pattern(0, Pattern(LOAD, b"\x01\x02", 4, disp=(2, 2))) == first
    assert made.pattern(first).get("length") == 4


STENCIL_SAMPLE = Stencil(
    bytes(range(40)),
    24,
    (
        Reloc(30, RelocKind.REL32, SymbolKind.HELPER, name="helper_b", addend=-4),
        Reloc(10, RelocKind.REL32, SymbolKind.COLD, addend=2),
        Reloc(20, RelocKind.REL32, SymbolKind.EXIT, 1, addend=-4),
        Reloc(4, RelocKind.ABS32, SymbolKind.HOLE, 6),
    ),
)


def test_stencil_records(made: Made) -> None:
    form = made.tables.add_form(JCC)
    for status in (0, 7, 63):
        made.tables.set_stencil(form, Variant(True, status), STENCIL_SAMPLE)
    stencil = made.stencil(form, Variant(True, 7))
    assert [stencil.get(n) for n in ("hot_size", "cold_size", "hot_relocs", "cold_relocs")] == [24, 16, 3, 1]
    assert [stencil.get("exits", n) for n in range(2)] == [0, 1]
    assert (stencil.get("direct", 0), stencil.get("direct", 1), stencil.get("direct_at", 1)) == (0, 1, 20)
    m64 = (1 << 64) - 1
    assert made.relocs(stencil) == [
        (4, RelocKind.ABS32, 6, 0),
        (10, RelocKind.REL32, VALUE_COLD, 2),
        (20, RelocKind.REL32, VALUE_EXIT0 + 1, -4 & m64),
        (6, RelocKind.REL32, VALUE_ZERO, HELPERS["helper_b"] - 4),
    ]
    assert made.tables.has_stencil(form, Variant(True, 63)) and not made.tables.has_stencil(form, Variant(False, 63))
    with pytest.raises(TablesError):
        made.tables.set_stencil(form, Variant(True, 64), STENCIL_SAMPLE)


def test_form_that_reads_no_status_has_one_stencil_for_all(made: Made) -> None:
    form = made.tables.add_form(ADD)
    made.tables.set_stencil(form, Variant(False, 9), STENCIL_SAMPLE)
    assert made.tables.has_stencil(form, Variant(False, 0))
    assert list(made.tables.forms_without_stencil()) == []
    assert list(made.tables.forms_without_stencil()) == [] and made.tables.add_form(LOAD) == 1
    assert list(made.tables.forms_without_stencil()) == [(1, Variant())]


def fill(tables: Tables, count: int) -> None:
    for name in FIXED:
        tables.set_fixed(name, STENCIL_SAMPLE)
    for n in range(count):
        form = Form(("form", n), f"form{n}", reads_status=bool(n & 1))
        tables.add_pattern(n % 3, Pattern(form, bytes((n >> 8, n & 255, n % 7)), 5, imm=(3, 2), regs=(n,)))
        tables.set_stencil(tables.add_form(form), Variant(), STENCIL_SAMPLE)


def test_growth_moves_the_arrays(made: Made) -> None:
    before = made.machine.get("forms")
    fill(made.tables, 4000)
    assert made.machine.get("forms") != before
    for n in range(0, 4000, 37):
        found = made.tables.find_pattern(n % 3, bytes((n >> 8, n & 255, n % 7, 0, 0)))
        assert made.pattern(found).get("regs") == n
        assert made.tables.form(made.pattern(found).get("form")).key == ("form", n)


def test_cache_file_round_trip_with_other_addresses(made: Made, tmp_path: Path) -> None:
    fill(made.tables, 600)
    path = tmp_path / "tables.bin"
    assert made.tables.save(path, "key")
    moved = {name: at + 0x10_0000 for name, at in HELPERS.items()}
    other = Made(moved)
    assert other.tables.load(path, "key")
    assert other.tables.has_fixed()
    assert (other.tables.form_count(), other.tables.pattern_count()) == (600, 600)
    for n in range(0, 600, 11):
        found = other.tables.find_pattern(n % 3, bytes((n >> 8, n & 255, n % 7, 0, 0)))
        assert other.tables.form(other.pattern(found).get("form")).key == ("form", n)
        stencil = other.stencil(other.pattern(found).get("form"), Variant())
        assert other.relocs(stencil)[3][3] == moved["helper_b"] - 4
    fresh = Form(("fresh",), "fresh")
    assert other.tables.add_form(fresh) == 600
    scratch = other.machine.get("stencils")  # record 0
    assert [other.machine.get(name) for name in FIXED] == [scratch + STENCIL.size * n for n in (1, 2, 3)]
    assert other.relocs(View(STENCIL, other.machine.get("exit_stub")))[3][3] == moved["helper_b"] - 4


@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "key", "helper", "absent"])
def test_unfit_cache_file_changes_nothing(made: Made, tmp_path: Path, damage: str) -> None:
    fill(made.tables, 50)
    path = tmp_path / "tables.bin"
    made.tables.save(path, "key")
    data = bytearray(path.read_bytes())
    if damage == "flip":
        data[-100] ^= 4
    elif damage == "cut":
        del data[len(data) // 2 :]
    elif damage == "empty":
        data.clear()
    path.write_bytes(data)
    if damage == "absent":
        path.unlink()
    other = Made({"helper_a": 1} if damage == "helper" else None)
    assert not other.tables.load(path, "other" if damage == "key" else "key")
    assert other.tables.form_count() == other.tables.pattern_count() == 0
    assert other.tables.find_pattern(0, bytes(5)) == -1
    other.tables.add_pattern(0, Pattern(ADD, bytes(3), 5))
    assert other.tables.find_pattern(0, bytes(5)) == 0


def test_disk_that_takes_no_file(made: Made, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    assert not made.tables.save(tmp_path / "file" / "tables.bin", "key")
