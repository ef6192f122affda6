"""Legacy code with segment bases: operands, strings, XLAT and the stack add them and wrap to 32 bits."""

import pytest

from frontends.x86.frontend import X86Frontend
from frontends.x86.state import STATE, Mode, Reg, Seg
from tcg.exec.forms import HoleSlot, Variant
from tcg.ir.builder import Builder
from tcg.ir.interp import FlatMemory, Outcome, run

MODE = Mode.CODE32 | Mode.STACK32 | Mode.PROTECTED | Mode.SEGMENTED
RAM, SIZE = 0x100, 0x600
BASES = {Seg.DS: 0x100, Seg.ES: 0x200, Seg.SS: 0x300, Seg.FS: 0x400, Seg.GS: 0xFFFF_FF00}


class Machine:
    """Flat RAM whose byte at address a is a & 0xFF."""

    def __init__(self, frontend: X86Frontend, code: str, mode: int, regs: dict[Reg, int]) -> None:
        self.frontend, self.mode = frontend, mode
        self.code = bytes.fromhex(code)
        self.env = bytearray(STATE.size)
        self.ram = FlatMemory(bytearray(i & 0xFF for i in range(RAM, RAM + SIZE)), RAM)
        self.put("df", 1)
        self.put("cc_op", 1)
        for seg, base in BASES.items():
            self.put("seg_base", base, seg)
        for reg, value in regs.items():
            self.put("regs", value, reg)

    def put(self, name: str, value: int, index: int = 0) -> None:
        at, size = STATE.offset(name, index), STATE.fields[name].size
        self.env[at : at + size] = value.to_bytes(size, "little")

    def reg(self, reg: Reg) -> int:
        at = STATE.offset("regs", reg)
        return int.from_bytes(self.env[at : at + 8], "little")

    def run(self) -> Outcome:
        pattern = self.frontend.decode(self.code.ljust(15, b"\x90"), 0x1000, self.mode)
        builder = Builder()
        self.frontend.emit(pattern.form, Variant(), builder)
        at, size = pattern.disp
        holes = {"pc": 0x1000, "next_pc": 0x1000 + pattern.length}
        holes["disp"] = int.from_bytes(self.code[at : at + size], "little", signed=True)
        for i, value in enumerate(pattern.regs):
            holes[HoleSlot(HoleSlot.R0 + i).name.lower()] = value
        return run(builder.block, self.env, self.ram, {}, holes)


@pytest.fixture(scope="module")
def frontend() -> X86Frontend:
    return X86Frontend()


@pytest.mark.parametrize(
    ("code", "address"),
    [
        ("8a4310", 0x100 + 0x50),  # mov al, [ebx+16]
        ("268a4310", 0x200 + 0x50),
        ("648a4310", 0x400 + 0x50),
        ("8a4500", 0x300 + 0x60),  # mov al, [ebp]
        ("3e8a4500", 0x100 + 0x60),
        ("a020000000", 0x100 + 0x20),  # mov al, [0x20]
        ("d7", 0x100 + 0x40 + 0x05),  # xlat
        ("26d7", 0x200 + 0x40 + 0x05),
        ("ac", 0x100 + 0x70),  # lodsb
        ("64ac", 0x400 + 0x70),
        ("678a07", 0x100 + 0x40),  # mov al, [bx]
    ],
)
def test_loads(frontend: X86Frontend, code: str, address: int) -> None:
    machine = Machine(frontend, code, MODE, {Reg.RAX: 5, Reg.RBX: 0x40, Reg.RBP: 0x60, Reg.RSI: 0x70})
    assert machine.run().kind == "next"
    assert machine.reg(Reg.RAX) & 0xFF == address & 0xFF


def test_the_sum_wraps_to_32_bits(frontend: X86Frontend) -> None:
    machine = Machine(frontend, "658a4310", MODE, {Reg.RBX: 0x2F7})  # gs base 0xFFFFFF00
    assert machine.run().kind == "next"
    assert machine.reg(Reg.RAX) == 0x207 & 0xFF


def test_stack(frontend: X86Frontend) -> None:
    machine = Machine(frontend, "50", MODE, {Reg.RAX: 0x12345678, Reg.RSP: 0x80})  # push eax
    machine.run()
    assert machine.reg(Reg.RSP) == 0x7C
    assert machine.ram.data[0x300 + 0x7C - RAM :][:4] == bytes.fromhex("78563412")


def test_sixteen_bit_stack(frontend: X86Frontend) -> None:
    """Without SS.B the stack pointer is SP; the upper half of ESP stays."""
    machine = Machine(frontend, "50", MODE & ~Mode.STACK32, {Reg.RAX: 0x12345678, Reg.RSP: 0x5555_0080})
    machine.run()
    assert machine.reg(Reg.RSP) == 0x5555_007C
    assert machine.ram.data[0x300 + 0x7C - RAM :][:4] == bytes.fromhex("78563412")


def test_moves_between_segments(frontend: X86Frontend) -> None:
    machine = Machine(frontend, "64a4", MODE, {Reg.RSI: 0x11, Reg.RDI: 0x22})  # movsb es:[edi], fs:[esi]
    machine.run()
    assert machine.ram.data[0x200 + 0x22 - RAM] == 0x11
    assert (machine.reg(Reg.RSI), machine.reg(Reg.RDI)) == (0x12, 0x23)


def test_flat_long_mode_ignores_the_bases(frontend: X86Frontend) -> None:
    machine = Machine(frontend, "8a4310", Mode.CODE64 | Mode.PROTECTED, {Reg.RBX: 0x140})
    machine.run()
    assert machine.reg(Reg.RAX) == 0x50
