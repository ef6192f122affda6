"""8254 with port 0x61, HPET, RTC: what guests measure and which interrupts they get."""

from __future__ import annotations

import calendar
import time

import pytest
from board import MS, US, Board, S

from hw.machines.q35 import Q35Config
from hw.timer.mc146818 import RtcClock, RtcConfig, _days

HPET = 0xFED0_0000


def pit_mode(board: Board, counter: int, mode: int, count: int, access: int = 3) -> None:
    board.outb(0x43, counter << 6 | access << 4 | mode << 1)
    if access & 1:
        board.outb(0x40 + counter, count & 0xFF)
    if access & 2:
        board.outb(0x40 + counter, count >> 8)


def pit_count(board: Board, counter: int) -> int:
    board.outb(0x43, counter << 6)
    return board.inb(0x40 + counter) | board.inb(0x40 + counter) << 8


def test_linux_tsc_calibration_through_port_61() -> None:
    """arch/x86/kernel/tsc.c, pit_calibrate_tsc: gate on, mode 0, 50 ms, poll OUT2."""
    board = Board()
    board.outb(0x61, (board.inb(0x61) & ~2) | 1)
    pit_mode(board, 2, 0, 1_193_182 * 50 // 1000)
    elapsed = 0
    while not board.inb(0x61) & 0x20:
        board.advance(10 * US)
        elapsed += 10 * US
        assert elapsed < 60 * MS
    assert 49_900 * US <= elapsed <= 50_100 * US


def test_linux_quick_calibration_reads_the_msb() -> None:
    """pit_verify_msb and pit_expect_msb: mode 0 from 0xFFFF, read LSB then MSB, 256 clocks a step."""
    board = Board()
    board.outb(0x61, 1)
    pit_mode(board, 2, 0, 0xFFFF)
    msb = []
    for _ in range(4):
        board.inb(0x42)
        msb.append(board.inb(0x42))
        board.advance(256 * S // 1_193_182)
    assert msb == [0xFF, 0xFF, 0xFE, 0xFD] or msb == [0xFF, 0xFE, 0xFD, 0xFC]


def test_gate_stops_and_restarts() -> None:
    board = Board()
    board.outb(0x61, 1)
    pit_mode(board, 2, 0, 10_000)
    board.advance(S // 1_193_182 * 1000)
    board.outb(0x61, 0)
    stopped = pit_count(board, 2)
    board.advance(S)
    assert pit_count(board, 2) == stopped and 8_990 <= stopped <= 9_010
    board.outb(0x61, 1)
    board.advance(MS)
    assert pit_count(board, 2) < stopped


@pytest.mark.parametrize("mode", (2, 3))
def test_irq0_is_periodic(mode: int) -> None:
    board = Board()
    pit_mode(board, 0, mode, 11_932)  # 100 Hz
    before = board.pit.interrupts
    board.advance(S)
    assert 99 <= board.pit.interrupts - before <= 100


def test_one_shot_irq0() -> None:
    board = Board()
    pit_mode(board, 0, 4, 1193)
    before = board.pit.interrupts
    board.advance(S)
    assert board.pit.interrupts == before + 1
    assert board.pit.irq.level


def test_read_back_of_status_and_counts() -> None:
    board = Board()
    pit_mode(board, 0, 2, 0x1234)
    board.outb(0x43, 0xC2)  # status and count of counter 0
    assert board.inb(0x40) & 0x7F == 0x34
    assert board.inb(0x40) | board.inb(0x40) << 8 == 0x1234
    board.outb(0x43, 0x38)
    board.outb(0x43, 0xE2)  # status only
    assert board.inb(0x40) & 0x40  # null count


def test_bcd_counting() -> None:
    board = Board()
    board.outb(0x43, 0x31)
    board.outb(0x40, 0x00)
    board.outb(0x40, 0x10)  # 1000
    board.advance(3 * S // 1_193_182 + 1)
    assert pit_count(board, 0) == 0x0997


def hpet_read(board: Board, offset: int, size: int = 8) -> int:
    return board.memory.mmio_read(HPET + offset, size)


def hpet_write(board: Board, offset: int, value: int, size: int = 8) -> None:
    board.memory.mmio_write(HPET + offset, size, value)


def ioapic_entry(board: Board, pin: int, low: int) -> None:
    board.writel(0xFEC0_0000, 0x10 + 2 * pin)
    board.writel(0xFEC0_0010, low)


def test_hpet_counts_and_stops() -> None:
    board = Board()
    board.advance(S)
    assert hpet_read(board, 0xF0) == 0
    hpet_write(board, 0xF0, 1000)
    hpet_write(board, 0x10, 1)
    board.advance(MS)
    assert hpet_read(board, 0xF0) == 1000 + 100_000
    assert hpet_read(board, 0xF4, 4) == 0
    hpet_write(board, 0x10, 0)
    board.advance(MS)
    assert hpet_read(board, 0xF0) == 101_000


def test_hpet_legacy_replacement_periodic() -> None:
    """Linux' hpet_set_periodic: 32 bits, VAL_SET, comparator, then period."""
    board = Board()
    board.outb(0x21, 0xFF)
    ioapic_entry(board, 2, 0x30)
    hpet_write(board, 0x10, 3)
    hpet_write(board, 0x100, 0x14C, 4)
    hpet_write(board, 0x108, 500_000, 4)
    hpet_write(board, 0x108, 400_000, 4)
    lapic, taken = board.lapics[0], []
    pit_before = board.pit.irq.level
    for _ in range(20):
        board.advance(MS)
        if lapic.pending():
            taken.append(board.fake_clock.ns)
            assert lapic.ack() == 0x30
            lapic.eoi()
    assert taken == [5 * MS, 9 * MS, 13 * MS, 17 * MS]
    assert pit_before is False  # the 8254's IRQ 0 does not reach the pin


def test_hpet_level_interrupt_and_status() -> None:
    board = Board()
    ioapic_entry(board, 8, 0x1_0000)
    hpet_write(board, 0x10, 1)
    hpet_write(board, 0x108, 100)
    hpet_write(board, 0x100, 8 << 9 | 0x6, 4)  # GSI 8, level, enabled
    board.advance(US)
    assert hpet_read(board, 0x20) == 1
    assert board.ioapic.lines >> 8 & 1
    hpet_write(board, 0x20, 1)
    assert hpet_read(board, 0x20) == 0
    assert not board.ioapic.lines >> 8 & 1


def test_hpet_32_bit_one_shot_wraps() -> None:
    board = Board()
    hpet_write(board, 0xF0, 0xFFFF_FFF0)
    hpet_write(board, 0x100, 0x104, 4)
    hpet_write(board, 0x108, 0x10, 4)
    hpet_write(board, 0x10, 1)
    board.advance(310)
    assert board.hpet.interrupts[0] == 0
    board.advance(10)
    assert board.hpet.interrupts[0] == 1


def rtc_board(seconds: int) -> Board:
    return Board(config=Q35Config(rtc=RtcConfig(seconds, RtcClock.VM)))


def rtc_read(board: Board, index: int) -> int:
    board.outb(0x70, index)
    return board.inb(0x71)


def rtc_write(board: Board, index: int, value: int) -> None:
    board.outb(0x70, index)
    board.outb(0x71, value)


def rtc_time(board: Board) -> tuple[int, ...]:
    return tuple(int(f"{rtc_read(board, index):x}") for index in (0x32, 9, 8, 7, 4, 2, 0))


def test_rtc_counts_in_bcd() -> None:
    board = rtc_board(calendar.timegm((2028, 2, 29, 23, 59, 58)))
    assert rtc_time(board) == (20, 28, 2, 29, 23, 59, 58)
    assert rtc_read(board, 6) == 3  # a Tuesday; Sunday is 1
    board.advance(2 * S)
    assert rtc_time(board) == (20, 28, 3, 1, 0, 0, 0)


def test_rtc_binary_and_12_hours() -> None:
    board = rtc_board(calendar.timegm((2026, 1, 2, 15, 4, 5)))
    rtc_write(board, 0x0B, 0x00)
    assert rtc_read(board, 4) == 0x83
    rtc_write(board, 0x0B, 0x06)
    assert [rtc_read(board, index) for index in (9, 8, 7, 4)] == [26, 1, 2, 15]


def test_rtc_update_in_progress() -> None:
    board = rtc_board(1_000_000_000)
    assert not rtc_read(board, 0x0A) & 0x80
    board.advance(S - 200 * US)
    assert rtc_read(board, 0x0A) & 0x80
    board.advance(300 * US)
    assert not rtc_read(board, 0x0A) & 0x80


def test_rtc_set_stops_the_clock() -> None:
    board = rtc_board(1_000_000_000)
    rtc_write(board, 0x0B, 0x82)
    for index, value in ((0, 0x56), (2, 0x34), (4, 0x12), (7, 0x31), (8, 0x12), (9, 0x99), (0x32, 0x19)):
        rtc_write(board, index, value)
    board.advance(10 * S)
    assert rtc_time(board) == (19, 99, 12, 31, 12, 34, 56)
    rtc_write(board, 0x0B, 0x02)
    board.advance(S)
    assert rtc_time(board) == (19, 99, 12, 31, 12, 34, 57)


def test_rtc_interrupts() -> None:
    board = rtc_board(calendar.timegm((2026, 1, 2, 3, 4, 5)))
    rtc_write(board, 0x0B, 0x12)  # update-ended
    board.advance(S)
    assert board.rtc.irq.level
    assert rtc_read(board, 0x0C) == 0x90
    assert not board.rtc.irq.level and rtc_read(board, 0x0C) == 0
    rtc_write(board, 0x0B, 0x02)
    for index, value in ((1, 0x00), (3, 0x06), (5, 0xC0)):  # any hour, minute 6, second 0
        rtc_write(board, index, value)
    rtc_write(board, 0x0B, 0x22)
    rtc_read(board, 0x0C)
    board.advance(113 * S)
    assert not board.rtc.irq.level
    board.advance(2 * S)
    assert rtc_read(board, 0x0C) & 0xA0 == 0xA0


def test_rtc_periodic_rate() -> None:
    board = rtc_board(1_000_000_000)
    rtc_write(board, 0x0A, 0x26)  # 1024 Hz
    rtc_write(board, 0x0B, 0x42)
    ticks = 0
    for _ in range(1000):
        board.advance(MS)
        ticks += rtc_read(board, 0x0C) & 0xC0 == 0xC0
    assert ticks >= 976  # each read acknowledges at most one of 1024


def test_rtc_follows_the_host_by_default() -> None:
    board = Board(config=Q35Config())
    low, high = time.time() - 2, time.time() + 2
    century, year, month, day, hour, minute, second = rtc_time(board)
    assert low <= calendar.timegm((century * 100 + year, month, day, hour, minute, second)) <= high


def test_days_agree_with_the_calendar() -> None:
    for year in (1, 4, 100, 1600, 1900, 1969, 1970, 2000, 2026, 2100, 9998):
        for month in range(1, 13):
            assert _days(year, month) * 86_400 == calendar.timegm((year, month, 1, 0, 0, 0))


def test_localtime_base(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "XYZ-5:30")
    time.tzset()
    try:
        board = Board(config=Q35Config(rtc=RtcConfig("localtime", RtcClock.VM)))
        local = time.mktime(time.localtime()) + 5.5 * 3600
        assert abs(board.rtc.now_ns() / 1e9 - local) < 3
    finally:
        monkeypatch.undo()
        time.tzset()


def test_cmos_sizes_and_ram_survive_reset() -> None:
    board = Board(ram=32 << 20)
    assert rtc_read(board, 0x15) | rtc_read(board, 0x16) << 8 == 640
    assert rtc_read(board, 0x34) | rtc_read(board, 0x35) << 8 == (16 << 20) >> 16
    rtc_write(board, 0x50, 0xA5)
    board.reset()
    assert rtc_read(board, 0x50) == 0xA5
