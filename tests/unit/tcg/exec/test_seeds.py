"""Seed lists and the parent's end of the workers that compile them, with processes that act the worker."""

import sys
import textwrap
from collections.abc import Iterator

import pytest

from tcg.exec.forms import Form, Stencil, Variant
from tcg.exec.seeds import Seed, Seeds, collect, parse, shares

A, B, C = Form(("a",), "a.32"), Form(("b",), "b.32"), Form(("c",), "c.32")
LIVE, DEAD = Variant(True, 0), Variant(False, 3)


class FakeTables:
    """Forms and stencils in dictionaries."""

    def __init__(self) -> None:
        self.forms: list[Form] = []
        self.stencils: dict[tuple[int, Variant], Stencil] = {}

    def add_form(self, form: Form) -> int:
        if form not in self.forms:
            self.forms.append(form)
        return self.forms.index(form)

    def has_stencil(self, form_id: int, variant: Variant) -> bool:
        return (form_id, variant) in self.stencils

    def set_stencil(self, form_id: int, variant: Variant, stencil: Stencil) -> None:
        self.stencils[form_id, variant] = stencil


WORKER = """
import sys, time
from tcg.exec.forms import Form, Stencil, Variant
from tcg.exec.hot import send
A, B, C = (Form((n,), n + ".32") for n in "abc")
LIVE, DEAD = Variant(True, 0), Variant(False, 3)
def out(message): send(sys.stdout.buffer, message)
def made(form, variant, code): return [(form, [(variant, Stencil(code, len(code), ()))])]
"""


def acting(script: str) -> list[str]:
    return [sys.executable, "-c", WORKER + textwrap.dedent(script)]


@pytest.fixture
def tables() -> FakeTables:
    return FakeTables()


@pytest.fixture
def ids(tables: FakeTables) -> Iterator[tuple[int, int, int]]:
    yield tables.add_form(A), tables.add_form(B), tables.add_form(C)


def test_a_list_says_what_was_said() -> None:
    seeds = [
        Seed(0x81, bytes.fromhex("4889c0"), (Variant(True, 5), Variant(False, 0)), "mov.64 gpr64, gpr64 m81"),
        Seed(0x282, b"\x90", (Variant(),), "nop.32  m282"),
    ]
    assert parse("\n".join(map(str, seeds))) == seeds
    assert str(seeds[0]) == "81 4889c0 5l,0d mov.64 gpr64, gpr64 m81"


@pytest.mark.parametrize("line", ["", "# comment", "81", "81 90 0l", "zz 90 0l nop", "81 9 0l nop", "81 90 l nop"])
def test_what_is_no_seed_is_left_out(line: str) -> None:
    assert parse(f"{line}\n81 90 0l nop.32") == [Seed(0x81, b"\x90", (Variant(),), "nop.32")]


def test_shares_keep_order_and_mnemonics_together() -> None:
    seeds = [Seed(0, bytes((n,)), (LIVE,) * (1 + n % 3), f"{'abcdefg'[n % 7]}.32 {n}") for n in range(70)]
    split = shares(seeds, 2)
    assert sorted(s.code for part in split for s in part) == sorted(s.code for s in seeds)
    assert all(part == [s for s in seeds if s in part] for part in split)
    names = [{s.name[0] for s in part} for part in split]
    assert not names[0] & names[1]
    assert abs(len(split[0]) - len(split[1])) <= 30
    assert shares(seeds, 1) == [seeds]


def test_wait_for_what_is_announced_and_no_longer(tables: FakeTables, ids: tuple[int, int, int]) -> None:
    worker = acting(
        """
        out([(A, [LIVE, DEAD]), (B, [LIVE])])
        out(made(A, LIVE, b"1"))
        time.sleep(0.2)
        out(made(B, LIVE, b"2"))
        sys.stdin.read()
        time.sleep(60)
        """
    )
    seeds = Seeds(tables, [worker])
    assert seeds.take([(ids[0], LIVE), (ids[1], LIVE), (ids[2], LIVE)]) == [(ids[2], LIVE)]
    assert tables.stencils[ids[0], LIVE].code == b"1"
    assert tables.stencils[ids[1], LIVE].code == b"2"
    seeds.close()
    assert seeds.added == 2


def test_a_worker_that_dies_owes_nothing(tables: FakeTables, ids: tuple[int, int, int]) -> None:
    dead = acting("out([(A, [LIVE])]); sys.exit(1)")
    silent = acting("sys.exit(1)")
    cut = acting("out([(B, [LIVE])]); sys.stdout.buffer.write(b'\\xff\\x00\\x00\\x00half')")
    seeds = Seeds(tables, [dead, silent, cut, ["/nonexistent/worker"]])
    wanted = [(ids[0], LIVE), (ids[1], LIVE)]
    assert seeds.take(wanted) == wanted
    assert not tables.stencils
    seeds.close()


def test_nonsense_from_a_worker_is_the_end_of_it(tables: FakeTables, ids: tuple[int, int, int]) -> None:
    seeds = Seeds(
        tables, [acting("sys.stdout.buffer.write(b'\\x04\\x00\\x00\\x00\\xff\\xff\\xff\\xff'); time.sleep(60)")]
    )
    assert seeds.take([(ids[0], LIVE)]) == [(ids[0], LIVE)]
    seeds.close()


def test_what_the_tables_have_is_kept(tables: FakeTables, ids: tuple[int, int, int]) -> None:
    mine = Stencil(b"mine", 4, ())
    tables.set_stencil(ids[0], LIVE, mine)
    seeds = Seeds(tables, [acting('out([(A, [LIVE]), (A, [DEAD])]); out(made(A, LIVE, b"1") + made(A, DEAD, b"2"))')])
    assert seeds.take([(ids[0], DEAD)]) == []
    assert tables.stencils[ids[0], LIVE] is mine
    seeds.close()


def test_far_ahead_is_not_waited_for(tables: FakeTables, ids: tuple[int, int, int]) -> None:
    """A worker that has a hundred others to make first would keep the guest waiting."""
    worker = acting(
        """
        out([(A, [Variant(True, n) for n in range(200)]), (B, [LIVE])])
        time.sleep(60)
        """
    )
    seeds = Seeds(tables, [worker])
    assert seeds.take([(ids[1], LIVE)]) == [(ids[1], LIVE)]
    seeds.close()


class FakeSource:
    """Two forms, one of them met in three encodings, and one without stencils."""

    def encodings(self) -> Iterator[tuple[int, bytes, int]]:
        yield 0x81, b"\x48\x89\xc0", 0
        yield 0x81, b"\x89\xc1", 0
        yield 0x81, b"\x89\xc0", 0
        yield 0x81, b"\x90", 1
        yield 0x81, b"\x91", 2

    def form(self, form_id: int) -> Form:
        return (A, B, C)[form_id]

    def stencil_variants(self, form_id: int) -> list[tuple[int, Variant]]:
        return ([(7, LIVE), (9, DEAD)], [(4, LIVE)], [])[form_id]


def test_collect_in_the_order_of_making_by_the_shortest_encoding() -> None:
    assert [str(seed) for seed in collect(FakeSource())] == ["81 90 0l b.32", "81 89c0 0l,3d a.32"]
