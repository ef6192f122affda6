"""A guest of a dozen instructions, to run the whole engine without x86: hooks in native code, a frontend, a machine.

Registers r0..r7 of 64 bits and a lazy status: `dec` leaves its result as the status, `jnz` reads it. Encodings:
    00 nop            01 rd imm32 addi   02 rd dec (sets status)   03 rel8 jnz      04 rd rs load64    05 rd rs store64
    06 rel32 jmp      07 halt            08 rs jump register       09 trap          0a rd rs store8    0b ei   0c iret
    0d rd imm64 li    0e rd rs add
"""

import ctypes
from collections.abc import Callable

from backends.llvm.gates import fixed_stencils
from backends.llvm.stencils import StencilCompiler
from tcg.exec.forms import Form, Pattern, StatusOut, Truncated, Variant
from tcg.exec.machine import NativeMachine
from tcg.exec.memory_map import Mapping
from tcg.exec.vcpu import VCpu
from tcg.ir.block import EnvRef, Hole
from tcg.ir.builder import Builder
from tcg.ir.types import I8, I32, I64, Cond, MemOp
from tcg.runtime.layout import CPU, ENV, GUEST_BASE, Callback, ExitReason, Interrupt
from tcg.runtime.memory import atomic_and32, exported, ld32, ld64, st32, st64
from tcg.runtime.object import Runtime
from tcg.runtime.registry import Recipe
from tcg.runtime.struct import field

TOY = ENV.extend(
    "ToyEnv",
    field("regs", 8, count=8),
    field("status", 8),
    field("page_table", 8, "hva of int64 by gva >> 12: gpa | PROT_*, 0: none"),
    field("vector", 8, "where exceptions and interrupts go; 0: shut down"),
    field("saved_pc", 8),
    field("enabled", 4, "interrupts"),
    field("shadow", 4, "interrupts held off for one instruction"),
    field("cause", 4),
    field("steps", 4),
    field("page_size", 8, "of every mapping, as the walk reports it (0: 4 KiB)"),
    base=GUEST_BASE,
)
PAGES = 1024
STEP_MODE = 2
_PAGE_SIZE = TOY.offset("page_size")
_PC, _CPU, _CAUSE, _STEPS = (TOY.offset(n) for n in ("pc", "cpu", "cause", "steps"))
_VECTOR, _SAVED, _ENABLED, _SHADOW = (TOY.offset(n) for n in ("vector", "saved_pc", "enabled", "shadow"))
_TABLE, _EXCEPTION, _REASON, _INDEX = (
    TOY.offset(n) for n in ("page_table", "exception", "exit_reason", "exception_index")
)
_FAULT, _REQUEST, _HALTED = TOY.offset("fault_gva"), TOY.offset("interrupt_request"), TOY.offset("halted")
_WALK_GPA, _WALK_PROT, _WALK_SIZE = (CPU.offset(n) for n in ("walk_gpa", "walk_prot", "walk_size"))
_EXCEPTION_REASON, _SHUTDOWN = int(ExitReason.EXCEPTION), int(ExitReason.SHUTDOWN)
_HARD = int(Interrupt.HARD)


@exported
def toy_translate(env: int, gva: int, access: int, mmu_index: int) -> int:
    entry = 0
    if gva >= 0 and gva >> 12 < PAGES:
        entry = ld64(ld64(env + _TABLE) + (gva >> 12) * 8)
    if entry & (1 << access) == 0:
        st64(env + _FAULT, gva)
        st32(env + _INDEX, 14)
        st32(env + _REASON, _EXCEPTION_REASON)
        st32(env + _EXCEPTION, 1)
        return 1
    cpu = ld64(env + _CPU)
    st64(cpu + _WALK_GPA, entry & -4096 | gva & 4095)
    st64(cpu + _WALK_PROT, entry & 15)
    size = ld64(env + _PAGE_SIZE)
    st64(cpu + _WALK_SIZE, size if size != 0 else 4096)
    return 0


@exported
def toy_deliver(env: int) -> int:
    if ld64(env + _VECTOR) == 0:
        st32(env + _REASON, _SHUTDOWN)
        return 1
    st64(env + _SAVED, ld64(env + _PC))
    st32(env + _CAUSE, ld32(env + _INDEX))
    st64(env + _PC, ld64(env + _VECTOR))
    return 0


@exported
def toy_take_interrupt(env: int) -> int:
    if ld32(env + _REQUEST) & _HARD == 0 or ld32(env + _ENABLED) == 0:
        return 0
    if ld32(env + _SHADOW) != 0:
        st32(env + _SHADOW, 0)
        return 2
    atomic_and32(env + _REQUEST, ~_HARD)
    st32(env + _ENABLED, 0)
    st32(env + _HALTED, 0)
    st32(env + _CAUSE, 256)
    st64(env + _SAVED, ld64(env + _PC))
    st64(env + _PC, ld64(env + _VECTOR))
    return 1


@exported
def toy_step(env: int) -> int:
    st32(env + _STEPS, ld32(env + _STEPS) + 1)
    return 0


RECIPE = Recipe(
    guest_modules=(__name__,),
    hooks={
        "guest_translate": "toy_translate",
        "guest_deliver": "toy_deliver",
        "guest_take_interrupt": "toy_take_interrupt",
        "guest_step": "toy_step",
    },
    gates="backends.llvm.gates",
)

R0 = EnvRef(0, Hole("r0", I64, 0, 65535), (0, 65536))
R1 = EnvRef(0, Hole("r1", I64, 0, 65535), (0, 65536))
STATUS = EnvRef(TOY.offset("status"))
IMM, TARGET, NEXT_PC, PC = (Hole(n, I64) for n in ("imm", "target", "next_pc", "pc"))
Q = MemOp(8)

LENGTHS = {0: 1, 1: 6, 2: 2, 3: 2, 4: 3, 5: 3, 6: 5, 7: 1, 8: 2, 9: 1, 10: 3, 11: 1, 12: 1, 13: 10, 14: 3}
ENDS = (3, 6, 7, 8, 9, 11, 12)


class ToyFrontend:
    """Decodes and emits the toy; implements tcg.exec.forms.Frontend."""

    name = "toy"
    env = TOY

    def decode(self, code: bytes, pc: int, mode: int) -> Pattern:
        op = code[0] if code[0] in LENGTHS else 9
        length = LENGTHS[op] if code[0] in LENGTHS else 1
        if len(code) < length:
            raise Truncated
        form = Form(
            op,
            f"toy{op}",
            reads_status=op == 3,
            kills_status=op == 2,
            status_out=1 if op == 2 else StatusOut.KEEP,
            ends_block=op in ENDS,
            may_fault=op in (4, 5, 7, 9, 10),
        )
        regs = {1: 1, 2: 1, 4: 2, 5: 2, 8: 1, 10: 2, 13: 1, 14: 2}.get(op, 0)
        offsets = tuple(TOY.offset("regs", code[1 + n] & 7) for n in range(regs))
        imm = {1: (2, 4), 3: (1, 1), 6: (1, 4), 13: (2, 8)}.get(op, (0, 0))
        return Pattern(form, code[: 1 + regs], length, imm=imm, regs=offsets)

    def emit(self, form: Form, variant: Variant, builder: Builder) -> None:
        b = builder
        b.insn_start(PC)
        match form.key:
            case 1:
                b.st(R0, b.add(b.ld(I64, R0), IMM))
            case 2:
                result = b.sub(b.ld(I64, R0), 1)
                b.st(R0, result)
                if variant.status_live:
                    b.st(STATUS, result)
            case 3:
                taken = b.new_label()
                b.brcond(b.setcond(Cond.NE, b.ld(I64, STATUS), 0), taken)
                b.goto_tb(1, NEXT_PC)
                b.label(taken)
                b.goto_tb(0, TARGET)
            case 4:
                b.st(R0, b.qemu_ld(I64, b.ld(I64, R1), Q))
            case 5:
                b.qemu_st(b.ld(I64, R0), b.ld(I64, R1), Q)
            case 6:
                b.goto_tb(0, TARGET)
            case 7:
                b.exit(ExitReason.HALT, NEXT_PC)
            case 8:
                b.goto_ptr(b.ld(I64, R0))
            case 9:
                b.raise_(6)
            case 10:
                b.qemu_st(b.ld(I64, R0), b.trunc(b.ld(I64, R1), I8), MemOp(1))
            case 11:
                b.st(EnvRef(_ENABLED), b.const(I32, 1))
                b.exit(ExitReason.LOOKUP, NEXT_PC)
            case 12:
                b.st(EnvRef(_ENABLED), b.const(I32, 1))
                b.exit(ExitReason.LOOKUP, b.ld(I64, EnvRef(_SAVED)))
            case 13:
                b.st(R0, IMM)
            case 14:
                b.st(R0, b.add(b.ld(I64, R0), b.ld(I64, R1)))


def signed(value: int, size: int) -> bytes:
    return (value & (1 << 8 * size) - 1).to_bytes(size, "little")


def addi(rd: int, imm: int) -> bytes:
    return bytes((1, rd)) + signed(imm, 4)


def dec(rd: int) -> bytes:
    return bytes((2, rd))


def jnz(rel: int) -> bytes:
    return b"\x03" + signed(rel, 1)


def load(rd: int, rs: int) -> bytes:
    return bytes((4, rd, rs))


def store(rd: int, rs: int) -> bytes:
    return bytes((5, rd, rs))


def store8(rd: int, rs: int) -> bytes:
    return bytes((10, rd, rs))


def jmp(rel: int) -> bytes:
    return b"\x06" + signed(rel, 4)


def jump_register(rs: int) -> bytes:
    return bytes((8, rs))


def li(rd: int, imm: int) -> bytes:
    return bytes((13, rd)) + signed(imm, 8)


def add(rd: int, rs: int) -> bytes:
    return bytes((14, rd, rs))


NOP, HALT, TRAP, EI, IRET = b"\x00", b"\x07", b"\x09", b"\x0b", b"\x0c"


class Toy:
    """A machine with RAM at gpa 0 (identity-mapped, rwx), MMIO above it, and one vCPU."""

    def __init__(self, runtime: Runtime, compiler: StencilCompiler, ram: int = 1 << 20, tb_size: int = 1 << 20) -> None:
        self.machine = NativeMachine(runtime, tb_size)
        self.frontend = ToyFrontend()
        self.compiler = compiler
        self.tables = self.machine.tables
        for name, stencil in fixed_stencils(compiler).items():
            self.tables.set_fixed(name, stencil)
        self.vcpu = VCpu(self.machine, TOY)
        self.ram = Mapping(ram)
        self.machine.set_ram([(0, ram, self.ram.hva, False)])
        self.machine.view.set("step_modes", STEP_MODE)
        self.page_table = (ctypes.c_int64 * PAGES)()
        for n in range(PAGES):
            self.page_table[n] = n << 12 | 7
        self.vcpu.env.set("page_table", ctypes.addressof(self.page_table))
        self.vcpu.env.set("host_mxcsr", 0x1F80)
        self.mmio: list[tuple[str, int, int, int]] = []
        self.on_mmio_read: Callable[[int, int], int] = lambda gpa, size: 0
        self.misses: list[int] = []
        self.vcpu.handlers.update(
            {
                Callback.PATTERN_MISS: self._pattern_miss,
                Callback.STENCIL_MISS: self._stencil_miss,
                Callback.MMIO_READ: self._mmio_read,
                Callback.MMIO_WRITE: lambda gpa, size, value: self.mmio.append(("write", gpa, size, value)) or 0,
            }
        )
        runtime.call("tlb_switch", self.vcpu.env.address, 0, 0)

    def _pattern_miss(self, hva: int, size: int, pc: int) -> int:
        code = ctypes.string_at(hva, size)
        self.misses.append(pc)
        try:
            pattern = self.frontend.decode(code, pc, self.vcpu.env.get("mode"))
        except Truncated:
            return 2
        self.tables.add_pattern(self.vcpu.env.get("mode"), pattern)
        return 1

    def _stencil_miss(self, hva: int, count: int, _c: int) -> int:
        wanted = self.tables.missing(hva, count)
        blocks = []
        for form_id, variant in wanted:
            b = Builder()
            self.frontend.emit(self.tables.form(form_id), variant, b)
            blocks.append((f"{form_id}", b.block))
        for (form_id, variant), stencil in zip(wanted, self.compiler.compile(blocks), strict=True):
            self.tables.set_stencil(form_id, variant, stencil)
        return 1

    def _mmio_read(self, gpa: int, size: int, _c: int) -> int:
        self.mmio.append(("read", gpa, size, 0))
        return self.on_mmio_read(gpa, size)

    def write(self, gpa: int, code: bytes) -> None:
        self.ram.view[gpa : gpa + len(code)] = code

    def reg(self, n: int) -> int:
        return self.vcpu.env.get("regs", n)

    def stat(self, name: str) -> int:
        from tcg.runtime.layout import STATS

        at = self.vcpu.cpu.address + CPU.offset("stats") + STATS.offset(name)
        return int(ctypes.c_uint64.from_address(at).value)

    def run(self, pc: int) -> int:
        """Run from pc until cpu_exec returns; its reason."""
        self.vcpu.env.set("pc", pc)
        self.vcpu.env.set("halted", 0)
        return self.machine.runtime.call("cpu_exec", self.vcpu.env.address)
