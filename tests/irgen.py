"""Random valid IR blocks from the op table, for round-trip, verifier, optimizer and backend stress tests.

`random_block(rng, size)` uses env bytes [BASE, ENV_SIZE), guest memory at [MEMORY_BASE, +MEMORY_SIZE), holes with the
values of `HOLES`, and helpers `HELPERS`. Divisions are made well defined by forcing the divisor. Forward
branches only, unless `loops`, which adds counted backward ones through guest state.
"""

import random
from collections.abc import Callable

from tcg.ir.block import Const, EnvRef, HelperDecl, Hole, Label, Operand, Temp
from tcg.ir.builder import Builder
from tcg.ir.interp import EnvAccess
from tcg.ir.types import (
    F32,
    F64,
    F80,
    I1,
    I8,
    I16,
    I32,
    I64,
    I128,
    V128,
    Barrier,
    Cond,
    Effect,
    FCond,
    Lane,
    MemOp,
    Rounding,
    Type,
)
from tcg.runtime.layout import GUEST_BASE

ENV_SIZE = 2048
BASE = GUEST_BASE
SLOTS = range(BASE, BASE + 256, 16)  # where ld and st mostly go; holes lead there too
HOLE_SPAN = (BASE + 64, BASE + 160)
LOOP_COUNTER = BASE + 480
MEMORY_BASE = 0x10000
MEMORY_SIZE = 256
HOLES = {"r0": BASE + 64, "r1": BASE + 80, "imm": -77, "disp": 24, "pc": 0x401000, "next_pc": 0x401004}

INTS = (I8, I16, I32, I64, I128)
INTS64 = (I8, I16, I32, I64)
INT_LANES = (Lane.B, Lane.H, Lane.W, Lane.D)
FLOAT_LANES = (Lane.S, Lane.DF)

MIX = HelperDecl("mix", (I64, I64), I64, Effect.NONE)
COUNT = HelperDecl("count", (I64,), None, Effect.READS_ENV | Effect.WRITES_ENV)
PEEK = HelperDecl("peek", (I64,), I64, Effect.READS_ENV | Effect.MAY_FAULT)


def _mix(env: EnvAccess, a: int, b: int) -> int:
    return (a * 0x9E3779B97F4A7C15 ^ b) & I64.mask


def _count(env: EnvAccess, a: int) -> None:
    env.store(BASE + 32, 8, env.load(BASE + 32, 8) + a)


def _peek(env: EnvAccess, a: int) -> int:
    return env.load(BASE + 48, 8) ^ a


HELPERS: dict[str, Callable[..., int | None]] = {"mix": _mix, "count": _count, "peek": _peek}


def interesting(rng: random.Random, type_: Type) -> int:
    """Bits of `type_`: small, near the ends, single bits, or uniform."""
    width, mask = type_.width, type_.mask
    choice = rng.randrange(6)
    if choice == 0:
        return rng.randrange(0, min(16, mask + 1))
    if choice == 1:
        return mask - rng.randrange(0, min(16, mask + 1))
    if choice == 2:
        return 1 << rng.randrange(width)
    if choice == 3:
        return ((1 << rng.randrange(1, width + 1)) - 1) & mask
    if choice == 4 and width >= 32:
        return rng.choice(_FLOATS.get(type_, _FLOATS[F32])) & mask
    return rng.getrandbits(width)


_FLOATS = {
    F32: (0, 1 << 31, 0x3F800000, 0xBF800000, 0x7F800000, 0xFF800000, 0x7FC00001, 0x7FA00000, 1, 0x7FFFFF, 0x7F7FFFFF),
    F64: (0, 1 << 63, 0x3FF << 52, 0x7FF << 52, 0xFFF << 52, 0x7FF8 << 48 | 5, 0x7FF4 << 48, 1, (1 << 52) - 1),
    F80: (0, 1 << 79, 0x3FFF8 << 60, 0x7FFF8 << 60, 0xFFFF8 << 60, 0x7FFFC << 60, 0x7FFFA << 60, 1, 1 << 63, 5 << 64),
}


class Generator:
    """Emits random ops into a builder; `temps` are those assigned on every path to here."""

    def __init__(self, rng: random.Random, *, floats: bool = True, memory: bool = True) -> None:
        self.rng, self.b = rng, Builder()
        self.temps: list[Temp] = []
        self.floats, self.memory = floats, memory

    # --- operands
    def operand(self, type_: Type) -> Operand:
        """Mostly a temp of that type, else a constant or a hole."""
        fitting = [t for t in self.temps[-24:] if t.type is type_]
        roll = self.rng.random()
        if fitting and roll < 0.75:
            return self.rng.choice(fitting)
        if roll < 0.9 or type_ not in (I8, I16, I32, I64):
            return Const(type_, interesting(self.rng, type_))
        return Hole(self.rng.choice(("imm", "disp")), type_)

    def keep(self, value: Operand) -> None:
        if isinstance(value, Temp):
            self.temps.append(value)

    def ref(self, size: int) -> EnvRef:
        rng = self.rng
        if rng.random() < 0.35:
            hole = Hole(rng.choice(("r0", "r1")), I64, 0, 65535)
            return EnvRef(rng.choice((0, 0, 4, 8, 1)) if size < 16 else 0, hole, HOLE_SPAN)
        return EnvRef(rng.choice(SLOTS) + (rng.choice((0, 0, 0, 1, 4, 8)) if size < 16 else 0))

    def memop(self, size: int) -> MemOp:
        return MemOp(size, self.rng.random() < 0.4, self.rng.random() < 0.2)

    def gva(self, size: int) -> Operand:
        """In range mostly; a fault now and then."""
        if self.rng.random() < 0.04:
            return Const(I64, interesting(self.rng, I64))
        place = MEMORY_BASE + self.rng.randrange(0, MEMORY_SIZE - size + 1)
        return Const(I64, place)

    # --- ops
    def step(self) -> None:
        kinds = [self.integer] * 8 + [self.env] * 6 + [self.vector] * 3 + [self.convert] * 3 + [self.call, self.barrier]
        kinds += [self.float_] * 3 if self.floats else []
        kinds += [self.guest_memory] * 2 if self.memory else []
        self.rng.choice(kinds)()

    def integer(self) -> None:
        rng, b = self.rng, self.b
        family = rng.randrange(9)
        type_ = rng.choice(INTS if rng.random() < 0.3 else INTS64)
        if family <= 2:
            types = (*INTS, V128, I1)
            name = rng.choice(("and", "or", "xor", "andc"))
            type_ = rng.choice(types)
            self.keep(b._same(name, self.operand(type_), self.operand(type_)))
        elif family == 3:
            self.keep(b._same(rng.choice(("add", "sub", "mul")), self.operand(type_), self.operand(type_)))
        elif family == 4:
            self.keep(b._same(rng.choice(("shl", "shr", "sar")), self.operand(type_), self.operand(type_)))
        elif family == 5:
            type_ = rng.choice(INTS64)
            self.keep(b._same(rng.choice(("mulhu", "mulhs", "rotl", "rotr")), self.operand(type_), self.operand(type_)))
        elif family == 6:
            name = rng.choice(("not", "neg", "clz", "ctz", "popcnt", "bswap"))
            type_ = rng.choice((I16, I32, I64))
            self.keep(b.unary(name, self.operand(type_)))
        elif family == 7:
            c = b.setcond(rng.choice(list(Cond)), self.operand(type_), self.operand(type_))
            self.temps.append(c)
            type_ = rng.choice((*INTS, V128, F64))
            self.keep(b.select(c, self.operand(type_), self.operand(type_)))
        else:
            self.division()

    def division(self) -> None:
        """The divisor is forced odd and positive, the high half small, so that everything is defined."""
        rng, b = self.rng, self.b
        type_ = rng.choice(INTS64)
        divisor = b.or_(b.shr(self.operand(type_), 2), 1)
        name = rng.choice(("divu", "remu", "divs", "rems", "divu2", "divs2"))
        if name.endswith("2"):
            wide = b.or_(b.shr(self.operand(I64), 2), 1 << 61)
            high = b.shr(self.operand(I64), 5)
            self.temps += b._div2(name, high, self.operand(I64), wide)
        else:
            self.keep(b._same(name, self.operand(type_), divisor))

    def convert(self) -> None:
        rng, b = self.rng, self.b
        small, large = sorted(rng.sample((I1, *INTS), 2), key=lambda t: t.width)
        choice = rng.randrange(4)
        if choice == 0:
            self.keep(b.zext(self.operand(small), large))
        elif choice == 1:
            self.keep(b.sext(self.operand(small), large))
        elif choice == 2:
            self.keep(b.trunc(self.operand(large), small))
        else:
            pair = rng.choice(((I32, F32), (I64, F64), (I128, V128)))
            source, to = pair if rng.random() < 0.5 else pair[::-1]
            self.keep(b.bitcast(self.operand(source), to))

    def vector(self) -> None:
        rng, b = self.rng, self.b
        a = self.operand(V128)
        lane = rng.choice(INT_LANES)
        choice = rng.randrange(9)
        if choice <= 2:
            name = rng.choice(_TWO_INPUT)
            lane = rng.choice((Lane.H, Lane.W)) if name.startswith("vnarrow") else lane
            self.keep(b.vop(name, a, self.operand(V128), lane))
        elif choice == 3:
            self.keep(b.vabs(a, lane))
        elif choice == 4:
            count = self.operand(I64) if rng.random() < 0.5 else Const(I64, rng.randrange(80))
            self.keep(b.vshift(rng.choice(("vshl", "vshr", "vsar")), a, count, lane))
        elif choice == 5:
            if rng.random() < 0.5:
                self.keep(b.vshuf(a, self.operand(V128), tuple(rng.randrange(33) for _ in range(16))))
            else:
                self.keep(b.vtbl(a, self.operand(V128)))
        elif choice == 6:
            index = rng.randrange(lane.count)
            value = b.vext(a, lane, index)
            self.keep(value)
            self.keep(b.vins(self.operand(V128), self.operand(value.type), lane, rng.randrange(lane.count)))
        elif choice == 7:
            narrow, wide = sorted(rng.sample(INT_LANES, 2), key=lambda x: x.width)
            self.keep(b.vwiden(a, narrow, wide, signed=rng.random() < 0.5))
        else:
            self.keep(b.vmovmsk(a, lane))
            element = rng.choice((I8, I16, I32, I64))
            self.keep(b.vdup(self.operand(element), {1: Lane.B, 2: Lane.H, 4: Lane.W, 8: Lane.D}[element.size]))

    def float_(self) -> None:
        rng, b = self.rng, self.b
        type_ = rng.choice((F32, F64, F80, V128))
        lane = rng.choice(FLOAT_LANES) if type_ is V128 else None
        a, other = self.operand(type_), self.operand(type_)
        choice = rng.randrange(6)
        if choice <= 1:
            names = (
                ("fadd", "fsub", "fmul", "fdiv") if type_ is F80 else ("fadd", "fsub", "fmul", "fdiv", "fmin", "fmax")
            )
            self.keep(b.fop(rng.choice(names), a, other, lane))
        elif choice == 2:
            self.keep(b.fsqrt(a, lane))
        elif choice == 3:
            fcond, signal = rng.choice(list(FCond)), rng.random() < 0.5
            if lane is not None:
                self.keep(b.vfcmp(fcond, a, other, lane, signal=signal))
            else:
                self.keep(b.fcmp(fcond, a, other, signal=signal))
        elif choice == 4:
            if type_ is not F80:
                self.keep(b.fround(a, rng.choice(list(Rounding)), exact=rng.random() < 0.5, lane=lane))
        else:
            source, to = rng.sample((F32, F64, F80), 2)
            self.keep(b.f2f(self.operand(source), to))
            self.keep(b.i2f(self.operand(rng.choice((I32, I64))), to))
            self.keep(b.f2i(self.operand(source), rng.choice((I32, I64)), rng.choice((Rounding.DYN, Rounding.ZERO))))

    def env(self) -> None:
        rng, b = self.rng, self.b
        type_ = rng.choice((I8, I16, I32, I64, I64, I64, I128, V128, F32, F64, F80))
        choice = rng.random()
        if choice < 0.45:
            self.keep(b.ld(type_, self.ref(type_.size)))
        elif choice < 0.9:
            b.st(self.ref(type_.size), self.operand(type_))
        else:
            delta = b.and_(self.operand(I64), 0x30)
            ref = EnvRef(BASE + rng.choice((0, 64, 128)))
            if rng.random() < 0.5:
                self.keep(b.ldx(type_, ref, delta, 64))
            else:
                b.stx(ref, delta, self.operand(type_), 64)

    def guest_memory(self) -> None:
        rng, b = self.rng, self.b
        choice = rng.randrange(5)
        size = rng.choice((1, 2, 4, 8, 16) if choice <= 1 else (1, 2, 4, 8))
        fitting = [t for t in INTS if t.size >= size]
        if choice == 0:
            self.keep(b.qemu_ld(rng.choice(fitting), self.gva(size), self.memop(size)))
        elif choice == 1:
            b.qemu_st(self.gva(size), self.operand(rng.choice(fitting)), self.memop(size))
        elif choice == 2:
            if rng.random() < 0.5:
                self.keep(b.qemu_ld(F64, self.gva(8), MemOp(8)))
                b.qemu_st(self.gva(16), self.operand(V128), MemOp(16))
        else:
            type_ = {1: I8, 2: I16, 4: I32, 8: I64}[size]
            memop = MemOp(size)
            if choice == 3:
                name = "atomic_" + rng.choice(("xchg", "add", "sub", "and", "or", "xor"))
                self.keep(b.atomic(name, self.gva(size), self.operand(type_), memop))
            else:
                self.keep(b.atomic_cmpxchg(self.gva(size), self.operand(type_), self.operand(type_), memop))

    def call(self) -> None:
        choice = self.rng.randrange(3)
        if choice == 0:
            self.keep(self.b.call(MIX, self.operand(I64), self.operand(I64)))
        elif choice == 1:
            self.b.call_void(COUNT, self.operand(I64))
        else:
            self.keep(self.b.call(PEEK, self.operand(I64)))

    def barrier(self) -> None:
        self.b.mb(Barrier(self.rng.randrange(1, 16)))

    # --- structure
    def guarded(self, size: int) -> None:
        """if (c) { ... } or if (c) { ... } else { ... }, joined; temps of the arms are not visible behind."""
        b, before = self.b, list(self.temps)
        c = self.operand(I1)
        other, join = b.new_label(), b.new_label()
        b.brcond(c, other, likely=self.rng.choice((None, True, False)))
        self.fill(size)
        self.temps = list(before)
        if self.rng.random() < 0.5:
            b.br(join)
            b.label(other)
            self.fill(size)
            self.temps = list(before)
        else:
            b.label(other)
        b.label(join)

    def loop(self, size: int) -> None:
        """Run a body three times, counting in guest state that nothing else touches."""
        b, before = self.b, list(self.temps)
        counter = EnvRef(LOOP_COUNTER)
        b.st(counter, b.const(I64, 3))
        head: Label = b.new_label()
        b.label(head)
        self.fill(size)
        left = b.sub(b.ld(I64, counter), 1)
        b.st(counter, left)
        b.brcond(b.setcond(Cond.NE, left, 0), head)
        self.temps = list(before)

    def fill(self, size: int) -> None:
        for _ in range(size):
            self.step()

    def finish(self) -> None:
        rng, b = self.rng, self.b
        choice = rng.randrange(6)
        if choice == 0:
            b.goto_tb(rng.randrange(2), self.operand(I64))
        elif choice == 1:
            b.goto_ptr(self.operand(I64))
        elif choice == 2:
            b.exit(3, self.operand(I64))
        elif choice == 3:
            b.raise_(13, self.operand(I64))


_TWO_INPUT = [
    "vadd",
    "vsub",
    "vmul",
    "vmulhu",
    "vmulhs",
    "vqaddu",
    "vqadds",
    "vqsubu",
    "vqsubs",
    "vminu",
    "vmaxu",
    "vmins",
    "vmaxs",
    "vavgu",
    "vcmpeq",
    "vcmpgts",
    "vziplo",
    "vziphi",
    "vnarrows",
    "vnarrowu",
]


def random_block(
    rng: random.Random, size: int = 20, *, floats: bool = True, memory: bool = True, loops: bool = True
) -> Builder:
    """A builder with about `size` random ops, some branches, and an exit or a fall off the end."""
    generator = Generator(rng, floats=floats, memory=memory)
    generator.b.insn_start(Hole("pc", I64))
    generator.fill(size // 2)
    if rng.random() < 0.5:
        generator.guarded(size // 6 + 1)
    if loops and rng.random() < 0.2:
        generator.loop(size // 6 + 1)
    if rng.random() < 0.3:
        generator.b.insn_start(Hole("next_pc", I64))
    generator.fill(size // 3)
    generator.finish()
    return generator.b
