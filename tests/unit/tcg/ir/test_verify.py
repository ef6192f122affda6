"""The verifier: random blocks pass, and each kind of damage is found."""

import random

import pytest
from irgen import random_block

from tcg.ir.block import Block, EnvRef, Hole, Label, Temp
from tcg.ir.builder import Builder
from tcg.ir.text import parse
from tcg.ir.types import I1, I8, I32, I64, V128, Lane
from tcg.ir.verify import VerifyError, problems, verify

SEED = 11


def test_random_blocks_are_valid() -> None:
    rng = random.Random(SEED)
    print("seed", SEED)
    for _ in range(300):
        verify(random_block(rng, 30).block)


INVALID = {
    "operand types do not fit": [
        "%0:i8 = add 1:i8, 1:i16",
        "%0:i16 = add 1:i8, 1:i8",
        "%0:f32 = add 1:f32, 1:f32",
        "%0:i8 = zext 1:i8",
        "%0:i8 = zext 1:i32",
        "%0:i8 = trunc 1:i8",
        "%0:i64 = bitcast 1:f32",
        "%0:i1 = setcond 1:i8, 1:i16 cond=eq",
        "%0:i8 = setcond 1:i8, 1:i8 cond=eq",
        "%0:i8 = select 1:i8, 1:i8, 1:i8",
        "%0:i128 = mulhu 1:i128, 1:i128",
        "%0:v128 = vshl 1:v128, 1:i32 lane=w",
        "%0:i32 = vext 1:v128 lane=h index=1",
        "%0:i16 = vext 1:v128 lane=h index=8",
        "%0:v128 = vwidens 1:v128 lane=w to=h",
        "%0:v128 = fadd 1:v128, 1:v128 lane=w nan=x86",
        "%0:f32 = fadd 1:f32, 1:f32 lane=s nan=x86",
        "%0:v128 = vadd 1:v128, 1:v128 lane=-",
        "%0:f64 = f2f 1:f64",
        "%0:f64 = i2f 1:i16",
        "%0:i1 = ld [0x0]",
        "st 1:i1, [0x0]",
        "%0:i64 = ldx 1:i32, [0x0] span=8",
        "%0:i64 = ldx 1:i64, [0x0] span=4",
        "%0:i16 = qemu_ld 0:i64 memop=u32le",
        "%0:f64 = qemu_ld 0:i64 memop=u32le",
        "qemu_st 0:i64, 0:i8 memop=u16le",
        "%0:i64 = atomic_add 0:i64, 1:i64 memop=u32le",
        "%0:i128 = atomic_add 0:i64, 1:i128 memop=u128le",
        "call 1:i64 helper=f(i32)->-!0",
        "goto_ptr 1:i32",
        "%0:i64, %1:i64 = divu2 1:i64, 1:i64, 1:i32",
    ],
    "inputs and": ["%0:i8 = add 1:i8", "goto_ptr", "%0:i64 = divu2 1:i64, 1:i64, 1:i64"],
    "attributes": ["%0:i1 = setcond 1:i8, 1:i8", "mb", "%0:i64 = ld", "br"],
    "attribute ": ["%0:i16 = vext 1:v128 lane=h index=16", "goto_tb 1:i64 slot=2", "%0:v128 = vdup 1:i8 lane=-"],
    "control cannot come here": ["goto_ptr 1:i64\n%0:i8 = neg 1:i8", "br L0\nmb barrier=LD_LD\nL0:"],
    "is nowhere": ["br L1"],
    "defined twice": ["L1:\nL1:"],
    "other bounds": ["%0:i8 = neg $a:i8\n%1:i8 = neg $a:i8{0,7}"],
    "not assigned on every path": [
        # one arm only
        "brcond 1:i1, L0 likely=-\n%0:i8 = neg 1:i8\nL0:\n%1:i8 = neg %0",
        # assigned in the loop body, used at the head's join from before
        "br L1\nL0:\n%0:i8 = neg 1:i8\nL1:\nbrcond 1:i1, L0 likely=-\n%1:i8 = neg %0",
        # two jumps, the second from a place where it is known
        "brcond 1:i1, L0 likely=-\n%0:i8 = neg 1:i8\nbrcond 1:i1, L0 likely=-\nL0:\n%1:i8 = neg %0",
    ],
}


@pytest.mark.parametrize(("complaint", "text"), [(c, t) for c, texts in INVALID.items() for t in texts])
def test_damage_is_found(complaint: str, text: str) -> None:
    with pytest.raises(VerifyError, match=complaint):
        verify(parse(text))


VALID = [
    "br L0\nL0:",
    "%0:i8 = neg 1:i8\nL0:\n%1:i8 = neg %0\nbrcond 1:i1, L0 likely=-\n%2:i8 = neg %1",
    # assigned on both ways into the label's block through dominance of the first op
    "%0:i8 = neg 1:i8\nbrcond 1:i1, L0 likely=-\nmb barrier=ALL\nbr L1\nL0:\nmb barrier=ALL\nL1:\n%1:i8 = neg %0",
    # a label that nobody reaches
    "goto_ptr 1:i64\nL0:\n%0:i8 = neg 1:i8",
    "%0:f64 = qemu_ld 0:i64 memop=u64le\nqemu_st 0:i64, 1:v128 memop=u128le\nqemu_st 0:i64, 1:i64 memop=u8le",
]


@pytest.mark.parametrize("text", VALID)
def test_valid(text: str) -> None:
    assert problems(parse(text)) == []


def test_damage_that_text_cannot_show() -> None:
    foreign = Temp(I8, 0)
    block = Block()
    block.append("neg", (Temp(I8, 0),), (foreign,))
    block.next_temp = 1
    assert "%0 is not assigned above" in problems(block)[0]

    block = Block()
    block.append("neg", (foreign,), (Hole("h", I8),))
    assert "not the block's" in problems(block)[0]
    block.next_temp = 1
    assert problems(block) == []
    block.append("neg", (foreign,), (Hole("h", I8),))
    assert "assigned twice" in problems(block)[0]

    b = Builder()
    b.st(EnvRef(0), b.ld(I64, EnvRef(8)))
    b.block.ops[-1].attrs["ref"] = 8
    assert "attribute ref" in problems(b.block)[0]

    block = Block()
    block.append("brcond", (), (Hole("c", I1),), label=Label(0), likely=None)
    block.append("label", (), (), label=Label(0))
    assert "nowhere" in problems(block)[0]

    b = Builder()
    b.vop("vadd", b.const(V128, 0), b.const(V128, 0), Lane.B)
    b.sext(b.const(I32, 0), I64)
    assert problems(b.block) == []
