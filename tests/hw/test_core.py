"""hw/core: register maps, lines, clocks and timers, the two address spaces."""

from __future__ import annotations

import threading

import pytest

from hw.core.bus import AddressSpace, Kind, PortSpace
from hw.core.clock import FakeClock, HostClock, TimerQueue
from hw.core.irq import IrqLine, SharedLine, fan_out
from hw.core.log import GuestLog
from hw.core.regs import RC, RO, RW, W1C, W1S, Field, Reg, RegFile, RegMap, reserved

MAP = RegMap(
    16,
    (
        Reg(0, "CTRL", 4, (Field("A", 8, RW, 0x5A), Field("B", 8, RO, 0xC3), Field("C", 8, W1C), Field("D", 8, W1S))),
        Reg(4, "STAT", 2, (Field("E", 4, RC, 0xF), reserved(12))),
        Reg(8, "WIDE", 8),
    ),
)


def test_widths_must_add_up() -> None:
    with pytest.raises(ValueError, match="7 bits"):
        Reg(0, "R", 1, (Field("A", 7),))
    with pytest.raises(ValueError, match="overlap"):
        RegMap(8, (Reg(0, "A", 4), Reg(3, "B", 1)))
    with pytest.raises(ValueError, match="does not fit"):
        Field("A", 2, RW, 4)


def test_policies() -> None:
    regs = RegFile(MAP)
    assert regs.read(0, 4) == 0x0000C35A
    regs.set("CTRL", 0x00FF_C35A)
    regs.write(0, 4, 0x810F_0011)
    assert regs.read(0, 4) == 0x81F0_C311
    regs.write(3, 1, 0x02)
    assert regs.read(3, 1) == 0x83
    assert regs.read(4, 2) == 0xF
    assert regs.read(4, 2) == 0
    regs.reset()
    assert regs.read(0, 4) == 0x0000C35A


def test_hooks_see_what_was_written_at_its_place() -> None:
    regs = RegFile(MAP)
    seen: list[tuple[int, int]] = []
    regs.on_write["WIDE"] = lambda old, written: seen.append((old, written))
    regs.write(10, 2, 0xABCD)
    regs.write(6, 4, 0x1234_5678)  # crosses into the register
    assert seen == [(0, 0xABCD_0000), (0xABCD_0000, 0x1234)]
    assert regs.get("WIDE") == 0xABCD_1234
    regs.on_read["WIDE"] = lambda: 7
    assert regs.read(8, 8) == 7


def test_accesses_beyond_the_block_read_zero() -> None:
    regs = RegFile(MAP)
    regs.write(14, 4, 0xFFFF_FFFF)
    assert regs.read(14, 4) == 0xFFFF
    assert regs.read(100, 4) == 0


def test_lines() -> None:
    heard: list[bool] = []
    line = IrqLine(fan_out((heard.append, heard.append)))
    line.set(True)
    line.set(True)
    line.pulse()
    assert heard == [True, True, False, False]
    shared = SharedLine(heard.append)
    a, b = shared.input(), shared.input()
    heard.clear()
    a.set(True)
    b.set(True)
    a.set(False)
    assert heard == [True]
    b.set(False)
    assert heard == [True, False]


def test_timers_run_in_order_and_can_move() -> None:
    clock, timers, ran = FakeClock(), TimerQueue(), []
    timers.schedule(30, lambda: ran.append("c"))
    a = timers.schedule(10, lambda: ran.append("a"))
    b = timers.schedule(20, lambda: ran.append("b"))
    a.mod(25)
    b.cancel()
    assert timers.next_deadline_ns() == 25
    clock.advance(100, timers)
    assert ran == ["a", "c"]
    assert timers.next_deadline_ns() is None


def test_a_timer_may_arm_itself_and_does_not_fill_the_heap() -> None:
    timers = TimerQueue()
    ticks = []

    def tick() -> None:
        ticks.append(timer)
        timer.mod(len(ticks) * 10)

    timer = timers.schedule(0, tick)
    timers.run_expired(95)
    assert len(ticks) == 10
    for deadline in range(10_000):
        timer.mod(deadline)
    assert len(timers._heap) <= 65


def test_only_an_earlier_head_wakes() -> None:
    woken: list[int] = []
    timers = TimerQueue(lambda: woken.append(1))
    timer = timers.schedule(100, lambda: None)
    timers.schedule(200, lambda: None)
    assert len(woken) == 1
    timer.mod(50)
    assert len(woken) == 2


def test_timers_from_many_threads() -> None:
    timers = TimerQueue()
    ran: list[int] = []

    def arm(start: int) -> None:
        for i in range(300):
            timers.schedule(start + i, lambda: ran.append(1))

    threads = [threading.Thread(target=arm, args=(i * 7,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    timers.run_expired(10_000)
    assert len(ran) == 1200


def test_a_paused_host_clock_stands_still() -> None:
    clock = HostClock(tsc_hz=3_000_000_000)
    clock.pause()
    before = clock.now_ns()
    assert clock.now_ns() == before
    assert clock.tsc() == before * 3
    clock.resume()
    assert clock.now_ns() >= before


class Recorder:
    """A device that remembers accesses and answers with the offset."""

    def __init__(self) -> None:
        self.log: list[tuple[int, ...]] = []

    def pio_read(self, offset: int, size: int) -> int:
        self.log.append((offset, size))
        return (0x10 + offset) & ((1 << 8 * size) - 1)

    def pio_write(self, offset: int, size: int, value: int) -> None:
        self.log.append((offset, size, value))

    mmio_read, mmio_write = pio_read, pio_write


def test_ports_split_and_overlay() -> None:
    log = GuestLog()
    ports = PortSpace(log)
    wide, narrow = Recorder(), Recorder()
    ports.map(0xCF8, 4, wide, "wide", max_size=4)
    window = ports.map(0xCF9, 1, narrow, "narrow", priority=1)
    assert ports.read(0xCF8, 4) == 0x10
    assert ports.read(0xCF9, 1) == 0x10
    assert narrow.log == [(0, 1)]
    ports.write(0xCF9, 2, 0x1234)
    assert narrow.log[-1] == (0, 1, 0x34)
    assert wide.log[-1] == (2, 1, 0x12)
    ports.unmap(window)
    assert ports.read(0xCF9, 1) == 0x11
    assert ports.read(0x1234, 2) == 0xFFFF
    assert log.unimplemented["port 0x1234"] == 1
    assert ports.read(0xFFFF, 4) == 0xFFFF_FFFF


def test_regions_flatten_by_priority() -> None:
    log = GuestLog()
    memory = AddressSpace(memoryview(bytearray(range(256)) * 64), log)
    device = Recorder()
    views = []
    memory.listeners.append(views.append)
    with memory.transaction():
        memory.map_ram(0, 0x2000, 0, "ram")
        memory.map_ram(0x2000, 0x1000, 0x2000, "ram")
        hole = memory.map_mmio(0x1000, 0x100, device, "device", priority=1)
        memory.map_rom(0x10000, 0x100, 0x100, "rom")
    assert len(views) == 1
    assert [(r.gpa, r.size, r.kind, r.ram_offset) for r in memory.view] == [
        (0, 0x1000, Kind.RAM, 0),
        (0x1000, 0x100, Kind.MMIO, 0),
        (0x1100, 0x1F00, Kind.RAM, 0x1100),
        (0x10000, 0x100, Kind.ROM, 0x100),
    ]
    assert memory.mmio_read(0x10, 2) == 0x1110
    memory.mmio_read(0x1008, 8)
    assert device.log == [(8, 4), (12, 4)]
    memory.mmio_write(0x10000, 1, 0x55)
    assert memory.mmio_read(0x10000, 1) == 0
    assert memory.mmio_read(0x9000, 4) == 0xFFFF_FFFF
    memory.unmap(hole)
    assert len(memory.view) == 2 and len(views) == 2
    assert log.unimplemented["memory 0x9000"] == 1


def test_dma_reaches_ram_only_and_is_announced() -> None:
    memory = AddressSpace(memoryview(bytearray(0x2000)), GuestLog())
    written: list[tuple[int, int]] = []
    memory.ram_written.append(lambda gpa, length: written.append((gpa, length)))
    memory.map_ram(0, 0x1000, 0, "ram")
    memory.map_ram(0x2000, 0x1000, 0x1000, "ram")
    memory.map_mmio(0x1000, 0x800, Recorder(), "device")
    memory.dma_write(0xFFE, b"\xaa" * 0x1004)
    assert written == [(0xFFE, 2), (0x2000, 2)]
    assert memory.dma_read(0xFFE, 4) == b"\xaa\xaa\xff\xff"
    assert memory.dma_read(0x1FFF, 3) == b"\xff\xaa\xaa"
    assert memory.dma_read(1 << 63, 3) == b"\xff\xff\xff"
    memory.dma_write(1 << 63, b"\x00" * 100)
    assert memory.is_ram(0, 0x1000) and not memory.is_ram(0xFFF, 2)
