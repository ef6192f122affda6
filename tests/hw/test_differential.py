"""Random accesses to our q35 and to the installed QEMU's, both as reset leaves them with time standing still.

Where QEMU departs from the data sheet we follow the data sheet, and the scripts below keep away from it:

* 8042: bit 3 of the status (last write was a command) is constant in QEMU; the keyboard acknowledges command 0x00
  there, the mouse does not refuse unknown ones.
* 8254: QEMU has no BCD, returns modes 6 and 7 unfolded, does not force an odd count of mode 3 even, and has OUT of
  mode 2 low where it is high.
* 16550: the modem status' delta bits are not set by loopback in QEMU.
* HPET: FSB_EN is writable in QEMU without the capability; what the upper half of a comparator reads as in 32-bit mode.
* I/O APIC: reserved bits of redirection entries are writable in QEMU.
* PCI: reserved configuration bytes and bits are writable in QEMU.
"""

from __future__ import annotations

import calendar
import random
from collections.abc import Callable

import pytest
from board import Board
from qtest import QEMU, QTest

from hw.machines.q35 import Q35Config
from hw.timer.mc146818 import RtcClock, RtcConfig

pytestmark = pytest.mark.skipif(QEMU is None, reason="qemu-system-x86_64 is not installed")

START = calendar.timegm((2026, 1, 2, 3, 4, 5))
STEPS = 300


class Pair:
    """The same accesses to both machines; what is read must be equal under a mask."""

    def __init__(self, qemu: QTest, seed: int) -> None:
        self.qemu = qemu
        self.board = Board(config=Q35Config(firmware=True, rtc=RtcConfig(START, RtcClock.VM)))
        self.rng = random.Random(seed)
        self.history: list[str] = []

    def out(self, port: int, value: int, size: int = 1) -> None:
        self.history.append(f"out {port:#x} <- {value:#x} ({size})")
        self.board.ports.write(port, size, value)
        self.qemu.port_write(port, size, value)

    def compare(self, port: int, size: int = 1, mask: int = -1) -> int:
        ours = self.board.ports.read(port, size)
        theirs = self.qemu.port_read(port, size)
        self.history.append(f"in {port:#x} ({size}): {ours:#x}, QEMU {theirs:#x}")
        assert ours & mask == theirs & mask, "\n".join(self.history[-30:])
        return ours

    def store(self, gpa: int, value: int, size: int = 4) -> None:
        self.history.append(f"write {gpa:#x} <- {value:#x} ({size})")
        self.board.memory.mmio_write(gpa, size, value)
        self.qemu.memory_write(gpa, size, value)

    def compare_memory(self, gpa: int, size: int = 4, mask: int = -1) -> None:
        ours = self.board.memory.mmio_read(gpa, size)
        theirs = self.qemu.memory_read(gpa, size)
        self.history.append(f"read {gpa:#x} ({size}): {ours:#x}, QEMU {theirs:#x}")
        assert ours & mask == theirs & mask, "\n".join(self.history[-30:])


def pic(pair: Pair) -> None:
    rng = pair.rng
    port = rng.choice((0x20, 0x21, 0xA0, 0xA1, 0x4D0, 0x4D1))
    commands = (0x11, 0x0A, 0x0B, 0x0C, 0x20, 0x60, 0x61, 0x62, 0x68, 0x48, 0xA0, 0xC1)
    if rng.random() < 0.5:
        pair.out(port, rng.choice(commands) if rng.random() < 0.3 else rng.getrandbits(8))
    else:
        pair.compare(port)


def uart(pair: Pair) -> None:
    rng = pair.rng
    offset = rng.randrange(8)
    if rng.random() < 0.5:
        value = rng.getrandbits(8)
        pair.out(0x3F8 + offset, value & ~0x10 if offset == 4 else value)
    else:
        pair.compare(0x3F8 + offset, mask=0xF0 if offset == 6 else 0xFF)


def i8042(pair: Pair) -> None:
    rng = pair.rng
    if rng.random() < 0.5:
        command = rng.choice((0x20, 0x60, 0xA7, 0xA8, 0xA9, 0xAA, 0xAB, 0xAD, 0xAE, 0xC0, 0xD0, 0xD2, 0xD3, 0xD4, 0xF1))
        pair.out(0x64, command)
        mouse = (0xE6, 0xE7, 0xE9, 0xEA, 0xEB, 0xF2, 0xF4, 0xF5, 0xF6, 0xFF, 0xE8, 0xF3)
        parameters = {0x60: (0x61, 0x65, 0x43, 0x03, 0x00), 0xD2: (0x12, 0xFA), 0xD3: (0x5A,), 0xD4: mouse}
        if command in parameters:
            parameter = rng.choice(parameters[command])
            pair.out(0x60, parameter)
            drain(pair)
            if command == 0xD4 and parameter in (0xE8, 0xF3):
                pair.out(0x64, 0xD4)
                pair.out(0x60, rng.choice((200, 100, 80, 2)))
    else:
        command = rng.choice((0xED, 0xEE, 0xF2, 0xF3, 0xF4, 0xF5, 0xF6, 0xFF, 0x47))
        pair.out(0x60, command)
        if command in (0xED, 0xF3):
            drain(pair)
            pair.out(0x60, rng.getrandbits(3))
    drain(pair)
    pair.compare(0x60)


def drain(pair: Pair) -> None:
    while pair.compare(0x64, mask=0xF7) & 1:
        pair.compare(0x60)


def rtc(pair: Pair) -> None:
    rng = pair.rng
    values = {0x0A: (0x26, 0x02, 0x22, 0x06), 0x0B: (0x02, 0x82), 0x32: (0x20,), 0x37: (0x20,), 0x50: range(256)}
    index = rng.choice((*range(14), 0x32, 0x37, 0x50))
    pair.out(0x70, index)
    if rng.random() < 0.5 and index:  # writing the seconds restarts QEMU's second elsewhere
        pair.out(0x71, rng.choice(values.get(index, (0x11, 0x12, 0x09, 0x08))))
    pair.compare(0x71)


def pit(pair: Pair) -> None:
    rng = pair.rng
    counter = rng.randrange(3)
    port = 0x40 + counter
    action = rng.random()
    if action < 0.2:
        access, mode = rng.randrange(1, 4), rng.randrange(6)
        pair.out(0x43, counter << 6 | access << 4 | mode << 1)
        for _ in range(2 if access == 3 else 1):
            pair.out(port, rng.getrandbits(8) & 0xFE)
    elif action < 0.3:
        # A latched count is read at once: reprogramming would release it here, but not in QEMU.
        pair.out(0x43, rng.choice((counter << 6, 0xD0 | 2 << counter)))
        pair.compare(port)
        if pair.board.pit.counters[counter].access == 3:
            pair.compare(port)
    else:
        pair.compare(port)


# Bits of a configuration dword that the data sheets define, by (device << 11 | register).
CONFIG_MASKS = {
    0x00: 0xFFFF_FFFF,
    0x08: 0xFFFF_FFFF,
    0x2C: 0xFFFF_FFFF,
    0x50: 0xFFFF,
    0x64: 0xF,
    0x04: 0xFFFF_FFBF,  # PERE: writable in the data sheet
    0x3C: 0xFFFF,
    0x60: 0xF000_0007,
    0x90: 0x3333_3330,
    0x94: 0x33_3333,
    0x9C: 0x00FF_FF00,
    0xF800: 0xFFFF_FFFF,
    0xF804: 0xFFFF_FFBF,
    0xF808: 0xFFFF_FFFF,
    0xF80C: 0x00FF_0000,
    0xF82C: 0xFFFF_FFFF,
    0xF83C: 0xFFFF,
    0xF840: 0xFFFF_FFFF,
    0xF860: 0x8F8F_8F8F,
    0xF868: 0x8F8F_8F8F,
    0x1000: 0xFFFF_FFFF,
}


def pci(pair: Pair) -> None:
    rng = pair.rng
    address, mask = rng.choice(list(CONFIG_MASKS.items()))
    pair.out(0xCF8, 0x8000_0000 | address, 4)
    size = rng.choice((1, 2, 4))
    offset = rng.randrange(0, 4, size)
    if rng.random() < 0.5 and address not in (0xF840,):
        pair.out(0xCFC + offset, rng.getrandbits(8 * size), size)
    pair.compare(0xCFC + offset, size, mask >> 8 * offset)


def fw_cfg(pair: Pair) -> None:
    rng = pair.rng
    if rng.random() < 0.2:
        pair.out(0x510, rng.choice((0x00, 0x01, 0x05, 0x0F, 0x7777)), 2)
    elif rng.random() < 0.2:
        pair.compare(rng.choice((0x514, 0x518)), 4)
    else:
        pair.compare(rng.choice((0x510, 0x511)))


def hpet(pair: Pair) -> None:
    rng = pair.rng
    size = rng.choice((4, 8))
    timer = 0x100 + 0x20 * rng.randrange(3)
    offset = rng.choice((0x00, 0x10, 0x20, 0xF0, timer, timer + 8)) + (0 if size == 8 else rng.choice((0, 4)))
    if rng.random() < 0.5:
        value = rng.getrandbits(8 * size)
        # The counter must stand still; what periodic and 32-bit mode make of old comparators is not specified.
        if offset == 0x10 or (offset >= 0x100 and offset & 0x1F == 0):
            value &= ~0x410B
        pair.store(0xFED0_0000 + offset, value, size)
    else:
        pair.compare_memory(0xFED0_0000 + offset, size)


def ioapic(pair: Pair) -> None:
    rng = pair.rng
    index = rng.choice((0, 1, 2, rng.randrange(0x10, 0x40)))
    pair.store(0xFEC0_0000, index)
    if rng.random() < 0.5:
        pair.store(0xFEC0_0010, rng.getrandbits(32) | 1 << 16)
    pair.compare_memory(0xFEC0_0010, mask=-1 if index < 0x10 else 0xFF00_0000 if index & 1 else 0x1_FFFF)


@pytest.mark.parametrize("seed", (1, 2, 3))
@pytest.mark.parametrize("step", (pic, uart, i8042, rtc, pit, pci, fw_cfg, hpet, ioapic))
def test_random_accesses_agree_with_qemu(step: Callable[[Pair], None], seed: int) -> None:
    print(f"{step.__name__}, seed {seed}")
    with QTest("-rtc", "base=2026-01-02T03:04:05,clock=vm") as qemu:
        pair = Pair(qemu, seed)
        if step is i8042:  # the power-on resolution differs: 4 counts/mm in the book
            pair.out(0x64, 0xD4)
            pair.out(0x60, 0xFF)
            drain(pair)
        for _ in range(STEPS):
            step(pair)
