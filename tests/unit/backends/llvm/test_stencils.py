"""Hand-made blocks, compiled to stencils, laid end to end and run on the host."""

import ctypes
from collections.abc import Sequence

import pytest
from laying import Machine, gates

from backends.llvm.gates import fixed_stencils
from backends.llvm.stencils import StencilCompiler
from tcg.exec.forms import HoleSlot, Stencil, SymbolKind
from tcg.ir.block import Block, EnvRef, HelperDecl, Hole
from tcg.ir.builder import Builder
from tcg.ir.types import I8, I16, I32, I64, V128, Cond, Effect, Lane, MemOp
from tcg.runtime.layout import GUEST_BASE, ExitReason

PC = 0xFFFF_8000_1234_5678
S32 = (-(1 << 31), (1 << 31) - 1)


@pytest.fixture(scope="module")
def compiler() -> StencilCompiler:
    return StencilCompiler()


def reg(slot: int) -> EnvRef:
    return EnvRef(0, Hole(f"r{slot}", I64, 0, 65535), (GUEST_BASE, GUEST_BASE + 256))


def at(n: int) -> EnvRef:
    return EnvRef(GUEST_BASE + 16 * n)


def place(n: int) -> int:
    return GUEST_BASE + 16 * n


def start() -> Builder:
    b = Builder()
    b.insn_start(Hole("pc", I64))
    return b


def compile_all(compiler: StencilCompiler, *blocks: Block) -> list[Stencil]:
    return compiler.compile([(str(i), block) for i, block in enumerate(blocks)])


def run(machine: Machine, *parts: tuple[Stencil, dict[str, int]], exits: Sequence[int] = ()) -> None:
    machine.run(machine.lay([(s, {"pc": PC} | h) for s, h in parts], exits))


def get(machine: Machine, n: int, size: int = 8) -> int:
    return int.from_bytes(machine.read_env(place(n), size), "little")


def put(machine: Machine, n: int, value: int, size: int = 8) -> None:
    machine.write_env(place(n), value.to_bytes(size, "little"))


def test_two_instructions_fall_through(compiler: StencilCompiler) -> None:
    b = start()
    b.st(reg(0), b.add(b.ld(I64, reg(0)), b.ld(I64, reg(1))))
    (add,) = compile_all(compiler, b.block)
    assert add.hot_size == len(add.code), "nothing of a plain add is out of line"
    machine = Machine()
    put(machine, 0, 5)
    put(machine, 1, 7)
    run(machine, (add, {"r0": place(0), "r1": place(1)}), (add, {"r0": place(1), "r1": place(0)}))
    assert (get(machine, 0), get(machine, 1)) == (12, 19)


@pytest.mark.parametrize("type_", [I8, I16, I32, I64])
def test_immediate_holes_of_every_width(compiler: StencilCompiler, type_: object) -> None:
    b = start()
    kind = type_
    imm = Hole("imm", kind, *S32)  # type: ignore[arg-type]
    b.st(at(0), b.add(b.ld(kind, at(0)), imm))  # type: ignore[arg-type]
    b.st(at(1), b.convert("sext", imm, I64) if kind is not I64 else imm)
    b.st(at(2), b.zext(imm, I64))
    b.st(at(3), b.zext(b.setcond(Cond.EQ, imm, 0), I64))
    b.st(at(4), b.shl(b.ld(kind, at(4)), imm))  # type: ignore[arg-type]
    b.st(at(5), b.add(imm, 5))
    b.st(at(6), b.add(b.ld(kind, at(6)), b.add(imm, 9)))  # type: ignore[arg-type]
    (stencil,) = compile_all(compiler, b.block)
    width, mask = kind.width, kind.mask  # type: ignore[attr-defined]
    lowest = -(1 << min(width, 32) - 1)
    for value in (0, 1, -1, lowest, -lowest - 1, 3):
        machine = Machine()
        for n in range(7):
            put(machine, n, 0)
        put(machine, 4, 1)
        run(machine, (stencil, {"imm": value}))
        got = [get(machine, n) for n in range(7)]
        bits = value & mask
        assert got == [
            bits,
            value % 2**64,
            bits,
            int(value == 0),
            1 << (value % width),
            (value + 5) & mask,
            (value + 9) & mask,
        ], hex(value)


def test_wide_hole_is_64_bits(compiler: StencilCompiler) -> None:
    b = start()
    b.st(at(0), Hole("imm", I64))
    b.st(at(1), b.add(Hole("target", I64), 3))
    (stencil,) = compile_all(compiler, b.block)
    machine = Machine()
    run(machine, (stencil, {"imm": PC, "target": 2**64 - 2}))
    assert (get(machine, 0), get(machine, 1)) == (PC, 1)


def memory_machine() -> Machine:
    machine = Machine()

    def load(size: int) -> object:
        def function(env: int, gva: int) -> int:
            machine.calls.append(f"ld{size * 8} {gva:#x} pc {machine.view.get('pc'):#x}")
            return fetch(gva, size)

        return function

    def fetch(gva: int, size: int) -> int:
        offset = gva - machine.ram_base
        if not 0 <= offset <= machine.ram_size - size:
            machine.view.set("exception", 1)
            return 0
        return int.from_bytes(machine.read_ram()[offset : offset + size], "little")

    def store(size: int) -> object:
        def function(env: int, gva: int, value: int) -> None:
            machine.calls.append(f"st{size * 8} {gva:#x} pc {machine.view.get('pc'):#x}")
            offset = gva - machine.ram_base
            if not 0 <= offset <= machine.ram_size - size:
                machine.view.set("exception", 1)
                return
            ctypes.memmove(machine.ram_at + offset, (value % (1 << 8 * size)).to_bytes(size, "little"), size)

        return function

    def load128(env: int, gva: int) -> int:
        machine.calls.append(f"ld128 {gva:#x}")
        machine.view.set("scratch", fetch(gva, 16))
        return 0

    def store128(env: int, gva: int) -> None:
        machine.calls.append(f"st128 {gva:#x}")
        data = machine.view.get("scratch").to_bytes(16, "little")
        ctypes.memmove(machine.ram_at + gva - machine.ram_base, data, 16)

    def unaligned(env: int, gva: int) -> None:
        machine.calls.append(f"unaligned {gva:#x}")
        machine.view.set("exception", 1)

    u64 = ctypes.c_uint64
    for size in (1, 2, 4, 8):
        machine.helper(f"helper_ld{size * 8}", load(size), u64, u64)  # type: ignore[arg-type]
        machine.helper(f"helper_st{size * 8}", store(size), None, u64, u64)  # type: ignore[arg-type]
    machine.helper("helper_ld128", load128, u64, u64)
    machine.helper("helper_st128", store128, None, u64)
    machine.helper("helper_unaligned", unaligned, None, u64)
    machine.write_ram(bytes(i * 7 & 0xFF for i in range(machine.ram_size)))
    return machine


@pytest.mark.parametrize("size", [1, 2, 4, 8])
@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("big", [False, True])
def test_load(compiler: StencilCompiler, size: int, signed: bool, big: bool) -> None:
    b = start()
    gva = b.add(b.ld(I64, reg(0)), Hole("disp", I64, *S32))
    b.st(at(1), b.qemu_ld(I64, gva, MemOp(size, signed=signed, big_endian=big)))
    (stencil,) = compile_all(compiler, b.block)
    for mapped in (True, False):
        machine = memory_machine()
        if mapped:
            machine.map_page(0x10000)
        put(machine, 0, 0x10123)
        run(machine, (stencil, {"r0": place(0), "disp": -2}))
        data = machine.read_ram()[0x121 : 0x121 + size]
        assert get(machine, 1) == int.from_bytes(data, "big" if big else "little", signed=signed) % 2**64
        assert machine.calls == ([] if mapped else [f"ld{size * 8} 0x10121 pc {PC:#x}"])


@pytest.mark.parametrize("size", [1, 2, 4, 8])
def test_store_and_fault(compiler: StencilCompiler, size: int) -> None:
    b = start()
    b.qemu_st(b.ld(I64, at(0)), b.ld(I64, at(1)), MemOp(size))
    b.st(at(2), b.const(I64, 99))
    (stencil,) = compile_all(compiler, b.block)
    for mapped in (True, False):
        machine = memory_machine()
        if mapped:
            machine.map_page(0x10000)
        put(machine, 0, 0x10FFF - size)
        put(machine, 1, 0x8877665544332211)
        run(machine, (stencil, {}))
        stored = machine.read_ram()[0xFFF - size : 0xFFF]
        assert stored == (0x8877665544332211).to_bytes(8, "little")[:size]
        assert get(machine, 2) == 99
        assert bool(machine.calls) != mapped
    machine = memory_machine()
    put(machine, 0, 0x50000)
    run(machine, (stencil, {}))
    assert get(machine, 2) == 0, "the block must be left at the fault"


def test_page_crossing_and_misaligned_take_the_slow_path(compiler: StencilCompiler) -> None:
    b = start()
    b.st(at(1), b.qemu_ld(I64, b.ld(I64, at(0)), MemOp(8)))
    c = start()
    c.st(at(1), c.qemu_ld(I64, c.ld(I64, at(0)), MemOp(8, align=8)))
    plain, aligned = compile_all(compiler, b.block, c.block)
    for stencil, gva, slow in ((plain, 0x10FF8, False), (plain, 0x10FF9, True), (aligned, 0x10FF8, False)):
        machine = memory_machine()
        machine.map_page(0x10000)
        put(machine, 0, gva)
        run(machine, (stencil, {}))
        assert bool(machine.calls) == slow, hex(gva)
    machine = memory_machine()
    machine.map_page(0x10000)
    put(machine, 0, 0x10004)
    put(machine, 1, 0x55)
    run(machine, (aligned, {}))
    assert machine.calls == ["unaligned 0x10004"]
    assert get(machine, 1) == 0x55, "the block must be left"


def test_vector_memory_and_constant(compiler: StencilCompiler) -> None:
    b = start()
    gva = b.ld(I64, at(0))
    value = b.qemu_ld(V128, gva, MemOp(16))
    mask = b.const(V128, 0x0F0E0D0C0B0A09080706050403020100)
    b.qemu_st(b.add(gva, 16), b.vop("vadd", value, mask, Lane.B), MemOp(16))
    (stencil,) = compile_all(compiler, b.block)
    for mapped in (True, False):
        machine = memory_machine()
        if mapped:
            machine.map_page(0x10000)
        put(machine, 0, 0x10101)
        machine.top += 3  # constants must not need alignment
        run(machine, (stencil, {}))
        before = bytes(i * 7 & 0xFF for i in range(0x101, 0x111))
        assert machine.read_ram()[0x111:0x121] == bytes((x + i) & 0xFF for i, x in enumerate(before))
        assert bool(machine.calls) != mapped


def test_read_modify_write_of_one_place(compiler: StencilCompiler) -> None:
    b = start()
    gva = b.ld(I64, at(0))
    b.qemu_st(gva, b.add(b.qemu_ld(I32, gva, MemOp(4)), b.ld(I32, at(1))), MemOp(4))
    (stencil,) = compile_all(compiler, b.block)
    for read, write in ((True, True), (True, False), (False, False)):
        machine = memory_machine()
        machine.map_page(0x10000, read=read, write=write)
        put(machine, 0, 0x10010)
        put(machine, 1, 0x01020304)
        before = int.from_bytes(machine.read_ram()[16:20], "little")
        run(machine, (stencil, {}))
        assert int.from_bytes(machine.read_ram()[16:20], "little") == before + 0x01020304
        assert len(machine.calls) == (0 if write else 2), "one look-up serves both, of the write tag"


def test_helper_calls(compiler: StencilCompiler) -> None:
    effects = Effect.READS_ENV | Effect.WRITES_ENV | Effect.MAY_FAULT
    wide = HelperDecl("wide", (V128, I64, V128), V128, effects)
    narrow = HelperDecl("narrow", (I32, I64), I32, Effect.SIDE)
    b = start()
    b.st(at(2), b.call(wide, b.ld(V128, at(0)), 3, b.ld(V128, at(1))))
    b.st(at(3), b.call(narrow, b.ld(I32, at(3)), 1 << 40))
    (stencil,) = compile_all(compiler, b.block)
    machine = Machine()
    put(machine, 0, 1 << 100, 16)
    put(machine, 1, 1 << 90, 16)
    put(machine, 3, 0xFFFF_FFFF)
    seen: list[int] = []

    def wide_helper(env: int, n: int) -> None:
        seen.append(machine.view.get("pc"))
        machine.view.set("scratch", machine.view.get("scratch", 0) * n + machine.view.get("scratch", 1))

    def narrow_helper(env: int, a: int, b: int) -> int:
        seen.append(a)
        return a + b + 1

    machine.helper("helper_wide", wide_helper, None, ctypes.c_uint64)
    machine.helper("helper_narrow", narrow_helper, ctypes.c_uint64, ctypes.c_uint64, ctypes.c_uint64)
    run(machine, (stencil, {}))
    assert get(machine, 2, 16) == 3 * (1 << 100) + (1 << 90)
    assert get(machine, 3) == 0
    assert seen == [PC, 0xFFFF_FFFF]
    machine.view.set("exception", 0)
    machine.helper("helper_wide", lambda env, n: machine.view.set("exception", 1), None, ctypes.c_uint64)
    machine._stub.clear()
    put(machine, 2, 0, 16)
    run(machine, (stencil, {}))
    assert get(machine, 2, 16) == 0, "a faulting helper leaves before its result is used"


def test_exits(compiler: StencilCompiler) -> None:
    b = start()
    taken = b.new_label()
    b.brcond(b.setcond(Cond.NE, b.ld(I64, at(0)), 0), taken)
    b.goto_tb(1, Hole("next_pc", I64))
    b.label(taken)
    b.goto_tb(0, Hole("target", I64))
    c = start()
    c.exit(ExitReason.HALT, Hole("next_pc", I64))
    d = start()
    d.raise_(14, d.ld(I64, at(0)))
    jcc, halt, fault = compile_all(compiler, b.block, c.block, d.block)
    assert jcc.uses_exits == (0, 1)
    assert {r.index for r in jcc.relocs if r.symbol is SymbolKind.EXIT} == {0, 1}
    assert jcc.hot_size == len(jcc.code)
    stub = fixed_stencils(compiler)["exit_stub"]
    for value in (0, 1):
        machine = Machine()
        put(machine, 0, value)
        stubs = [machine.lay([(stub, {"target": 0x1000 + n, "imm": PC + n})]) for n in range(2)]
        run(machine, (jcc, {"next_pc": 1, "target": 2}), exits=stubs)
        assert machine.view.get("pc") == 0x1000 + (not value)
        assert machine.view.get("exit_slot") == PC + (not value)
        assert machine.view.get("exit_reason") == ExitReason.CHAIN
    machine = Machine()
    run(machine, (halt, {"next_pc": 77}))
    assert (machine.view.get("pc"), machine.view.get("exit_reason")) == (77, ExitReason.HALT)
    machine = Machine()
    put(machine, 0, 6)
    run(machine, (fault, {}))
    names = ("pc", "exit_reason", "exception_index", "error_code", "exception")
    assert [machine.view.get(n) for n in names] == [PC, ExitReason.EXCEPTION, 14, 6, 1]


def test_indirect_exit_through_the_jump_cache(compiler: StencilCompiler) -> None:
    b = start()
    b.goto_ptr(b.ld(I64, at(0)))
    c = start()
    c.st(at(1), c.const(I64, 5))
    jump, target = compile_all(compiler, b.block, c.block)
    machine = Machine()
    put(machine, 0, PC)
    run(machine, (jump, {}))
    assert (machine.view.get("pc"), machine.view.get("exit_reason")) == (PC, ExitReason.LOOKUP)
    assert get(machine, 1) == 0
    machine.jump_cache(PC, machine.lay([(target, {})]))
    run(machine, (jump, {}))
    assert get(machine, 1) == 5


def test_block_head_sees_an_exit_request(compiler: StencilCompiler) -> None:
    head = fixed_stencils(compiler)["block_head"]
    b = start()
    b.st(at(0), b.add(b.ld(I64, at(0)), 1))
    (count,) = compile_all(compiler, b.block)
    machine = Machine()
    run(machine, (head, {}), (count, {}))
    assert get(machine, 0) == 1
    machine.view.set("exit_request", 1)
    run(machine, (head, {}), (count, {}))
    assert get(machine, 0) == 1
    assert (machine.view.get("pc"), machine.view.get("exit_reason")) == (PC, ExitReason.INTERRUPT)


def test_every_relocation_is_inside_its_part(compiler: StencilCompiler) -> None:
    b = start()
    gva = b.ld(I64, reg(0))
    b.qemu_st(gva, b.add(b.qemu_ld(I64, gva, MemOp(8)), Hole("imm", I64)), MemOp(8))
    (stencil,) = compile_all(compiler, b.block)
    assert 0 < stencil.hot_size < len(stencil.code)
    for r in stencil.relocs:
        assert 0 <= r.offset < len(stencil.code)
        assert not r.offset < stencil.hot_size < r.offset + 1
    assert {HoleSlot(r.index) for r in stencil.relocs if r.symbol is SymbolKind.HOLE} == {
        HoleSlot.PC,
        HoleSlot.IMM,
        HoleSlot.R0,
    }


def test_gates_switch_the_floating_point_modes() -> None:
    """mxcsr_get sees the guest's from JIT code; a function called through callout has the default; both come back."""
    seen: list[int] = []
    entry = ctypes.CFUNCTYPE(ctypes.c_int64)(gates()["mxcsr_get"])

    def target(kind: int, env: int, a: int, b: int, c: int) -> int:
        seen.append(entry())
        return kind + 10 * env + 100 * a + 1000 * b + 10000 * c

    i64 = ctypes.c_int64
    callback = ctypes.CFUNCTYPE(i64, i64, i64, i64, i64, i64)(target)
    callout = ctypes.CFUNCTYPE(i64, i64, i64, i64, i64, i64, i64)(gates()["callout"])
    machine = Machine()
    machine.view.set("host_mxcsr", 0x7F80)

    def helper(env: int) -> None:
        seen.append(entry())
        assert callout(ctypes.cast(callback, ctypes.c_void_p).value, 1, 2, 3, 4, 5) == 54321
        seen.append(entry())

    machine.helper("helper_probe", helper, None)
    b = start()
    b.call_void(HelperDecl("probe", (), None, Effect.SIDE))
    (stencil,) = compile_all(StencilCompiler(), b.block)
    before = entry()
    run(machine, (stencil, {}))
    assert entry() == before
    assert [x & ~0x3F for x in seen] == [0x7F80, 0x1F80, 0x7F80]
