"""16550A UART (National Semiconductor PC16550D data sheet): FIFOs of 16 bytes, modem loopback, polled and interrupts.

Speed: a guest's console is two port accesses a character, a read of LSR and a write of THR. Both take the first branch
of their method. Transmission itself takes no time; the bytes are gathered and go to the host at a line's end, when the
batch is large, or 10 ms after its first byte.
"""

from __future__ import annotations

from collections import deque

from hw.char.uart16550_regs import (
    IER_REG,
    IIR_FCR,
    LCR_REG,
    LSR_REG,
    MCR_REG,
    MSR_REG,
    RBR_THR,
    SCR_REG,
    Ier,
    Iir,
    Lcr,
    Lsr,
    Mcr,
    Msr,
)  # fmt: skip
from hw.core.chardev import Chardev
from hw.core.clock import Clock, TimerQueue
from hw.core.irq import IrqLine

FIFO_SIZE = 16
FLUSH_NS = 10_000_000
BATCH = 512
CLOCK_HZ = 1_843_200

# Plain ints for the hot path: IntFlag arithmetic costs a microsecond an operation.
_DR, _OE, _BI, _FE = int(Lsr.DR), int(Lsr.OE), int(Lsr.BI), int(Lsr.FE)
_IDLE = int(Lsr.THRE | Lsr.TEMT)
_ERRORS = int(Lsr.OE | Lsr.PE | Lsr.FE | Lsr.BI)
_DLAB = int(Lcr.DLAB)
_LOOP = int(Mcr.LOOP)
_CONNECTED = int(Msr.CTS | Msr.DSR | Msr.DCD)


class Uart16550:
    """Eight ports. The IRQ line follows the interrupt condition; without a chardev the line is quiet but works."""

    WIRING = ("_batch_timer", "_chardev", "_clock", "irq")
    STATISTICS = ("received", "transmitted")
    SAVED = (
        "_batch",
        "_receive",
        "_timeout_pending",
        "_timeout_timer",
        "divisor",
        "fcr",
        "ier",
        "iir",
        "lcr",
        "lsr",
        "mcr",
        "msr",
        "scr",
        "thre_pending",
    )
    __slots__ = WIRING + STATISTICS + SAVED

    def __init__(self, clock: Clock, timers: TimerQueue, chardev: Chardev | None) -> None:
        self._clock = clock
        self._chardev = chardev
        self.irq = IrqLine()
        self.received = 0
        self.transmitted = 0
        self._batch = bytearray()
        self._batch_timer = timers.timer(self.flush)
        self._timeout_timer = timers.timer(self._receive_timeout)
        self._receive: deque[int] = deque()
        if chardev is not None:
            chardev.on_input = self._input
            chardev.can_accept = self._room
            chardev.on_drained = self._drained
            chardev.on_break = self._break
        self.reset()

    def reset(self) -> None:
        """Master reset (data sheet, table I); the scratch register is cleared as well, as QEMU does."""
        self.flush()
        self.ier = 0
        self.iir = int(Iir.NONE)
        self.fcr = 0
        self.lcr = 0
        self.mcr = int(Mcr.OUT2)
        self.lsr = _IDLE
        self.msr = _CONNECTED
        self.scr = 0
        self.divisor = 12
        self.thre_pending = False
        self._timeout_pending = False
        self._timeout_timer.cancel()
        self._receive.clear()
        self.irq.set(False)
        if self._chardev is not None:
            self._chardev.input_changed()

    # -- ports

    def pio_read(self, offset: int, size: int) -> int:
        if offset == LSR_REG:
            value = self.lsr
            if value & _ERRORS:
                self.lsr = value & ~_ERRORS
                self._update()
            if self._chardev is not None and self._chardev.congested:
                value &= ~_IDLE
            return value
        if offset == RBR_THR:
            return self.divisor & 0xFF if self.lcr & _DLAB else self._read_data()
        if offset == IIR_FCR:
            value = self.iir
            if value & 0x0F == Iir.THRE:
                self.thre_pending = False
                self._update()
            return value
        if offset == IER_REG:
            return self.divisor >> 8 if self.lcr & _DLAB else self.ier
        if offset == MSR_REG:
            if self.mcr & _LOOP:
                return self._loopback_status()
            value = self.msr
            if value & 0x0F:
                self.msr = value & 0xF0
                self._update()
            return value
        if offset == LCR_REG:
            return self.lcr
        if offset == MCR_REG:
            return self.mcr
        return self.scr

    def pio_write(self, offset: int, size: int, value: int) -> None:
        if offset == RBR_THR:
            if self.lcr & _DLAB:
                self.divisor = (self.divisor & 0xFF00) | value
            else:
                self._transmit(value)
        elif offset == IER_REG:
            if self.lcr & _DLAB:
                self.divisor = (self.divisor & 0xFF) | value << 8
            else:
                self._write_ier(value & 0x0F)
        elif offset == IIR_FCR:
            self._write_fcr(value)
        elif offset == LCR_REG:
            self.lcr = value
        elif offset == MCR_REG:
            self._write_mcr(value & 0x1F)
        elif offset == SCR_REG:
            self.scr = value

    # -- transmitter

    def _transmit(self, value: int) -> None:
        if self.mcr & _LOOP:
            self._push(value)
        elif self._chardev is not None:
            self.transmitted += 1
            batch = self._batch
            batch.append(value)
            if value == 0x0A or len(batch) >= BATCH:
                self.flush()
            elif not self._batch_timer.armed:
                self._batch_timer.mod(self._clock.now_ns() + FLUSH_NS)
        # The byte is gone at once: THRE falls and rises, which requests the next interrupt.
        self.thre_pending = True
        if self.ier & 2:
            self._update()

    def flush(self) -> None:
        """Hand the gathered output to the host's end."""
        if self._batch and self._chardev is not None:
            data = bytes(self._batch)
            self._batch.clear()
            self._chardev.write(data)

    def _drained(self) -> None:
        """The host takes output again."""
        self.thre_pending = True
        self._update()

    # -- receiver

    def _room(self) -> int:
        if self.mcr & _LOOP:
            return 0
        if not self.fcr & 1:
            return 0 if self._receive else 1
        return FIFO_SIZE - len(self._receive)

    def _input(self, data: bytes) -> None:
        self.received += len(data)
        for byte in data:
            self._push(byte)

    def _push(self, byte: int) -> None:
        """A character has come in."""
        fifo = self._receive
        if self.fcr & 1:
            if len(fifo) >= FIFO_SIZE:
                self.lsr |= _OE
            else:
                fifo.append(byte)
            self._timeout_timer.mod(self._clock.now_ns() + self._character_ns() * 4)
        else:
            if fifo:
                self.lsr |= _OE
                fifo.clear()
            fifo.append(byte)
        self.lsr |= _DR
        self._update()

    def _break(self) -> None:
        self._push(0)
        self.lsr |= _BI | _FE
        self._update()

    def _character_ns(self) -> int:
        bits = 2 + 5 + (self.lcr & 3)
        return bits * 16 * (self.divisor or 1) * 1_000_000_000 // CLOCK_HZ

    def _receive_timeout(self) -> None:
        if self._receive:
            self._timeout_pending = True
            self._update()

    def _read_data(self) -> int:
        fifo = self._receive
        if not fifo:
            return 0
        value = fifo.popleft()
        self._timeout_pending = False
        if fifo:
            self._timeout_timer.mod(self._clock.now_ns() + self._character_ns() * 4)
        else:
            self._timeout_timer.cancel()
            self.lsr &= ~(_DR | _BI)
        self._update()
        if self._chardev is not None and not self.mcr & _LOOP:
            self._chardev.input_changed()
        return value

    # -- control

    def _write_ier(self, value: int) -> None:
        if value & ~self.ier & Ier.THRE and self.lsr & _IDLE:
            self.thre_pending = True  # enabling with THR empty requests at once
        self.ier = value
        self._update()

    def _write_fcr(self, value: int) -> None:
        if (value ^ self.fcr) & 1:
            value |= 0x06  # changing the enable clears both FIFOs
        if value & 0x02:
            self._receive.clear()
            self._timeout_pending = False
            self._timeout_timer.cancel()
            self.lsr &= ~(_DR | _BI)
        if value & 0x04:
            self.thre_pending = True
        self.fcr = value & 0xC9
        self._update()
        if self._chardev is not None:
            self._chardev.input_changed()

    def _write_mcr(self, value: int) -> None:
        old = self.mcr
        if value & _LOOP and not old & _LOOP:
            self.flush()
        self.mcr = value
        if (old | value) & _LOOP:
            before = self._modem_lines(old)
            after = self._modem_lines(value)
            delta = (before ^ after) >> 4
            if delta & 4 and after & Msr.RI:
                delta &= ~4  # TERI is the trailing edge of RI only
            self.msr = after | ((self.msr & 0x0F) | delta)
        self._update()
        if old & _LOOP and not value & _LOOP and self._chardev is not None:
            self._chardev.input_changed()

    def _modem_lines(self, mcr: int) -> int:
        """MSR's upper half: the host is always connected, or in loopback the MCR's outputs (8.6.7)."""
        if not mcr & _LOOP:
            return _CONNECTED
        return (mcr & 0x0C) << 4 | (mcr & 0x02) << 3 | (mcr & 0x01) << 5

    def _loopback_status(self) -> int:
        value = self.msr
        self.msr = value & 0xF0
        self._update()
        return self._modem_lines(self.mcr) | (value & 0x0F)

    def _trigger(self) -> int:
        return (1, 4, 8, 14)[self.fcr >> 6] if self.fcr & 1 else 1

    def _update(self) -> None:
        """Interrupt identification by priority (data sheet, table V), and the IRQ line."""
        ier = self.ier
        if ier & 4 and self.lsr & _ERRORS:
            iir = 0x06
        elif ier & 1 and self._timeout_pending and self.fcr & 1:
            iir = 0x0C
        elif ier & 1 and self._receive and len(self._receive) >= self._trigger():
            iir = 0x04
        elif ier & 2 and self.thre_pending and not (self._chardev is not None and self._chardev.congested):
            iir = 0x02
        elif ier & 8 and self.msr & 0x0F:
            iir = 0x00
        else:
            iir = 0x01
        self.iir = iir | 0xC0 if self.fcr & 1 else iir
        self.irq.set(iir != 0x01)
