"""Random blocks: stencil and IR interpreter must agree on guest state, guest memory, FP flags and the way out."""

import ctypes
import random
from collections.abc import Callable

import irgen
import pytest
from laying import Machine

from backends.llvm.gates import fixed_stencils
from backends.llvm.host import host
from backends.llvm.stencils import StencilCompiler
from tcg.exec.forms import Stencil
from tcg.ir import interp
from tcg.ir.block import Block, Const, EnvRef, Hole
from tcg.ir.builder import Builder
from tcg.ir.floats import FpRegisters
from tcg.ir.softfloat import FpState
from tcg.ir.text import show
from tcg.ir.types import F32, F64, F80, I64, I128, V128, Cond, FCond, Rounding, Type
from tcg.runtime.layout import GUEST_BASE, ExitReason

FELL_THROUGH = 0xEE
U64 = ctypes.c_uint64
MASK = 2**64 - 1
_MODIFY: dict[str, Callable[[int, int], int]] = {
    "xchg": lambda old, value: value,
    "add": lambda old, value: old + value,
    "sub": lambda old, value: old - value,
    "and": lambda old, value: old & value,
    "or": lambda old, value: old | value,
    "xor": lambda old, value: old ^ value,
}


def shift_env(block: Block) -> Block:
    """irgen's blocks use env from 0 on; here the guest's part begins at GUEST_BASE."""
    for op in block.ops:
        ref = op.attrs.get("ref")
        if ref is not None:
            span = tuple(x + GUEST_BASE for x in ref.span) if ref.hole else ref.span
            op.attrs["ref"] = EnvRef(ref.offset + GUEST_BASE, ref.hole, span)
    return block


def shifted(helper: Callable[..., int | None]) -> Callable[..., int | None]:
    """irgen's helper, on the shifted env."""

    class Shifted:
        def __init__(self, env: interp.EnvAccess) -> None:
            self.env = env

        def load(self, offset: int, size: int) -> int:
            return self.env.load(offset + GUEST_BASE, size)

        def store(self, offset: int, size: int, value: int) -> None:
            self.env.store(offset + GUEST_BASE, size, value)

    return lambda env, *args: helper(Shifted(env), *args)


HELPERS = {name: shifted(helper) for name, helper in irgen.HELPERS.items()}


def native_helpers(machine: Machine) -> None:
    def fault(gva: int) -> int:
        machine.view.set("exception", 1)
        machine.view.set("exit_reason", ExitReason.EXCEPTION)
        machine.view.set("exception_index", 14)
        machine.view.set("fault_gva", gva)
        return 0

    def inside(gva: int, size: int) -> bool:
        return machine.ram_base <= gva <= machine.ram_base + machine.ram_size - size

    def peek(gva: int, size: int) -> int:
        return int.from_bytes(ctypes.string_at(machine.ram_at + gva - machine.ram_base, size), "little")

    def poke(gva: int, size: int, value: int) -> None:
        data = (value % (1 << 8 * size)).to_bytes(size, "little")
        ctypes.memmove(machine.ram_at + gva - machine.ram_base, data, size)

    def load(size: int) -> Callable[..., int]:
        return lambda env, gva: peek(gva, size) if inside(gva, size) else fault(gva)

    def store(size: int) -> Callable[..., None]:
        def function(env: int, gva: int, value: int) -> None:
            if inside(gva, size):
                poke(gva, size, value)
            else:
                fault(gva)

        return function

    def modify(name: str, size: int) -> Callable[..., int]:
        def function(env: int, gva: int, value: int) -> int:
            if not inside(gva, size):
                return fault(gva)
            old = peek(gva, size)
            poke(gva, size, _MODIFY[name](old, value))
            return old

        return function

    def cmpxchg(size: int) -> Callable[..., int]:
        def function(env: int, gva: int, expected: int, new: int) -> int:
            if not inside(gva, size):
                return fault(gva)
            old = peek(gva, size)
            if old == expected:
                poke(gva, size, new)
            return old

        return function

    for size in (1, 2, 4, 8):
        bits = 8 * size
        machine.helper(f"helper_ld{bits}", load(size), U64, U64)
        machine.helper(f"helper_st{bits}", store(size), None, U64, U64)
        machine.helper(f"helper_atomic_cmpxchg{bits}", cmpxchg(size), U64, U64, U64, U64)
        for name in _MODIFY:
            machine.helper(f"helper_atomic_{name}{bits}", modify(name, size), U64, U64, U64)

    def load128(env: int, gva: int) -> int:
        machine.view.set("scratch", peek(gva, 16) if inside(gva, 16) else fault(gva))
        return 0

    def store128(env: int, gva: int) -> None:
        store(16)(env, gva, machine.view.get("scratch"))

    machine.helper("helper_ld128", load128, U64, U64)
    machine.helper("helper_st128", store128, None, U64)

    class Env:
        def load(self, offset: int, size: int) -> int:
            return int.from_bytes(machine.read_env(offset + GUEST_BASE, size), "little")

        def store(self, offset: int, size: int, value: int) -> None:
            machine.write_env(offset + GUEST_BASE, (value % (1 << 8 * size)).to_bytes(size, "little"))

    for name, (result, *args) in {"mix": (U64, U64, U64), "count": (None, U64), "peek": (U64, U64)}.items():
        helper = irgen.HELPERS[name]
        machine.helper(f"helper_{name}", lambda env, *a, helper=helper: helper(Env(), *a), result, *args)


class State:
    """One random start: guest state, memory, FP controls."""

    def __init__(self, rng: random.Random) -> None:
        self.env = rng.randbytes(irgen.ENV_SIZE)
        self.ram = rng.randbytes(irgen.MEMORY_SIZE)
        self.rounding = rng.choice([r for r in Rounding if r is not Rounding.DYN])
        self.daz, self.ftz = rng.random() < 0.3, rng.random() < 0.3
        self.precision = rng.choice((24, 53, 64))
        self.mapped = rng.random() < 0.7

    @property
    def mxcsr(self) -> int:
        return 0x1F80 | self.rounding << 13 | self.daz << 6 | self.ftz << 15

    @property
    def fcw(self) -> int:
        return 0x7F | {24: 0, 53: 2, 64: 3}[self.precision] << 8 | self.rounding << 10


def by_interp(block: Block, state: State) -> tuple[object, ...]:
    env = bytearray(GUEST_BASE) + bytearray(state.env)
    memory = interp.FlatMemory(bytearray(state.ram), irgen.MEMORY_BASE)
    fp = FpRegisters(FpState(state.rounding, state.daz, state.ftz), FpState(state.rounding, precision=state.precision))
    out = interp.run(block, env, memory, HELPERS, irgen.HOLES, fp)
    way: tuple[int, ...] = ()
    match out.kind:
        case "goto_tb":
            way = (out.slot,)
        case "goto_ptr":
            way = (out.pc,)
        case "exit":
            way = (out.pc, out.reason)
        case "raise":
            way = (out.pc, out.vector, out.error)
        case "fault":
            way = (out.pc, out.vector, out.gva)
    return (out.kind, way, bytes(env[GUEST_BASE:]), bytes(memory.data), int(fp.simd.flags), int(fp.x87.flags))


def by_stencil(stencil: Stencil, stub: Stencil, state: State) -> tuple[object, ...]:
    machine = Machine(irgen.MEMORY_SIZE, irgen.MEMORY_BASE)
    machine.align_cold = True
    native_helpers(machine)
    machine.write_env(GUEST_BASE, state.env)
    machine.write_ram(state.ram)
    if state.mapped:
        machine.map_page(irgen.MEMORY_BASE)
    machine.view.set("host_mxcsr", state.mxcsr)
    machine.view.set("host_fcw", state.fcw)
    machine.view.set("exit_reason", FELL_THROUGH)
    exits = [machine.lay([(stub, {"target": n, "imm": n})]) for n in range(2)]
    machine.run(machine.lay([(stencil, irgen.HOLES)], exits))
    get = machine.view.get
    reason = get("exit_reason")
    kind, way = {
        FELL_THROUGH: ("next", ()),
        ExitReason.CHAIN: ("goto_tb", (get("exit_slot"),)),
        ExitReason.LOOKUP: ("goto_ptr", (get("pc"),)),
    }.get(reason, ("exit", (get("pc"), reason)))
    if get("exception"):
        kind, way = "raise", (get("pc"), get("exception_index"), get("error_code"))
        if get("exception_index") == 14:
            kind, way = "fault", (get("pc"), 14, get("fault_gva"))
    env = machine.read_env(GUEST_BASE, irgen.ENV_SIZE)
    return kind, way, env, machine.read_ram(), get("host_mxcsr") & 0x3F, get("x87_flags") & 0x23F


def check(seed: int, compiler: StencilCompiler, usable: Callable[[Block], bool] = lambda block: True) -> None:
    stub = fixed_stencils(compiler)["exit_stub"]
    rng = random.Random(seed)
    blocks = [shift_env(irgen.random_block(rng, rng.randrange(4, 30)).block) for _ in range(12)]
    blocks = [block for block in blocks if usable(block)]
    stencils = compiler.compile([(str(i), block) for i, block in enumerate(blocks)])
    for block, stencil in zip(blocks, stencils, strict=True):
        for _ in range(4):
            state = State(rng)
            want, have = by_interp(block, state), by_stencil(stencil, stub, state)
            assert have == want, f"seed {seed}\n{show(block)}\n{vars(state)}"


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("parallel", [False, True])
def test_random_blocks(seed: int, parallel: bool) -> None:
    check(seed * 2 + parallel, StencilCompiler(parallel=parallel))


@pytest.mark.parametrize("seed", range(100, 104))
def test_random_blocks_without_avx(seed: int) -> None:
    """SSE's two-operand forms, on a host that has VEX too. Some comparison predicates exist with VEX only."""
    check(seed, StencilCompiler(target=host().sse_only()), lambda b: all(op.name != "vfcmp" for op in b.ops))


@pytest.mark.parametrize("type_", [F32, F64, F80])
@pytest.mark.parametrize("signal", [False, True])
def test_comparisons_of_one_pair_share_an_instruction(type_: Type, signal: bool) -> None:
    compiler = StencilCompiler()
    stub = fixed_stencils(compiler)["exit_stub"]
    b = Builder()
    b.insn_start(Hole("pc", I64))
    x, y = b.ld(type_, EnvRef(0)), b.ld(type_, EnvRef(16))
    for i, fcond in enumerate(FCond):
        b.st(EnvRef(32 + 8 * i), b.zext(b.fcmp(fcond, x, y, signal=signal), I64))
    block = shift_env(b.block)
    (stencil,) = compiler.compile([("compare", block)])
    rng = random.Random(1)
    values = [irgen.interesting(rng, type_) for _ in range(40)]
    for _ in range(300):
        state = State(rng)
        pair = [rng.choice(values), rng.choice(values)]
        env = b"".join(v.to_bytes(16, "little") for v in pair)
        state.env = env + state.env[len(env) :]
        assert by_stencil(stencil, stub, state) == by_interp(block, state), [hex(v) for v in pair]


@pytest.mark.parametrize("type_", [F32, F64, F80, I128, V128])
def test_selections_of_two_constants(type_: Type) -> None:
    """LLVM likes to index a table of the two: at an absolute address, which may be anywhere."""
    compiler = StencilCompiler()
    stub = fixed_stencils(compiler)["exit_stub"]
    rng = random.Random(2)
    b = Builder()
    b.insn_start(Hole("pc", I64))
    picked = b.setcond(Cond.LTU, b.ld(I64, EnvRef(0)), 5)
    b.st(EnvRef(32), b.select(picked, *(Const(type_, irgen.interesting(rng, type_)) for _ in range(2))))
    block = shift_env(b.block)
    (stencil,) = compiler.compile([("select", block)])
    for value in (4, 5):
        state = State(rng)
        state.env = value.to_bytes(8, "little") + state.env[8:]
        assert by_stencil(stencil, stub, state) == by_interp(block, state)
