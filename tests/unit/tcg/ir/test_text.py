"""The text form: exact round trip over random blocks, and errors that name the line."""

import random

import pytest
from irgen import random_block

from tcg.ir.block import Block, EnvRef, HelperDecl, Hole, Op
from tcg.ir.builder import Builder
from tcg.ir.text import IrSyntaxError, parse, show
from tcg.ir.types import F80, I32, I64, V128, Cond, Effect, MemOp
from tcg.ir.verify import verify

SEED = 20261120


def _shape(op: Op) -> tuple[object, ...]:
    """What must survive: everything but the identity of temps and labels."""
    ins = tuple(("%", x.id, x.type) if hasattr(x, "id") else x for x in op.ins)
    attrs = {k: v.id if k == "label" else v for k, v in op.attrs.items()}
    return op.name, tuple((t.id, t.type) for t in op.outs), ins, attrs


def same(a: Block, b: Block) -> bool:
    return [_shape(op) for op in a.ops] == [_shape(op) for op in b.ops]


def test_random_blocks_survive_the_round_trip() -> None:
    rng = random.Random(SEED)
    print("seed", SEED)
    for _ in range(300):
        block = random_block(rng, rng.randrange(2, 40)).block
        again = parse(show(block))
        assert same(block, again)
        assert show(again) == show(block)
        verify(again)


def test_every_attribute_syntax() -> None:
    b = Builder()
    helper = HelperDecl("x86_foo", (I32, V128), F80, Effect.MAY_FAULT | Effect.FP)
    void = HelperDecl("x86_bar", (), None, Effect.NONE)
    b.insn_start(Hole("pc", I64))
    x = b.ld(I32, EnvRef(8, Hole("r0", I64, 0, 65535), (0x400, 0x480)))
    b.st(EnvRef(0x40), b.call(helper, x, b.const(V128, 1 << 100)))
    b.call_void(void)
    b.qemu_st(b.const(I64, 5), x, MemOp(4, True, True, 4, False))
    label = b.new_label()
    b.brcond(b.setcond(Cond.LEU, x, 77), label, likely=False)
    b.label(label)
    b.raise_(6, 0)
    expected = """\
insn_start $pc:i64
%0:i32 = ld [0x8+$r0:i64{0,65535}@0x400..0x480]
%1:f80 = call %0, 0x10000000000000000000000000:v128 helper=x86_foo(i32,v128)->f80!MAY_FAULT|FP
st %1, [0x40]
call helper=x86_bar()->-!0
qemu_st 5:i64, %0 memop=s32be.a4.na
%2:i1 = setcond %0, 0x4d:i32 cond=leu
brcond %2, L0 likely=false
L0:
raise 0:i64 vector=6
"""
    assert show(b.block) == expected
    assert same(parse("# a comment\n\n" + expected.replace("\n", "  # why\n")), b.block)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("%0:i64 = nop", "no op 'nop'"),
        ("%0:i64 = neg %1", "%1 is not assigned above"),
        ("%0:i8 = neg 256:i8", "does not fit i8"),
        ("%0:i9 = neg 1:i8", "no output"),
        ("%0:i1 = setcond 1:i8, 1:i8 cond=above", "'above' is no Cond"),
        ("%0:i8 = neg 1:i8 lane=b", "no attribute 'lane'"),
        ("qemu_st 0:i64, 0:i64 memop=u24le", "no memory operation"),
        ("st 0:i64, [here]", ""),
        ("mb barrier=LD_LD|NOW", "no Barrier"),
        ("exit 0:i64 reason=x", ""),
    ],
)
def test_errors_name_the_line(text: str, complaint: str) -> None:
    with pytest.raises(IrSyntaxError, match="line 2") as error:
        parse("\n" + text)
    assert complaint in str(error.value)
