"""Known bits: sound for every op (each 4-bit-high fact over all low bits), and the conclusions drawn from them."""

import random

import pytest
from irgen import ENV_SIZE, HELPERS, HOLES, MEMORY_BASE, MEMORY_SIZE, random_block

from tcg.ir.block import Const, EnvRef, Temp
from tcg.ir.builder import Builder
from tcg.ir.interp import FlatMemory, run
from tcg.ir.text import parse, show
from tcg.ir.types import I8, Cond, Type
from tcg.opt.known_bits import KnownBits
from tcg.opt.pipeline import optimize

MASKS = (0x00, 0x01, 0x0F, 0x80, 0xF0, 0xFE, 0xFF, 0x55)


def _with_facts(b: Builder, place: int, zeros: int, ones: int) -> Temp:
    """A byte of guest state with those bits forced, so that exactly they are known."""
    return b.or_(b.and_(b.ld(I8, EnvRef(0x400 + place)), zeros ^ 0xFF), ones & ~zeros)


@pytest.mark.parametrize("name", ["and", "or", "xor", "andc", "add", "sub", "shl", "shr", "sar"])
def test_facts_about_results_are_true(name: str) -> None:
    seed = 3
    print("seed", seed)
    rng = random.Random(seed)
    for _ in range(150):
        b = Builder()
        known = KnownBits()
        x = _with_facts(b, 0, rng.choice(MASKS), rng.choice(MASKS))
        y = (
            Const(I8, rng.randrange(8))
            if name.startswith("s")
            else _with_facts(b, 1, rng.choice(MASKS), rng.choice(MASKS))
        )
        result = b._same(name, x, y)
        b.st(EnvRef(0x410), result)
        for op in b.block.ops:
            known.note(op)
        zeros, ones = known.of(result)
        for _ in range(60):
            env = bytearray(rng.randbytes(0x420))
            run(b.block, env, FlatMemory(bytearray()))
            assert not env[0x410] & zeros and env[0x410] & ones == ones, show(b.block)


def test_comparisons_decided_by_ranges_are_right() -> None:
    """Every condition over pairs of partly known bytes, against all values of the unknown bits."""
    seed = 4
    print("seed", seed)
    rng = random.Random(seed)
    decided = 0
    for _ in range(400):
        b = Builder()
        x = _with_facts(b, 0, rng.choice(MASKS), rng.choice(MASKS))
        y = _with_facts(b, 1, rng.choice(MASKS), rng.choice(MASKS))
        b.st(EnvRef(0x410), b.zext(b.setcond(rng.choice(list(Cond)), x, y), I8))
        better = optimize(b.block)
        decided += not any(op.name == "setcond" for op in better.ops)
        for _ in range(40):
            env = bytearray(rng.randbytes(0x420))
            other = bytearray(env)
            run(b.block, env, FlatMemory(bytearray()))
            run(better, other, FlatMemory(bytearray()))
            assert env == other, show(b.block)
    assert decided > 50


def test_facts_hold_in_random_blocks() -> None:
    """Store every integer temp's value beside the facts about it and compare after a run."""
    seed = 12
    print("seed", seed)
    rng = random.Random(seed)
    for _ in range(60):
        builder = random_block(rng, 25, floats=False, loops=False)
        known = KnownBits()
        checked: list[tuple[int, int, int, Type]] = []
        body, block = list(builder.block.ops), builder.block
        block.ops.clear()
        at = ENV_SIZE
        for op in body:
            block.ops.append(op)
            known.note(op) if len(op.outs) == 1 else None
            for out in op.outs:
                if out.type.kind == "int" and out.type.width > 1:
                    builder.st(EnvRef(at), out)
                    checked.append((at, *known.of(out), out.type))
                    at += 16
        env = bytearray(at)
        env[:ENV_SIZE] = rng.randbytes(ENV_SIZE)
        written = bytearray(env)
        run(block, written, FlatMemory(bytearray(rng.randbytes(MEMORY_SIZE)), MEMORY_BASE), HELPERS, HOLES)
        for place, zeros, ones, type_ in checked:
            value = int.from_bytes(written[place : place + type_.size], "little")
            if value:  # zero also where the op was jumped over
                assert not value & zeros and value & ones == ones, show(block)


CONCLUSIONS = [
    ("%1:i64 = zext %0\n%2:i64 = and %1, 0xffff:i64", "zext"),
    ("%1:i64 = zext %0\n%2:i64 = shr %1, 0x10:i64", None),
    ("%1:i8 = or %0, 0x80:i8\n%2:i8 = or %1, 0x80:i8", "or"),
    ("%1:i8 = and %0, 7:i8\n%2:i1 = setcond %1, 8:i8 cond=ltu\n%3:i8 = zext %2", None),
    ("%1:i8 = and %0, 1:i8\n%2:i1 = setcond %1, 0:i8 cond=ne\n%3:i8 = zext %2", "and"),
    ("%1:i8 = and %0, 1:i8\n%2:i1 = setcond %1, 1:i8 cond=eq\n%3:i8 = zext %2", "and"),
]


@pytest.mark.parametrize(("text", "left"), CONCLUSIONS)
def test_conclusions(text: str, left: str | None) -> None:
    result = text.splitlines()[-1].split(":")[0]
    block = optimize(parse(f"%0:i8 = ld [0x400]\n{text}\nst {result}, [0x500]"))
    names = [op.name for op in block.ops if op.name not in ("ld", "st")]
    assert names == ([] if left is None else [left])
