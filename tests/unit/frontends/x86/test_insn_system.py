"""System instructions reach the right helper with the right operands, and end their blocks when they must."""

import random

import pytest

from frontends.x86.frontend import X86Frontend
from frontends.x86.helpers import decls
from frontends.x86.state import STATE, Mode, Reg, Seg
from tcg.exec.forms import HoleSlot, Pattern, Variant
from tcg.ir.block import Block
from tcg.ir.builder import Builder
from tcg.ir.interp import FlatMemory, GuestFault, Outcome, run

LONG = Mode.CODE64 | Mode.PROTECTED
FLAT32 = Mode.CODE32 | Mode.STACK32 | Mode.PROTECTED
PC, RAM = 0x1000, 0x8000
# Only the mmu index changes, which the following code reads from env.
IN_LINE = {"x86_clac", "x86_stac"}


@pytest.fixture(scope="module")
def frontend() -> X86Frontend:
    return X86Frontend()


def block_of(frontend: X86Frontend, code: str, mode: int = LONG) -> tuple[Pattern, Block]:
    pattern = frontend.decode(bytes.fromhex(code).ljust(15, b"\x90"), PC, mode)
    builder = Builder()
    frontend.emit(pattern.form, Variant(), builder)
    return pattern, builder.block


class Machine:
    """Registers with recognisable values, a small RAM, helpers that only note their calls."""

    def __init__(self, pattern: Pattern, code: str, regs: dict[Reg, int] | None = None) -> None:
        self.env = bytearray(STATE.size)
        for reg in Reg:
            self.set("regs", 0x1111 * (reg + 1), reg)
        self.set("regs", RAM + 0x80, Reg.RSP)
        self.set("cc_op", 1)
        for reg, value in (regs or {}).items():
            self.set("regs", value, reg)
        self.ram = FlatMemory(bytearray(random.Random(1).randbytes(0x100)), RAM)
        self.calls: list[tuple[str, tuple[int, ...]]] = []
        raw = bytes.fromhex(code)
        self.holes = {"pc": PC, "next_pc": PC + pattern.length}
        for name, (at, size) in (("disp", pattern.disp), ("imm", pattern.imm), ("imm2", pattern.imm2)):
            self.holes[name] = int.from_bytes(raw[at : at + size], "little", signed=True)
        for i, value in enumerate(pattern.regs):
            self.holes[HoleSlot(HoleSlot.R0 + i).name.lower()] = value

    def set(self, name: str, value: int, index: int = 0) -> None:
        at, size = STATE.offset(name, index), STATE.fields[name].size
        self.env[at : at + size] = (value % (1 << 8 * size)).to_bytes(size, "little")

    def get(self, name: str, index: int = 0) -> int:
        at, size = STATE.offset(name, index), STATE.fields[name].size
        return int.from_bytes(self.env[at : at + size], "little")

    def run(self, block: Block, answer: int = 0x5A5A, fault: bool = False) -> Outcome:
        def note(name: str, *args: int) -> int:
            self.calls.append((name, args))
            if fault:
                raise GuestFault(13)
            return answer

        def helper(name: str) -> object:
            return lambda access, *args: note(name, *args)

        return run(block, self.env, self.ram, {n: helper(n) for n in decls.HELPERS}, self.holes)  # type: ignore[misc]


def perform(
    frontend: X86Frontend, code: str, mode: int = LONG, regs: dict[Reg, int] | None = None, fault: bool = False
) -> tuple[Machine, Outcome]:
    pattern, block = block_of(frontend, code, mode)
    machine = Machine(pattern, code, regs)
    return machine, machine.run(block, fault=fault)


@pytest.mark.parametrize(
    ("code", "helper", "args"),
    [
        ("0f22d8", "write_cr", (3, 0x1111)),
        ("440f22c0", "write_cr", (8, 0x1111)),
        ("0f23f8", "write_dr", (7, 0x1111)),
        ("8ed8", "load_seg", (Seg.DS, 0x1111)),
        ("8ee8", "load_seg", (Seg.GS, 0x1111)),
        ("0f01f8", "swapgs", ()),
        ("f3480faed0", "wrbase", (Seg.FS, 0x1111)),
        ("f30faed8", "wrbase", (Seg.GS, 0x1111)),
        ("0f013b", "invlpg", (0x4444,)),
        ("650f013b", "invlpg", (0x4444 + 0x7000,)),
        ("660f388203", "invpcid", (0x1111, 0x4444)),
        ("0f30", "wrmsr", ()),
        ("0f32", "rdmsr", ()),
        ("0f31", "rdtsc", ()),
        ("0fa2", "cpuid", ()),
        ("f4", "hlt", (PC + 1,)),
        ("0f01c8", "monitor", (0x1111,)),
        ("650f01c8", "monitor", (0x1111 + 0x7000,)),
        ("0f01c9", "mwait", (PC + 3,)),
        ("e680", "out", (0x80, 0x11, 1)),
        ("66ef", "out", (0x3333, 0x1111, 2)),
        ("0f05", "syscall", (PC + 2,)),
        ("480f07", "sysret", (8,)),
        ("48cf", "iret", (8,)),
        ("cf", "iret", (4,)),
        ("cd80", "int", (0x80, PC + 2, 0)),
        ("cc", "int", (3, PC + 1, 1)),
        ("f1", "int", (1, PC + 1, 2)),
        ("cb", "far_ret", (4, 0)),
        ("48ca0800", "far_ret", (8, 8)),
        ("0f00d0", "lldt", (0x1111,)),
        ("0f00d8", "ltr", (0x1111,)),
        ("0f01f0", "lmsw", (0x1111,)),
        ("0f06", "clts", ()),
        ("fa", "cli", ()),
        ("fb", "sti", ()),
        ("0f01cb", "stac", ()),
        ("0fae03", "fxsave", (0x4444, 0)),
        ("480fae0b", "fxrstor", (0x4444, 1)),
        ("480fc723", "xsave", (0x4444, 1, 2)),
        ("f3a4", "rep_movs", (1, 8, 0)),
        ("65f348a5", "rep_movs", (8, 8, 0x7000)),
        ("67f3ab", "rep_stos", (4, 4)),
        ("f2ae", "rep_scas", (1, 8, 1)),
        ("f3a6", "rep_cmps", (1, 8, 0, 0)),
        ("6c", "ins", (1, 8, 0)),
        ("f36f", "outs", (4, 8, 0, 1)),
    ],
)
def test_operands_reach_the_helper(frontend: X86Frontend, code: str, helper: str, args: tuple[int, ...]) -> None:
    pattern, block = block_of(frontend, code)
    machine = Machine(pattern, code)
    machine.set("seg_base", 0x7000, Seg.GS)
    machine.run(block)
    assert (f"x86_{helper}", args) in machine.calls


def test_far_branches(frontend: X86Frontend) -> None:
    machine, _ = perform(frontend, "ea112233845596", FLAT32)
    assert machine.calls == [("x86_far_jmp", (0x9655, 0x84332211, 4, PC + 7))]
    machine, _ = perform(frontend, "48ff1b", regs={Reg.RBX: RAM})
    offset, selector = (int.from_bytes(machine.ram.data[a:b], "little") for a, b in ((0, 8), (8, 10)))
    assert machine.calls == [("x86_far_call", (selector, offset, 8, PC + 3))]


def test_results_of_helpers(frontend: X86Frontend) -> None:
    machine, _ = perform(frontend, "0f20d8")  # mov rax, cr3
    assert machine.get("regs", Reg.RAX) == 0x5A5A
    machine, _ = perform(frontend, "ec")  # in al, dx
    assert machine.get("regs", Reg.RAX) == 0x115A and machine.calls == [("x86_in", (0x3333, 1))]
    machine, _ = perform(frontend, "e4f0")  # in al, 0xf0: a port number is not signed
    assert machine.calls == [("x86_in", (0xF0, 1))]
    machine, _ = perform(frontend, "f30faec1")  # rdfsbase ecx
    assert machine.get("regs", Reg.RCX) == 0x5A5A
    machine, _ = perform(frontend, "9c")  # pushfq
    assert machine.get("regs", Reg.RSP) == RAM + 0x78 and machine.ram.data[0x78:0x80] == (0x5A5A).to_bytes(8, "little")
    machine, _ = perform(frontend, "0f02c1")  # lar eax, ecx
    assert machine.calls == [("x86_lar", (0x2222, 0x1111))] and machine.get("regs", Reg.RAX) == 0x5A5A


def test_tables_are_stored_and_loaded(frontend: X86Frontend) -> None:
    pattern, block = block_of(frontend, "0f0103")  # sgdt [rbx]
    machine = Machine(pattern, "0f0103", {Reg.RBX: RAM})
    machine.set("gdt_base", 0xFFFF_8000_1234_5678)
    machine.set("gdt_limit", 0x7F)
    machine.run(block)
    assert machine.ram.data[:10].hex() == "7f00" + "7856341200" + "80ffff"
    machine, _ = perform(frontend, "0f011b", regs={Reg.RBX: RAM})  # lidt [rbx]
    data = machine.ram.data
    expected = (int.from_bytes(data[0:2], "little"), int.from_bytes(data[2:10], "little"))
    assert machine.calls == [("x86_lidt", expected)]
    machine, _ = perform(frontend, "660f011b", FLAT32, {Reg.RBX: RAM})  # a 24-bit base
    assert machine.calls == [("x86_lidt", (expected[0], int.from_bytes(data[2:5], "little")))]


@pytest.mark.parametrize("code", ["0fa1", "9d", "8ed8", "0f22c0", "ee", "ec", "f3a4", "0f01cb", "9c"])
def test_faulting_helpers_leave_the_registers(frontend: X86Frontend, code: str) -> None:
    before = Machine(*(block_of(frontend, code)[0], code))
    machine, outcome = perform(frontend, code, fault=True)
    assert outcome.kind == "fault" and outcome.pc == PC
    assert machine.env == before.env and machine.ram.data == before.ram.data


def test_interrupted_repeats_run_again(frontend: X86Frontend) -> None:
    pattern, block = block_of(frontend, "f3a4")
    outcome = Machine(pattern, "f3a4").run(block, answer=1)
    assert (outcome.kind, outcome.pc) == ("exit", PC)
    outcome = Machine(pattern, "f3a4").run(block, answer=0)
    assert (outcome.kind, outcome.pc) == ("goto_tb", PC + 2)


def test_undefined_outside_their_modes(frontend: X86Frontend) -> None:
    for code in ("0f00d0", "0f00d8", "0f02c1", "0f00e0"):  # LLDT, LTR, LAR, VERR outside protected mode
        _, outcome = perform(frontend, code, Mode.CODE32)
        assert (outcome.kind, outcome.vector) == ("raise", 6)
    _, outcome = perform(frontend, "8ec8")  # mov cs, eax
    assert (outcome.kind, outcome.vector) == ("raise", 6)


def test_blocks_end_where_state_may_change(frontend: X86Frontend) -> None:
    """Every form that calls a helper of ENDS or TRANSFERS ends its block."""
    codes = (
        "9d fb 8ed8 0f22c0 0f23f8 0f06 0f01f0 0f013b 660f388203 0f30 0f01d1 f4 0f01c9 ee 6e 6c 0fae0b 480fae2b "
        "ff2b ff1b cb cf cd80 0f05 0f07 0f34 0f35 0f01cb"
    )
    seen = set()
    for code in codes.split():
        pattern, block = block_of(frontend, code)
        called = {op.attrs["helper"].name for op in block.ops if op.name == "call"}
        seen |= called
        if called & (decls.ENDS | decls.TRANSFERS) - IN_LINE:
            assert pattern.form.ends_block, code
    missing = (decls.ENDS | decls.TRANSFERS) - IN_LINE - seen
    assert missing <= {"x86_ldmxcsr"}, missing
