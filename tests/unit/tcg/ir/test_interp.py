"""The reference interpreter: hand-computed cases for state, memory, control, exits and the trickier pure ops."""

import random
from itertools import product

import numpy as np
import pytest
from irgen import ENV_SIZE, HELPERS, HOLES, MEMORY_BASE, MEMORY_SIZE, interesting, random_block

from tcg.ir.block import Const, EnvRef, HelperDecl
from tcg.ir.builder import Builder
from tcg.ir.interp import EnvAccess, FlatMemory, GuestFault, InterpError, LeaveBlock, Outcome, run
from tcg.ir.text import parse
from tcg.ir.types import I8, I64, V128, Cond, Effect, Lane, Type


def compute(text: str, size: int = 8) -> int:
    """Run `text`, which stores its result at env 0, and read it."""
    env = bytearray(64)
    assert run(parse(text), env, FlatMemory(bytearray())) == Outcome("next")
    return int.from_bytes(env[:size], "little")


def signed8(value: int) -> int:
    return value - 256 if value > 127 else value


CASES = [
    ("%0:i8 = mulhs 0x80:i8, 0x7f:i8\nst %0, [0x0]", 0xC0),
    ("%0:i8 = mulhu 0xff:i8, 0xff:i8\nst %0, [0x0]", 0xFE),
    ("%0:i8 = shl 0x81:i8, 9:i8\nst %0, [0x0]", 0x02),
    ("%0:i8 = sar 0x81:i8, 1:i8\nst %0, [0x0]", 0xC0),
    ("%0:i8 = rotl 0x81:i8, 0xff:i8\nst %0, [0x0]", 0xC0),
    ("%0:i8 = rotr 0x81:i8, 1:i8\nst %0, [0x0]", 0xC0),
    ("%0:i16 = rotl 0x8001:i16, 4:i16\nst %0, [0x0]", 0x0018),
    ("%0:i32 = divs 0xfffffff9:i32, 2:i32\nst %0, [0x0]", 0xFFFFFFFD),
    ("%0:i32 = rems 0xfffffff9:i32, 2:i32\nst %0, [0x0]", 0xFFFFFFFF),
    ("%0:i64, %1:i64 = divu2 1:i64, 0:i64, 3:i64\nst %0, [0x0]", 0x5555555555555555),
    ("%0:i64, %1:i64 = divs2 0xffffffffffffffff:i64, 0xfffffffffffffff9:i64, 2:i64\nst %1, [0x0]", (1 << 64) - 1),
    ("%0:i32 = clz 0:i32\nst %0, [0x0]", 32),
    ("%0:i32 = ctz 0x28:i32\nst %0, [0x0]", 3),
    ("%0:i16 = bswap 0x1234:i16\nst %0, [0x0]", 0x3412),
    ("%0:i64 = sext 1:i1\nst %0, [0x0]", (1 << 64) - 1),
    ("%0:i1 = trunc 2:i8\n%1:i8 = select %0, 5:i8, 6:i8\nst %1, [0x0]", 6),
    ("%0:v128 = vqadds 0x7f80:v128, 0x01ff:v128 lane=b\n%1:i64 = vext %0 lane=d index=0\nst %1, [0x0]", 0x7F80),
    ("%0:v128 = vavgu 0xff00:v128, 0xff01:v128 lane=b\n%1:i64 = vext %0 lane=d index=0\nst %1, [0x0]", 0xFF01),
    ("%0:v128 = vziplo 0x0201:v128, 0x1211:v128 lane=b\n%1:i64 = vext %0 lane=d index=0\nst %1, [0x0]", 0x12021101),
    (
        "%0:v128 = vnarrowu 0xffff00ff01007fff:v128, 0:v128 lane=h\n%1:i64 = vext %0 lane=d index=0\nst %1, [0x0]",
        0x00FFFFFF,
    ),
    ("%0:v128 = vsar 0x8000000000000000:v128, 0x50:i64 lane=d\n%1:i64 = vext %0 lane=d index=0\nst %1, [0x0]", -1),
    ("%0:v128 = vshl 0x8000000000000001:v128, 0x40:i64 lane=d\n%1:i64 = vext %0 lane=d index=0\nst %1, [0x0]", 0),
    ("%0:v128 = vwidens 0x80:v128 lane=b to=w\n%1:i64 = vext %0 lane=d index=0\nst %1, [0x0]", 0xFFFFFF80),
    ("%0:i32 = vmovmsk 0x80000000000000007f80:v128 lane=b\nst %0, [0x0]", 0b1000000001),
    (
        "%0:v128 = vshuf 0x0201:v128, 0x12:v128 mask=1,16,32,0,0,0,0,0,0,0,0,0,0,0,0,0\n"
        "%1:i32 = vext %0 lane=w index=0\nst %1, [0x0]",
        0x01001202,
    ),
]


@pytest.mark.parametrize(("text", "expected"), CASES)
def test_pure_ops(text: str, expected: int) -> None:
    assert compute(text) == expected & I64.mask


def test_every_condition_over_8_bits() -> None:
    for cond in Cond:
        b = Builder()
        env = bytearray(1)
        for a, c in product((0, 1, 2, 0x7F, 0x80, 0x81, 0xFE, 0xFF), repeat=2):
            b = Builder()
            b.st(EnvRef(0), b.zext(b.setcond(cond, Const(I8, a), Const(I8, c)), I8))
            run(b.block, env, FlatMemory(bytearray()))
            left, right = (a, c) if cond.value.endswith("u") else (signed8(a), signed8(c))
            expected = {
                "eq": left == right,
                "ne": left != right,
                "lt": left < right,
                "ge": left >= right,
                "le": left <= right,
                "gt": left > right,
            }[cond.value.removesuffix("u")]
            assert env[0] == expected, (cond, a, c)


def test_env_holes_and_indexed_access() -> None:
    block = parse(
        "%0:i16 = ld [0x2+$r0:i64{0,65535}]\n"
        "%1:i64 = zext %0\n%2:i64 = and %1, 7:i64\n"
        "stx %2, %0, [0x10] span=16\n"
        "%3:i8 = ldx %2, [0x10] span=16\n"
        "st %3, [0x0]\nst $imm:i32, [0x20]\n"
    )
    env = bytearray(64)
    env[10:12] = b"\x05\xab"
    assert run(block, env, FlatMemory(bytearray()), holes={"r0": 8, "imm": -2}).kind == "next"
    assert env[0x15:0x17] == b"\x05\xab"
    assert env[0] == 5
    assert env[0x20:0x25] == b"\xfe\xff\xff\xff\0"


def test_memory_widening_order_and_faults() -> None:
    memory = FlatMemory(bytearray(b"\x80\x01\x02\x03\x04\x05\x06\x07\x08"), base=0x1000)
    text = """
        insn_start $pc:i64
        %0:i64 = qemu_ld 0x1000:i64 memop=s8le
        st %0, [0x0]
        %1:i32 = qemu_ld 0x1001:i64 memop=u32be
        st %1, [0x8]
        qemu_st 0x1001:i64, %0 memop=u16le
        %2:i16 = atomic_add 0x1003:i64, 2:i16 memop=u16le
        st %2, [0x10]
        %3:i8 = atomic_cmpxchg 0x1003:i64, 5:i8, 9:i8 memop=u8le
        %4:i8 = atomic_cmpxchg 0x1004:i64, 4:i8, 9:i8 memop=u8le
        insn_start $next_pc:i64
        %5:i8 = qemu_ld 0x1009:i64 memop=u8le
    """
    env = bytearray(32)
    outcome = run(parse(text), env, memory, holes={"pc": 64, "next_pc": 68})
    assert outcome == Outcome("fault", 68, vector=14, gva=0x1009)
    assert env[:8] == b"\x80" + b"\xff" * 7
    assert env[8:12] == b"\x04\x03\x02\x01"
    assert env[16:18] == b"\x03\x04"
    assert memory.data == b"\x80\x80\xff\x09\x09\x05\x06\x07\x08"
    misaligned = run(parse("%0:i16 = qemu_ld 0x1001:i64 memop=u16le.a2"), env, memory)
    assert misaligned.kind == "fault"


def test_branches_loops_and_exits() -> None:
    text = """
        st 5:i64, [0x0]
        L0:
        %0:i64 = ld [0x0]
        %1:i64 = ld [0x8]
        %2:i64 = add %0, %1
        st %2, [0x8]
        %3:i64 = sub %0, 1:i64
        st %3, [0x0]
        %4:i1 = setcond %3, 0:i64 cond=ne
        brcond %4, L0 likely=true
        br L1
        L2:
        goto_tb 7:i64 slot=1
        L1:
        %5:i1 = trunc $imm:i8
        brcond %5, L2 likely=-
        raise 0x18:i64 vector=13
    """
    env = bytearray(16)
    assert run(parse(text), env, FlatMemory(bytearray()), holes={"imm": 1}) == Outcome("goto_tb", 7, slot=1)
    assert env[8] == 15
    assert run(parse(text), env, FlatMemory(bytearray()), holes={"imm": 0}) == Outcome("raise", vector=13, error=0x18)
    assert run(parse("exit 9:i64 reason=6"), env, FlatMemory(bytearray())) == Outcome("exit", 9, reason=6)
    assert run(parse("goto_ptr 9:i64"), env, FlatMemory(bytearray())) == Outcome("goto_ptr", 9)
    with pytest.raises(InterpError, match="endless"):
        run(parse("L0:\nbr L0"), env, FlatMemory(bytearray()), limit=1000)


def test_helpers_see_and_end_the_block() -> None:
    def helper(env: EnvAccess, a: int) -> int:
        env.store(0, 4, env.load(4, 4) + a)
        if a == 1:
            raise GuestFault(6, 2, 3)
        if a == 2:
            raise LeaveBlock(4, 0x30)
        return -1

    decl = HelperDecl("h", (I64,), I64, Effect.WRITES_ENV | Effect.MAY_FAULT)

    def outcome(argument: int) -> tuple[Outcome, bytes]:
        b = Builder()
        b.insn_start(0x10)
        b.st(EnvRef(8), b.call(decl, argument))
        env = bytearray(16)
        env[4] = 40
        return run(b.block, env, FlatMemory(bytearray()), {"h": helper}), bytes(env)

    assert outcome(0) == (Outcome("next", 0x10), b"\x28\0\0\0\x28\0\0\0" + b"\xff" * 8)
    assert outcome(1) == (Outcome("fault", 0x10, vector=6, error=2, gva=3), b"\x29\0\0\0\x28\0\0\0" + bytes(8))
    assert outcome(2)[0] == Outcome("exit", 0x30, reason=4)


@pytest.mark.parametrize(
    "text",
    [
        "%0:i8 = divu 1:i8, 0:i8",
        "%0:i8 = divs 0x80:i8, 0xff:i8",
        "%0:i64, %1:i64 = divu2 1:i64, 0:i64, 1:i64",
        "%0:i64 = ld [0x7000]",
        "st 0:i64, [-0x1]",
        "%0:i64 = ldx 9:i64, [0x0] span=16",
        "%0:i64 = neg $unknown:i64",
    ],
)
def test_what_is_not_defined_is_refused(text: str) -> None:
    with pytest.raises(InterpError):
        run(parse(text), bytearray(16), FlatMemory(bytearray()))


def test_random_blocks_run() -> None:
    """Values stay in range (assign checks) whatever the ops; seeds are printed."""
    seed = 5
    print("seed", seed)
    rng = random.Random(seed)
    kinds = set()
    for _ in range(300):
        block = random_block(rng, 30).block
        env = bytearray(rng.randbytes(ENV_SIZE))
        memory = FlatMemory(bytearray(rng.randbytes(MEMORY_SIZE)), MEMORY_BASE)
        kinds.add(run(block, env, memory, HELPERS, HOLES).kind)
    assert kinds == {"next", "goto_tb", "goto_ptr", "exit", "raise", "fault"}


def test_vector_ops_agree_with_numpy_lanes() -> None:
    """Wrapping lane arithmetic against numpy's fixed-width integers."""
    seed = 6
    print("seed", seed)
    rng = random.Random(seed)
    dtypes = {Lane.B: np.uint8, Lane.H: np.uint16, Lane.W: np.uint32, Lane.D: np.uint64}
    for name, numpy_op in (("vadd", np.add), ("vsub", np.subtract), ("vmul", np.multiply), ("vminu", np.minimum)):
        for lane, dtype in dtypes.items():
            a, c = (interesting(rng, Type.V128) for _ in range(2))
            b = Builder()
            b.st(EnvRef(0), b.vop(name, Const(V128, a), Const(V128, c), lane))
            env = bytearray(16)
            run(b.block, env, FlatMemory(bytearray()))
            x, y = (np.frombuffer(v.to_bytes(16, "little"), dtype) for v in (a, c))
            assert bytes(env) == numpy_op(x, y).tobytes(), (name, lane)
