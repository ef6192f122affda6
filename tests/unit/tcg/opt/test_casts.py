"""Rules between types: every chain of two conversions and every comparison of an extension, over all 8-bit values."""

from itertools import product

import pytest

from tcg.ir.block import Block, Const, EnvRef, Operand
from tcg.ir.builder import Builder
from tcg.ir.interp import FlatMemory, run
from tcg.ir.text import parse, show
from tcg.ir.types import I1, I8, I16, I32, I64, Cond, Type
from tcg.ir.verify import verify
from tcg.opt.pipeline import optimize

INTS = (I1, I8, I16, I32, I64)
SOURCE, RESULT = EnvRef(0x400), EnvRef(0x410)


def _store(b: Builder, value: Operand) -> Block:
    b.st(RESULT, b.zext(value, I8) if value.type is I1 else value)
    return b.block


def _same_for_all_bytes(block: Block) -> Block:
    better = optimize(block)
    verify(better)
    for x in range(256):
        results = []
        for each in (block, better):
            env = bytearray(0x420)
            env[0x400:0x408] = bytes([x, 255 - x, x ^ 0x55, x, 0x80, 0, x, x])
            run(each, env, FlatMemory(bytearray()))
            results.append(bytes(env))
        assert results[0] == results[1], (x, show(block), show(better))
    return better


def _conversions(a: Type, b: Type) -> tuple[str, ...]:
    return () if a is b else ("zext", "sext") if a.width < b.width else ("trunc",)


CHAINS = [
    (t0, first, t1, second, t2)
    for t0, t1, t2 in product(INTS, repeat=3)
    for first in _conversions(t0, t1)
    for second in _conversions(t1, t2)
]


def test_chains_of_two_conversions() -> None:
    assert len(CHAINS) > 100
    for t0, first, t1, second, t2 in CHAINS:
        b = Builder()
        x = b.trunc(b.ld(I64, SOURCE), t0)
        block = _store(b, b.convert(second, b.convert(first, x, t1), t2))
        better = _same_for_all_bytes(block)
        assert len(better.ops) <= len(block.ops)


@pytest.mark.parametrize("source", [I1, I8, I16])
@pytest.mark.parametrize("cond", list(Cond), ids=lambda c: c.value)
def test_comparisons_of_an_extension(source: Type, cond: Cond) -> None:
    for constant in (0, 1, 2, 0x7F, 0x80, 0xFF, 0x100, 0xFFFF, 0x10000, 0x80000000, 0xFFFFFFFF):
        for extension in ("zext", "sext"):
            b = Builder()
            x = b.trunc(b.ld(I64, SOURCE), source)
            _same_for_all_bytes(_store(b, b.setcond(cond, b.convert(extension, x, I32), Const(I32, constant))))


def test_selections_of_constants() -> None:
    for type_ in INTS:
        for a, c in product((0, 1, type_.mask, type_.mask >> 1), repeat=2):
            b = Builder()
            condition = b.trunc(b.ld(I8, SOURCE), I1)
            _same_for_all_bytes(_store(b, b.select(condition, Const(type_, a), Const(type_, c))))


GOLDEN = [
    ("zext of trunc masks", "%1:i8 = trunc %0\n%2:i64 = zext %1", "%1:i64 = and %0, 0xff:i64"),
    ("trunc of mask", "%1:i64 = and %0, 0xffff:i64\n%2:i16 = trunc %1", "%1:i16 = trunc %0"),
    (
        "a flag that is tested again",
        "%1:i1 = setcond %0, 5:i64 cond=ltu\n%2:i8 = zext %1\n%3:i1 = setcond %2, 0:i8 cond=ne\n"
        "%4:i64 = select %3, %0, 7:i64",
        "%1:i1 = setcond %0, 5:i64 cond=ltu\n%2:i64 = select %1, %0, 7:i64",
    ),
    ("back to the same type", "%1:f64 = bitcast %0\n%2:i64 = bitcast %1", None),
]


@pytest.mark.parametrize(("name", "text", "expected"), GOLDEN, ids=[row[0] for row in GOLDEN])
def test_what_comes_out(name: str, text: str, expected: str | None) -> None:
    last = text.rsplit("%", 1)[0]
    number = text.splitlines()[-1].split(":")[0]
    assert last
    block = optimize(parse(f"%0:i64 = ld [0x400]\n{text}\nst {number}, [0x500]\n"))
    lines = show(block).splitlines()[1:-1]
    wanted = [] if expected is None else expected.splitlines()
    assert [line.split(" = ")[1].split()[0] for line in lines] == [line.split(" = ")[1].split()[0] for line in wanted]
