"""The optimizer as a whole: random blocks keep their meaning, stay valid and never grow."""

import random

import pytest
from irgen import ENV_SIZE, HELPERS, HOLES, MEMORY_BASE, MEMORY_SIZE, random_block

from tcg.ir.block import Block
from tcg.ir.floats import FpRegisters
from tcg.ir.interp import FlatMemory, Outcome, run
from tcg.ir.text import parse, show
from tcg.ir.verify import verify
from tcg.opt.pipeline import optimize

OTHER_HOLES = {**HOLES, "r1": HOLES["r0"], "imm": 5}  # both registers the same


def execute(block: Block, seed: int) -> tuple[Outcome, bytes, bytes, int, int]:
    rng = random.Random(seed)
    env = bytearray(rng.randbytes(ENV_SIZE))
    memory = FlatMemory(bytearray(rng.randbytes(MEMORY_SIZE)), MEMORY_BASE)
    fp = FpRegisters()
    outcome = run(block, env, memory, HELPERS, OTHER_HOLES if seed % 2 else HOLES, fp)
    return outcome, bytes(env), bytes(memory.data), fp.simd.flags, fp.x87.flags


@pytest.mark.parametrize("seed", range(40))
def test_random_blocks_keep_their_meaning(seed: int) -> None:
    print("seed", seed)
    rng = random.Random(seed)
    for i in range(15):
        block = random_block(rng, rng.randrange(4, 60), memory=i % 2 == 0).block
        before = show(block)
        better = optimize(block)
        assert show(block) == before, "the input was changed"
        verify(better)
        assert len(better.ops) <= len(block.ops)
        for state in range(2):
            wanted, got = execute(block, seed * 100 + i + state), execute(better, seed * 100 + i + state)
            assert got == wanted, f"{before}\n----\n{show(better)}"


@pytest.mark.parametrize("seed", range(10))
def test_a_second_round_keeps_the_meaning_too(seed: int) -> None:
    print("seed", seed)
    rng = random.Random(seed + 1000)
    for i in range(10):
        block = random_block(rng, 40).block
        twice = optimize(optimize(block))
        verify(twice)
        assert execute(twice, i) == execute(block, i)


def test_empty_and_odd_blocks() -> None:
    assert optimize(Block()).ops == []
    assert show(optimize(parse("L0:\nbr L0\n"))) == "L0:\nbr L0\n"
    assert (
        show(optimize(parse("goto_ptr 1:i64\nL0:\n%0:i8 = neg 1:i8\nbrcond 1:i1, L0 likely=-\n"))) == "goto_ptr 1:i64\n"
    )
    # a cycle that nothing reaches once its way in has been folded away
    text = "brcond 0:i1, L1 likely=-\ngoto_ptr 1:i64\nL1:\n%0:i64 = ld [0x400]\nL2:\nst %0, [0x408]\nbr L2\n"
    assert show(optimize(parse(text))) == "goto_ptr 1:i64\n"
