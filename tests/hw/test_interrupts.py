"""8259 pair, I/O APIC and local APICs: delivery from a line to the vector that a vCPU takes."""

from __future__ import annotations

import pytest
from board import MS, US, Board, S

from hw.intc import lapic_regs as r

IOAPIC = 0xFEC0_0000
LAPIC = 0xFEE0_0000


def init_pics(board: Board) -> None:
    """As Linux does: vectors 0x30 and 0x38, all unmasked, normal EOI."""
    for port, base, cascade in ((0x20, 0x30, 4), (0xA0, 0x38, 2)):
        for offset, value in ((0, 0x11), (1, base), (1, cascade), (1, 0x01), (1, 0x00)):
            board.outb(port + offset, value)


def set_redirection(board: Board, pin: int, low: int, high: int = 0) -> None:
    for index, value in ((0x11 + 2 * pin, high), (0x10 + 2 * pin, low)):
        board.writel(IOAPIC, index)
        board.writel(IOAPIC + 0x10, value)


def redirection(board: Board, pin: int) -> int:
    board.writel(IOAPIC, 0x10 + 2 * pin)
    return board.readl(IOAPIC + 0x10)


def apic_mode(board: Board) -> None:
    """Symmetric I/O mode: PICs masked, LVT0 masked, APIC on."""
    board.outb(0x21, 0xFF)
    board.outb(0xA1, 0xFF)
    board.writel(LAPIC + r.SVR, 0x1FF)
    board.writel(LAPIC + r.LVT_LINT0, 0x1_0700)


def test_pic_priority_cascade_and_eoi() -> None:
    board = Board()
    init_pics(board)
    cpu, lapic = board.fake_cpus[0], board.lapics[0]
    board.gsi.line(12).set(True)
    board.gsi.line(4).set(True)
    assert cpu.intr
    assert lapic.ack() == 0x3C  # IRQ 12 enters at the master's input 2
    assert lapic.ack() == -1  # IRQ 4 has to wait
    board.outb(0xA0, 0x20)
    board.outb(0x20, 0x20)
    assert lapic.ack() == 0x34
    board.outb(0x20, 0x20)
    assert not cpu.intr and lapic.ack() == -1


def test_pic_spurious_when_the_request_is_gone() -> None:
    board = Board()
    init_pics(board)
    line = board.gsi.line(5)
    board.outb(0x4D0, 0x20)
    line.set(True)
    assert board.fake_cpus[0].intr
    line.set(False)
    assert board.pic.acknowledge() == 0x37
    assert board.pic.spurious == 1
    assert board.pic.master.isr == 0


def test_pic_edge_needs_a_new_edge_level_does_not() -> None:
    board = Board()
    init_pics(board)
    lapic = board.lapics[0]
    edge, level = board.gsi.line(3), board.gsi.line(11)
    board.outb(0x4D1, 0x08)
    for line, vector, again in ((edge, 0x33, False), (level, 0x3B, True)):
        line.set(True)
        assert lapic.ack() == vector
        if vector >= 0x38:
            board.outb(0xA0, 0x20)
        board.outb(0x20, 0x20)
        assert lapic.pending() == again
        line.set(False)
        assert not lapic.pending()


def test_pic_rotation_poll_and_special_mask() -> None:
    board = Board()
    init_pics(board)
    lapic = board.lapics[0]
    board.gsi.line(3).pulse()
    assert lapic.ack() == 0x33
    board.outb(0x20, 0xA0)  # rotate on non-specific EOI: 3 is the lowest now
    board.gsi.line(1).pulse()
    board.gsi.line(4).pulse()
    assert lapic.ack() == 0x34
    board.outb(0x20, 0x20)
    board.outb(0x20, 0x0C)
    assert board.inb(0x20) == 0x81
    board.outb(0x21, 0x02)
    board.outb(0x20, 0x68)  # special mask mode: the masked interrupt in service blocks nobody
    board.gsi.line(0).pulse()
    board.gsi.line(7).pulse()
    assert [lapic.ack(), lapic.ack()] == [0x37, -1]  # 5, 6, 7 come before 0 since the rotation


def test_ioapic_edge_and_the_timer_pin() -> None:
    board = Board()
    apic_mode(board)
    set_redirection(board, 2, 0x30)
    set_redirection(board, 4, 0x1_0034)
    board.gsi.line(0).pulse()
    lapic = board.lapics[0]
    assert lapic.ack() == 0x30
    lapic.eoi()
    board.gsi.line(4).pulse()  # masked: lost
    set_redirection(board, 4, 0x34)
    assert not lapic.pending()
    board.gsi.line(4).pulse()
    assert lapic.ack() == 0x34


def test_ioapic_level_waits_for_eoi() -> None:
    board = Board()
    apic_mode(board)
    set_redirection(board, 9, 0x8031)
    line, lapic = board.gsi.line(9), board.lapics[0]
    line.set(True)
    assert lapic.ack() == 0x31
    assert redirection(board, 9) == 0xC031  # remote IRR
    board.writel(LAPIC + r.EOI, 0)
    assert lapic.ack() == 0x31  # still asserted
    line.set(False)
    board.writel(LAPIC + r.EOI, 0)
    assert not lapic.pending()
    assert redirection(board, 9) == 0x8031
    line.set(True)
    assert lapic.ack() == 0x31
    board.writel(IOAPIC + 0x40, 0x31)  # IOEOIR
    assert lapic.irr >> 0x31 & 1


def test_lapic_priorities_and_tpr() -> None:
    board = Board()
    apic_mode(board)
    lapic, cpu = board.lapics[0], board.fake_cpus[0]
    board.apic_bus.msi_write(LAPIC, 0x4041)
    board.apic_bus.msi_write(LAPIC, 0x4071)
    assert lapic.ack() == 0x71
    assert lapic.ppr == 0x70
    assert not cpu.intr and lapic.ack() == -1
    lapic.eoi()
    lapic.cr8 = 4
    assert not cpu.intr
    lapic.cr8 = 3
    assert cpu.intr and lapic.ack() == 0x41
    assert board.readl(LAPIC + r.PPR) == 0x40
    assert board.readl(LAPIC + r.ISR + 0x20) == 1 << 1


def test_lapic_timer_modes_and_divider() -> None:
    board = Board()
    apic_mode(board)
    lapic = board.lapics[0]
    board.writel(LAPIC + r.TIMER_DIVIDE, 0x3)  # by 16
    board.writel(LAPIC + r.LVT_TIMER, 0x40)
    board.writel(LAPIC + r.TIMER_INITIAL, 1000)
    board.advance(8 * US)
    assert board.readl(LAPIC + r.TIMER_CURRENT) == 500
    board.advance(8 * US)
    assert lapic.ack() == 0x40
    assert board.readl(LAPIC + r.TIMER_CURRENT) == 0
    lapic.eoi()
    board.advance(S)
    assert not lapic.pending()

    board.writel(LAPIC + r.TIMER_DIVIDE, 0xB)  # by 1
    board.writel(LAPIC + r.LVT_TIMER, 0x2_0041)
    board.writel(LAPIC + r.TIMER_INITIAL, 1_000_000)
    ticks = 0
    for _ in range(100):
        board.advance(100 * US)
        if lapic.pending():
            ticks += lapic.ack() == 0x41
            lapic.eoi()
    assert ticks == 10


def test_tsc_deadline() -> None:
    board = Board()
    apic_mode(board)
    lapic = board.lapics[0]
    assert lapic.write_msr(0x6E0, 12345) and lapic.read_msr(0x6E0) == 0  # not in this mode
    board.writel(LAPIC + r.LVT_TIMER, 0x4_0042)
    board.advance(MS)
    deadline = board.fake_clock.tsc() + 2_000_000  # 1 ms at 2 GHz
    assert lapic.write_msr(0x6E0, deadline)
    assert lapic.read_msr(0x6E0) == deadline
    board.advance(MS - 1)
    assert not lapic.pending()
    board.advance(1)
    assert lapic.ack() == 0x42
    assert lapic.read_msr(0x6E0) == 0
    lapic.eoi()
    assert lapic.write_msr(0x6E0, 1)  # the past fires at once
    assert lapic.ack() == 0x42
    lapic.eoi()
    lapic.write_msr(0x6E0, board.fake_clock.tsc() + 1000)
    lapic.write_msr(0x6E0, 0)
    board.advance(S)
    assert not lapic.pending()


def test_x2apic_mode() -> None:
    board = Board(cpus=2)
    bsp, ap = board.lapics
    assert bsp.read_msr(0x802) is None  # not in x2APIC mode
    assert bsp.read_msr(0x1B) == 0xFEE0_0900 and ap.read_msr(0x1B) == 0xFEE0_0800
    for lapic in board.lapics:
        assert lapic.write_msr(0x1B, lapic.base | 0x400)
        assert lapic.write_msr(0x80F, 0x1FF)
    assert not bsp.write_msr(0x1B, 0xFEE0_0900)  # back to xAPIC is forbidden
    assert ap.read_msr(0x802) == 1
    assert ap.read_msr(0x80D) == 0x0000_0002
    assert not ap.write_msr(0x802, 0)
    assert bsp.write_msr(0x830, 1 << 32 | 0x4055)
    assert ap.ack() == 0x55
    assert bsp.write_msr(0x83F, 0x66) and bsp.ack() == 0x66
    assert bsp.read_msr(0x83F) is None
    assert not bsp.write_msr(0x80B, 1)
    assert bsp.write_msr(0x80B, 0)
    assert bsp.isr == 0
    assert board.readl(LAPIC + r.VERSION) == 0xFFFF_FFFF  # the page is gone
    assert bsp.write_msr(0x830, 0xC_4400) and board.fake_cpus[1].events == ["nmi"]  # all but self


def test_startup_ipis() -> None:
    board = Board(cpus=3)
    board.writel(LAPIC + r.ICR_LOW, 0xC_4500)
    board.writel(LAPIC + r.ICR_HIGH, 2 << 24)
    board.writel(LAPIC + r.ICR_LOW, 0x0_4609)
    assert [cpu.events for cpu in board.fake_cpus] == [[], ["init"], ["init", "sipi 0x9"]]


@pytest.mark.parametrize(
    ("dfr", "ldrs", "destination", "hit"), [(0xF, (1, 2), 3, [0, 1]), (0, (0x11, 0x21), 0x21, [1])]
)
def test_logical_destinations(dfr: int, ldrs: tuple[int, int], destination: int, hit: list[int]) -> None:
    board = Board(cpus=2)
    for lapic, ldr in zip(board.lapics, ldrs, strict=True):
        lapic.write_register(r.SVR, 0x1FF)
        lapic.write_register(r.DFR, dfr << 28)
        lapic.write_register(r.LDR, ldr << 24)
    board.apic_bus.deliver(destination, logical=True, mode=0, vector=0x50, level=False)
    assert [i for i, lapic in enumerate(board.lapics) if lapic.irr] == hit
    board.apic_bus.deliver(destination, logical=True, mode=1, vector=0x60, level=False)  # lowest priority: one of them
    assert sum(lapic.irr >> 0x60 & 1 for lapic in board.lapics) == 1


def test_a_disabled_apic_lets_the_pic_through_directly() -> None:
    board = Board()
    init_pics(board)
    lapic = board.lapics[0]
    assert lapic.write_msr(0x1B, 0xFEE0_0100)
    board.gsi.line(1).pulse()
    assert lapic.ack() == 0x31
    assert not lapic.write_msr(0x1B, 0xFEE0_0500)  # disabled to x2APIC is forbidden


def test_esr_and_illegal_vectors() -> None:
    board = Board()
    apic_mode(board)
    board.writel(LAPIC + r.LVT_ERROR, 0xFE)
    board.writel(LAPIC + r.ICR_LOW, 0x4_4005)
    assert board.lapics[0].ack() == 0xFE
    assert board.readl(LAPIC + r.ESR) == 0
    board.writel(LAPIC + r.ESR, 0)
    assert board.readl(LAPIC + r.ESR) == 0x20


def test_pirq_routing() -> None:
    board = Board()
    init_pics(board)
    board.outb(0x4D1, 0x0C)
    line = board.lpc.pci_line(0x1F, 0)  # INTA of device 31: PIRQA, routed to IRQ 10
    line.set(True)
    assert board.pic.slave.irr == 1 << 2
    assert board.ioapic.lines == 1 << 16 | 1 << 10
    board.config_write(0x1F, 0, 0x60, 0x80, 1)
    assert board.pic.slave.irr == 0
    line.set(False)
    board.lpc.pci_line(2, 1).set(True)  # slot 2, INTB: PIRQ (2 + 1) % 4 + 4 = H
    assert board.ioapic.lines == 1 << 23 | 1 << 11
