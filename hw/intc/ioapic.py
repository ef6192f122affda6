"""82093AA-compatible I/O APIC with 24 inputs, version 0x20 (82093AA data sheet; ICH9 data sheet 13.5).

Indirect registers behind IOREGSEL (offset 0x00) and IOWIN (0x10); IOEOIR (0x40) came with version 0x20.
"""

from __future__ import annotations

from hw.intc.apic_bus import ApicBus, Delivery

PINS = 24
VERSION = 0x20

# Redirection entry (data sheet 3.2.4).
DELIVERY_STATUS = 1 << 12
ACTIVE_LOW = 1 << 13
REMOTE_IRR = 1 << 14
LEVEL = 1 << 15
MASKED = 1 << 16
READ_ONLY = DELIVERY_STATUS | REMOTE_IRR
WRITABLE = 0xFF00_0000_0001_FFFF & ~READ_ONLY


class IoApic:
    """The ICH9's I/O APIC. `set_pin` takes the logical state of an input (true: asserted, whatever its polarity)."""

    WIRING = ("_bus",)
    STATISTICS = ("delivered",)
    SAVED = ("id", "irr", "lines", "redirection", "select")
    __slots__ = WIRING + STATISTICS + SAVED

    def __init__(self, bus: ApicBus) -> None:
        self._bus = bus
        bus.eoi_receivers.append(self.eoi)
        self.delivered = [0] * PINS
        self.lines = 0
        self.reset()

    def reset(self) -> None:
        self.id = 0
        self.select = 0
        self.irr = 0
        self.redirection = [MASKED] * PINS

    # -- inputs

    def set_pin(self, pin: int, level: bool) -> None:
        """Input `pin` is asserted or not."""
        bit = 1 << pin
        rising = level and not self.lines & bit
        self.lines = self.lines | bit if level else self.lines & ~bit
        entry = self.redirection[pin]
        if entry & LEVEL:
            if level:
                self.irr |= bit
                self._service(pin)
            else:
                self.irr &= ~bit
        elif rising and not entry & MASKED:  # edges on a masked input are lost (3.2.4, interrupt mask)
            self.irr |= bit
            self._service(pin)

    def _service(self, pin: int) -> None:
        entry = self.redirection[pin]
        if entry & MASKED or not self.irr >> pin & 1:
            return
        level = bool(entry & LEVEL)
        if level:
            if entry & REMOTE_IRR:
                return
            self.redirection[pin] = entry | REMOTE_IRR
        else:
            self.irr &= ~(1 << pin)
        mode = entry >> 8 & 7
        vector = self._bus.pic_acknowledge() if mode == Delivery.EXTINT else entry & 0xFF
        self.delivered[pin] += 1
        self._bus.deliver(
            entry >> 56 & 0xFF,
            logical=bool(entry & 1 << 11),
            mode=Delivery.FIXED if mode == Delivery.EXTINT else mode,
            vector=vector,
            level=level,
        )

    def eoi(self, vector: int) -> None:
        """A local APIC's EOI broadcast or a write to IOEOIR: matching level entries may be delivered again."""
        for pin, entry in enumerate(self.redirection):
            if entry & REMOTE_IRR and entry & 0xFF == vector and entry & LEVEL:
                self.redirection[pin] = entry & ~REMOTE_IRR
                self._service(pin)

    # -- registers

    def mmio_read(self, offset: int, size: int) -> int:
        if offset & ~0x3 == 0x00:
            value = self.select
        elif offset & ~0x3 == 0x10:
            value = self._read_indirect(self.select)
        else:
            value = 0
        return value >> 8 * (offset & 3) & ((1 << 8 * size) - 1)

    def mmio_write(self, offset: int, size: int, value: int) -> None:
        if offset == 0x00:
            self.select = value & 0xFF
        elif offset == 0x10 and size == 4:
            self._write_indirect(self.select, value)
        elif offset == 0x40:
            self.eoi(value & 0xFF)

    def _read_indirect(self, index: int) -> int:
        if index in (0x00, 0x02):  # IOAPICID, IOAPICARB
            return self.id << 24
        if index == 0x01:  # IOAPICVER
            return (PINS - 1) << 16 | VERSION
        pin = (index - 0x10) >> 1
        if 0 <= pin < PINS:
            return self.redirection[pin] >> (32 if index & 1 else 0) & 0xFFFF_FFFF
        return 0

    def _write_indirect(self, index: int, value: int) -> None:
        if index == 0x00:
            self.id = value >> 24 & 0xF
            return
        pin = (index - 0x10) >> 1
        if not 0 <= pin < PINS:
            return
        old = self.redirection[pin]
        new = (old & 0xFFFF_FFFF) | value << 32 if index & 1 else (old & ~0xFFFF_FFFF) | value
        new = (new & WRITABLE) | (old & READ_ONLY)
        if not new & LEVEL:
            # Software ends an interrupt on version 0x11 parts by switching to edge and back; keep that working.
            new &= ~REMOTE_IRR
            if old & LEVEL:
                self.irr &= ~(1 << pin)
        elif self.lines >> pin & 1:
            self.irr |= 1 << pin
        self.redirection[pin] = new
        self._service(pin)
