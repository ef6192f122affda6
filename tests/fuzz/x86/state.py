"""Architectural state as the fuzzer's runners exchange it, and how random ones are made.

One data region is mapped, read and write, for guest and host alike; everything else faults.
"""

import random
from dataclasses import dataclass, field, replace

from frontends.x86.flags import FIRST_SIZED, CcOp, status
from frontends.x86.state import Reg

CODE = 0x1000_0000
CODE_SIZE = 1 << 20
DATA = 0x2000_0000
DATA_SIZE = 0x4000
MIDDLE = DATA + DATA_SIZE // 2
M64 = (1 << 64) - 1

_EDGES = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 1 << 63, M64 >> 1, M64)


@dataclass(slots=True)
class Fpu:
    """x87 by physical register; tags: bit n set when register n is empty; status without TOP."""

    control: int = 0x37F
    status: int = 0
    top: int = 0
    empty: int = 0xFF
    regs: list[int] = field(default_factory=lambda: [0] * 8)


@dataclass(slots=True)
class State:
    """Guest state before or after one instruction. lazy: (cc_op, cc_dst, cc_src, cc_src2), which say `flags`."""

    regs: list[int]
    flags: int
    lazy: tuple[int, int, int, int]
    df: bool = False
    xmm: list[int] = field(default_factory=lambda: [0] * 16)
    mxcsr: int = 0x1F80
    fpu: Fpu = field(default_factory=Fpu)
    memory: bytes = bytes(DATA_SIZE)
    fs_base: int = 0
    gs_base: int = 0

    def copy(self) -> "State":
        fpu = replace(self.fpu, regs=list(self.fpu.regs))
        return replace(self, regs=list(self.regs), xmm=list(self.xmm), fpu=fpu)


@dataclass(frozen=True, slots=True)
class Result:
    """After one instruction. fault: exception vector, or -1; the state is then the one before. pc: of the next one."""

    state: State
    pc: int
    fault: int = -1


def random_word(rng: random.Random, bits: int = 64) -> int:
    """A value that likes edges, small numbers, sign patterns."""
    match rng.randrange(6):
        case 0:
            value = rng.choice(_EDGES)
        case 1:
            value = rng.choice(_EDGES) + rng.randrange(-3, 4)
        case 2:
            value = rng.randrange(-64, 64)
        case 3:
            value = rng.getrandbits(rng.randrange(1, bits + 1))
        case _:
            value = rng.getrandbits(bits)
    return value & ((1 << bits) - 1)


def random_lazy(rng: random.Random) -> tuple[int, int, int, int]:
    """Any lazy flags that an instruction could have left."""
    op = CcOp.EFLAGS if rng.randrange(3) == 0 else rng.choice([o for o in CcOp if o is not CcOp.UNKNOWN])
    if op < FIRST_SIZED:
        carry = op in (CcOp.ADCX, CcOp.ADCOX)
        dst = rng.getrandbits(1) if carry else random_word(rng)
        src = random_word(rng) if op is CcOp.POPCNT else rng.getrandbits(12) & 0x8D5
        return int(op), dst, src, rng.getrandbits(1)
    dst, src = random_word(rng, op.width), random_word(rng, op.width)
    if op.family in (CcOp.INCB, CcOp.DECB):
        src = rng.getrandbits(1)
    return int(op), dst, src, rng.getrandbits(1)


def random_state(rng: random.Random, *, code64: bool = True) -> State:
    """Registers as random_word has them; RSP in the middle of the data region."""
    lazy = random_lazy(rng)
    bits = 64 if code64 else 32
    regs = [random_word(rng, bits) if i < 8 or code64 else 0 for i in range(16)]
    regs[Reg.RSP] = MIDDLE + 8 * rng.randrange(-64, 64)
    return State(
        regs,
        status(CcOp(lazy[0]), *lazy[1:]),
        lazy,
        df=rng.randrange(4) == 0,
        xmm=[rng.getrandbits(128) for _ in range(16)],
        memory=rng.randbytes(DATA_SIZE),
        fs_base=DATA + 0x800,
        gs_base=DATA + 0x1000,
    )
