"""The monitor's view of guest memory: page tables of each kind, formats, and what cannot be read."""

from __future__ import annotations

import struct
from collections.abc import Iterator

import pytest

from frontends.x86.state import STATE, Mode, Reg
from hw.core.bus import AddressSpace
from hw.core.log import GuestLog
from tcg.cli.examine import ExamineError, Examiner
from tcg.cli.x86_debug import read_virtual, register, translate
from tcg.exec.memory_map import Mapping
from tcg.runtime.layout import ENV_LIMIT
from tcg.runtime.struct import View

MIB = 1 << 20
PAGING, PAE, PSE, LMA = 0x8000_0001, 1 << 5, 1 << 4, 1 << 10
PRESENT, LARGE = 3, 0x83


class Guest:
    """A vCPU's state and 4 MiB of RAM from 0 on, with a device behind it."""

    def __init__(self) -> None:
        self.memory = Mapping(ENV_LIMIT)
        self.env = View(STATE, self.memory.hva)
        self.ram = bytearray(4 * MIB)
        self.space = AddressSpace(memoryview(self.ram), GuestLog())
        self.space.map_ram(0, len(self.ram), 0, "ram")
        self.space.map_mmio(0xFEC0_0000, 0x1000, Untouchable(), "device")
        self.env.set("mode", Mode.PROTECTED | Mode.CODE64)
        self.examiner = Examiner(self.env, self.space)

    def table(self, gpa: int, entries: dict[int, int], size: int = 8) -> None:
        for index, entry in entries.items():
            struct.pack_into("<Q" if size == 8 else "<I", self.ram, gpa + size * index, entry)

    def read(self, gpa: int, length: int) -> bytes | None:
        return bytes(self.ram[gpa : gpa + length]) if gpa + length <= len(self.ram) else None

    def where(self, gva: int) -> int | None:
        return translate(self.env, self.read, gva)

    def ask(self, text: str, *, physical: bool = False) -> str:
        return self.examiner.examine(text.split(), physical=physical)


class Untouchable:
    """A device that no debugger may read."""

    def mmio_read(self, offset: int, size: int) -> int:
        raise AssertionError("read")

    def mmio_write(self, offset: int, size: int, value: int) -> None:
        raise AssertionError("written")


@pytest.fixture
def guest() -> Iterator[Guest]:
    yield Guest()


def test_no_paging_is_identity(guest: Guest) -> None:
    assert guest.where(0x1234_5678) == 0x1234_5678


def test_four_levels(guest: Guest) -> None:
    guest.env.set("cr0", PAGING)
    guest.env.set("cr4", PAE)
    guest.env.set("efer", LMA)
    guest.env.set("cr3", 0x1005)  # a PCID in the low bits is no address
    guest.table(0x1000, {0: 0x2000 | PRESENT, 511: 0x2000 | PRESENT})
    guest.table(0x2000, {0: 0x3000 | PRESENT, 1: 0x4000_0000 | LARGE, 510: 0x3000 | PRESENT})
    guest.table(0x3000, {0: 0x4000 | PRESENT, 1: 0x20_0000 | LARGE})
    guest.table(0x4000, {5: 0x7000 | PRESENT | 1 << 63, 6: 0x8000})
    assert guest.where(0x5ABC) == 0x7ABC
    assert guest.where(0x6ABC) is None, "not present"
    assert guest.where(0x20_0123) == 0x20_0123, "2 MiB"
    assert guest.where(0x5234_5678) == 0x5234_5678, "1 GiB"
    assert guest.where(0xFFFF_FFFF_8000_5ABC) == 0x7ABC
    assert guest.where(0x8000_0000_0000) is None, "not canonical"
    assert guest.where(0x8_0000_0000_0000) is None


def test_pae(guest: Guest) -> None:
    guest.env.set("cr0", PAGING)
    guest.env.set("cr4", PAE)
    guest.env.set("cr3", 0x1020)
    guest.table(0x1020, {0: 0x2001, 3: 0x2001})
    guest.table(0x2000, {0: 0x3000 | PRESENT, 1: 0x20_0000 | LARGE})
    guest.table(0x3000, {1: 0x9000 | PRESENT})
    assert guest.where(0x1FFF) == 0x9FFF
    assert guest.where(0xC020_0010) == 0x20_0010
    assert guest.where(0x4000_0000) is None


def test_two_levels(guest: Guest) -> None:
    guest.env.set("cr0", PAGING)
    guest.env.set("cr4", PSE)
    guest.env.set("cr3", 0x1000)
    guest.table(0x1000, {0: 0x2000 | PRESENT, 1: 0x40_0000 | LARGE, 2: 0x80_0000 | LARGE | 1 << 13}, 4)
    guest.table(0x2000, {3: 0xA000 | PRESENT}, 4)
    assert guest.where(0x3456) == 0xA456
    assert guest.where(0x41_2345) == 0x41_2345
    assert guest.where(0x80_0001) == 0x1_0080_0001, "PSE-36"
    guest.env.set("cr4", 0)
    assert guest.where(0x41_2345) is None, "without PSE the entry names a table, beyond RAM"


def test_tables_beyond_ram_lead_nowhere(guest: Guest) -> None:
    guest.env.set("cr0", PAGING)
    guest.env.set("efer", LMA)
    guest.env.set("cr3", 0xFFFF_F000)
    assert guest.where(0x1000) is None


def test_reading_stops_where_nothing_is(guest: Guest) -> None:
    assert len(read_virtual(guest.env, guest.read, 4 * MIB - 10, 100)) == 10


def test_formats(guest: Guest) -> None:
    guest.ram[0x1000:0x1010] = bytes(range(0xF8, 0x100)) + b"A'\\\n\x80\0zz"
    assert guest.ask("/2xg 0x1000") == "0000000000001000: 0xfffefdfcfbfaf9f8 0x7a7a00800a5c2741"
    assert guest.ask("/2 0x1000") == "0000000000001000: 0xfffefdfcfbfaf9f8 0x7a7a00800a5c2741", "as before"
    assert guest.ask("/1db 0x1000").split() == ["0000000000001000:", "-8"]
    assert guest.ask("/1ub 0x1000").split() == ["0000000000001000:", "248"]
    assert guest.ask("/1oh 0x1000") == "0000000000001000: 0174770"
    assert guest.ask("/8c 0x1008") == r"0000000000001008: 'A' '\'' '\\' '\n' '\x80' '\x00' 'z' 'z'"


def test_lines_hold_sixteen_bytes(guest: Guest) -> None:
    lines = guest.ask("/9xw 0x2000").splitlines()
    assert [line.split()[0] for line in lines] == ["0000000000002000:", "0000000000002010:", "0000000000002020:"]
    assert [len(line.split()) - 1 for line in lines] == [4, 4, 1]


def test_instructions(guest: Guest) -> None:
    guest.ram[0x3000:0x3004] = b"\x48\x89\xc3\x90"
    assert guest.ask("/2i 0x3000").splitlines() == [
        "0x00003000:  48 89 c3                 movq     %rax, %rbx",
        "0x00003003:  90                       nop      ",
    ]


def test_sums_with_registers(guest: Guest) -> None:
    guest.env.set("regs", 0x1000, Reg.RSP)
    guest.env.set("pc", 0x2000)
    guest.ram[0x1008] = 0x55
    assert guest.ask("/1xb $rsp+8") == "0000000000001008: 0x55"
    assert guest.ask("/1xb $pc-0xff8") == "0000000000001008: 0x55"
    assert register(guest.env, "esp") == 0x1000 and register(guest.env, "nonsense") is None


def test_physical_memory(guest: Guest) -> None:
    guest.env.set("cr0", PAGING)
    guest.env.set("efer", LMA)
    guest.ram[0x1000] = 0x77
    assert guest.ask("/1xb 0x1000", physical=True) == "0000000000001000: 0x77"
    assert guest.ask("/1xb 0x1000").endswith("Cannot access memory")


def test_devices_are_not_read(guest: Guest) -> None:
    assert guest.ask("/4xw 0xfec00000", physical=True) == "00000000fec00000: Cannot access memory"
    assert guest.ask("/2i 0xfec00000", physical=True) == "00000000fec00000: Cannot access memory"


@pytest.mark.parametrize("text", ["", "/4xw", "/0xw 1", "/99999999xw 1", "/4q 1", "/x4 1", "nonsense", "$nonsense"])
def test_what_makes_no_sense(guest: Guest, text: str) -> None:
    with pytest.raises(ExamineError):
        guest.ask(text)
