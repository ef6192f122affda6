"""Conditions from lazy flags: every condition code of every CcOp, specialised and not, against the plain rules."""

import random

import pytest

from frontends.x86.context import X86Insn, env
from frontends.x86.flags import AF, CF, OF, PF, SF, ZF, CcOp, status
from frontends.x86.operands import X86Key
from frontends.x86.state import STATE, Mode, Reg
from frontends.x86.status import CC_DST, CC_OP, CC_SRC, CC_SRC2, all_flags, condition, keep_carry, keep_zero, split
from tcg.exec.forms import Variant
from tcg.ir.block import EnvRef
from tcg.ir.builder import Builder
from tcg.ir.interp import EnvAccess, FlatMemory, run
from tcg.ir.types import I64

KEY = X86Key("test", Mode.CODE64 | Mode.PROTECTED, False, 0, 8, 8, False, ())
RESULT = env("regs", Reg.RAX)
OPS = [op for op in CcOp if op is not CcOp.UNKNOWN]


def expected(flags: int, code: int) -> bool:
    """SDM volume 1, appendix B."""
    less = bool(flags & SF) != bool(flags & OF)
    holds = [
        bool(flags & OF),
        bool(flags & CF),
        bool(flags & ZF),
        bool(flags & (CF | ZF)),
        bool(flags & SF),
        bool(flags & PF),
        less,
        less or bool(flags & ZF),
    ][code >> 1]
    return holds != bool(code & 1)


def operands(rng: random.Random, op: CcOp) -> tuple[int, int, int]:
    if not op.sized:
        carry = op in (CcOp.ADCX, CcOp.ADCOX)
        dst = rng.getrandbits(1) if carry else rng.getrandbits(64)
        src = rng.choice((0, rng.getrandbits(64))) if op is CcOp.POPCNT else rng.getrandbits(12) & 0x8D5
        return dst, src, rng.getrandbits(1)
    edges = (0, 1, 2, (1 << op.width) - 1, 1 << op.width - 1, (1 << op.width - 1) - 1, rng.getrandbits(op.width))
    dst, src = rng.choice(edges), rng.choice(edges)
    return dst, src & 1 if op.family in (CcOp.INCB, CcOp.DECB) else src, rng.getrandbits(1)


def place(data: bytearray, ref: EnvRef, size: int, value: int) -> None:
    data[ref.offset : ref.offset + size] = value.to_bytes(size, "little")


def evaluate(x: X86Insn, op: CcOp, values: tuple[int, int, int]) -> bytearray:
    data = bytearray(STATE.size)
    place(data, CC_OP, 4, int(op))
    for ref, value in zip((CC_DST, CC_SRC, CC_SRC2), values, strict=True):
        place(data, ref, 8, value)

    def compute_eflags(access: EnvAccess) -> int:
        fields = [access.load(ref.offset, 8) for ref in (CC_DST, CC_SRC, CC_SRC2)]
        return status(CcOp(access.load(CC_OP.offset, 4)), *fields)

    run(x.b.block, data, FlatMemory(bytearray(8)), {"x86_compute_eflags": compute_eflags})
    return data


def field(data: bytearray, ref: EnvRef) -> int:
    return int.from_bytes(data[ref.offset : ref.offset + 8], "little")


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("op", OPS, ids=lambda op: op.name)
def test_conditions(op: CcOp, known: bool) -> None:
    rng = random.Random(f"conditions {op}")
    for code in range(16):
        x = X86Insn(KEY, Variant(True, int(op) if known else 0), Builder())
        x.b.st(RESULT, x.b.zext(condition(x, code), I64))
        for _ in range(12):
            values = operands(rng, op)
            flags = status(op, *values)
            assert field(evaluate(x, op, values), RESULT) == expected(flags, code), (code, values, hex(flags))


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("op", OPS, ids=lambda op: op.name)
def test_flags_kept(op: CcOp, known: bool) -> None:
    """What BT, INC and the rotates keep of the old flags."""
    rng = random.Random(f"kept {op}")
    variant = Variant(True, int(op) if known else 0)
    zero, carried, parted, whole = (X86Insn(KEY, variant, Builder()) for _ in range(4))
    keep_zero(zero)
    keep_carry(carried)
    split(parted)
    whole.b.st(RESULT, all_flags(whole))
    for _ in range(20):
        values = operands(rng, op)
        flags = status(op, *values)
        assert (field(evaluate(zero, op, values), CC_DST) == 0) == bool(flags & ZF), values
        assert field(evaluate(carried, op, values), CC_SRC) == bool(flags & CF), values
        data = evaluate(parted, op, values)
        fields = [field(data, ref) for ref in (CC_DST, CC_SRC, CC_SRC2)]
        assert status(CcOp.ADCOX, *fields) == flags, (values, fields)
        assert field(evaluate(whole, op, values), RESULT) & (CF | PF | AF | ZF | SF | OF) == flags
