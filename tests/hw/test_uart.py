"""16550A: what Linux' 8250 driver probes, and the paths of a console."""

from __future__ import annotations

from board import MS, Board

from hw.char.uart16550 import FIFO_SIZE

COM1 = 0x3F8
IER, FCR, LCR, MCR, LSR, MSR, SCR = (COM1 + i for i in (1, 2, 3, 4, 5, 6, 7))


def test_linux_autoconfig() -> None:
    """drivers/tty/serial/8250/8250_port.c: autoconfig, autoconfig_16550a, the loopback and TXEN tests."""
    board = Board()
    board.outb(IER, 0)
    assert board.inb(IER) == 0
    board.outb(IER, 0x0F)
    assert board.inb(IER) == 0x0F
    board.outb(IER, 0)
    board.outb(MCR, 0x10 | 0x0A)
    assert board.inb(MSR) & 0xF0 == 0x90
    board.outb(MCR, 0)
    board.outb(FCR, 1)
    assert board.inb(FCR) >> 6 == 3  # 16550A
    board.outb(LCR, 0xBF)
    assert board.inb(FCR) & 0xC0 == 0xC0
    board.outb(LCR, 0)
    board.outb(FCR, 0x21)
    assert not board.inb(FCR) & 0x20  # no 64-byte FIFO
    for scratch in (0xA5, 0x5A):
        board.outb(SCR, scratch)
        assert board.inb(SCR) == scratch
    board.outb(IER, 2)
    assert board.inb(LSR) & 0x60 == 0x60
    assert board.inb(FCR) & 0x0F == 0x02  # enabling requests at once
    assert board.inb(FCR) & 0x0F == 0x01  # and reading cleared it
    board.outb(IER, 0)
    board.outb(IER, 2)
    assert board.inb(FCR) & 0x0F == 0x02


def test_output_is_batched_by_line_and_time() -> None:
    board = Board()
    for byte in b"hello":
        assert board.inb(LSR) & 0x20
        board.outb(COM1, byte)
    assert board.line.out == b""
    board.outb(COM1, 0x0A)
    assert board.line.out == b"hello\n"
    board.outb(COM1, 0x24)
    board.advance(11 * MS)
    assert board.line.out == b"hello\n$"
    board.outb(COM1, 0x21)
    board.flush_output()
    assert board.line.out == b"hello\n$!"


def test_a_full_host_holds_the_guest_back() -> None:
    board = Board()
    board.outb(IER, 2)
    board.inb(FCR)
    board.line.blocked = True
    assert not board.inb(LSR) & 0x60
    board.outb(COM1, 0x41)
    assert not board.serial[0].irq.level
    board.line.blocked = False
    board.line.on_drained()
    assert board.inb(LSR) & 0x60 == 0x60
    assert board.serial[0].irq.level


def test_receive_interrupt_trigger_and_timeout() -> None:
    board = Board()
    uart = board.serial[0]
    board.outb(FCR, 0x81)  # trigger at 8
    board.outb(IER, 1)
    board.line.on_input(b"abc")
    assert not uart.irq.level
    board.advance(10 * MS)
    assert uart.irq.level and board.inb(FCR) == 0xCC  # character timeout
    assert [board.inb(COM1) for _ in range(3)] == [0x61, 0x62, 0x63]
    assert not uart.irq.level and board.inb(LSR) == 0x60
    board.line.on_input(b"12345678")
    assert board.inb(FCR) == 0xC4
    board.inb(COM1)
    assert board.inb(FCR) == 0xC1


def test_room_follows_the_fifo() -> None:
    board = Board()
    assert board.line.can_accept() == 1
    board.outb(FCR, 1)
    assert board.line.can_accept() == FIFO_SIZE
    board.line.on_input(b"x" * 16)
    assert board.line.can_accept() == 0
    board.serial[0]._push(0x79)
    assert board.inb(LSR) & 0x03 == 0x03  # overrun
    assert not board.inb(LSR) & 0x02
    board.outb(FCR, 3)
    assert board.line.can_accept() == FIFO_SIZE and not board.inb(LSR) & 1


def test_loopback_data_and_modem_deltas() -> None:
    board = Board()
    board.outb(MCR, 0x10)
    board.inb(MSR)
    board.outb(COM1, 0x5A)
    assert board.inb(LSR) & 1 and board.inb(COM1) == 0x5A
    assert board.line.out == b""
    board.outb(MCR, 0x11)
    assert board.inb(MSR) == 0x22  # DSR and its delta
    assert board.inb(MSR) == 0x20


def test_break() -> None:
    board = Board()
    board.outb(IER, 4)
    board.line.on_break()
    assert board.inb(FCR) & 0x0F == 0x06
    assert board.inb(LSR) & 0x11 == 0x11
    assert not board.inb(LSR) & 0x10


def test_divisor_latch() -> None:
    board = Board()
    board.outb(LCR, 0x83)
    board.outb(COM1, 0x01)
    board.outb(IER, 0x02)
    assert (board.inb(COM1), board.inb(IER)) == (1, 2)
    board.outb(LCR, 0x03)
    assert board.inb(IER) == 0
    assert board.serial[0].divisor == 0x201


def test_transmit_interrupt_reaches_the_pic() -> None:
    board = Board()
    board.outb(0x21, 0xEF)
    board.outb(IER, 2)
    assert board.fake_cpus[0].intr
    assert board.lapics[0].ack() == 0x0C  # SeaBIOS' vector base 8, IRQ 4
