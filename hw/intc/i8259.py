"""8259A programmable interrupt controllers, master and slave (Intel 8259A data sheet; ICH9 data sheet 5.8).

The slave's INT drives the master's input 2. The master's INT goes to the local APIC's LINT0 and, there, to the vCPU.
ELCR1/ELCR2 (ports 0x4D0, 0x4D1) choose level or edge per input as the ICH does; ICW1's LTIM bit is ignored.

Latched edges: IRR is set by a rising edge and cleared by the acknowledge; a level-triggered IRR follows its line.
"""

from __future__ import annotations

from hw.core.irq import IrqLine, Receiver, unconnected

CASCADE = 2
SPURIOUS = 7


class Pic8259:
    """One chip of the pair."""

    WIRING = ("elcr_mask", "master", "output")
    STATISTICS = ()
    SAVED = (
        "auto_eoi",
        "elcr",
        "icw4_needed",
        "imr",
        "init_step",
        "irr",
        "isr",
        "last",
        "lines",
        "poll",
        "priority_add",
        "read_isr",
        "rotate_on_auto_eoi",
        "single",
        "special_fully_nested",
        "special_mask",
        "vector_base",
    )
    __slots__ = WIRING + SAVED

    def __init__(self, *, master: bool, elcr_mask: int) -> None:
        self.master = master
        self.elcr_mask = elcr_mask
        self.output = IrqLine()
        self.elcr = 0
        self.lines = 0  # levels of the eight inputs
        self.reset()

    def reset(self) -> None:
        """Power-on: ELCR cleared too, the lines stay as the devices drive them."""
        self.elcr = 0
        self.vector_base = 0
        self.imr = 0
        self._initialize()
        self.icw4_needed = False
        self.init_step = 0
        self._update()

    def _initialize(self) -> None:
        """What ICW1 clears (data sheet, "Initialization command words")."""
        self.last = self.lines
        self.irr = self.lines & self.elcr
        self.isr = 0
        self.imr = 0
        self.priority_add = 0
        self.read_isr = False
        self.poll = False
        self.special_mask = False
        self.auto_eoi = False
        self.rotate_on_auto_eoi = False
        self.special_fully_nested = False
        self.single = False

    # -- inputs and output

    def set_input(self, pin: int, level: bool) -> None:
        """Input `pin` changes to `level`."""
        bit = 1 << pin
        if level:
            self.lines |= bit
            if self.elcr & bit or not self.last & bit:
                self.irr |= bit
            self.last |= bit
        else:
            self.lines &= ~bit
            self.last &= ~bit
            # The cascade follows the slave's INT: a latched edge of a withdrawn request would only be spurious.
            if self.elcr & bit or (self.master and pin == CASCADE):
                self.irr &= ~bit
        self._update()

    def _rotated_lowest(self, bits: int) -> int:
        """The highest-priority pin of `bits`, as a distance from the pin of highest priority; 8 when none."""
        if not bits:
            return 8
        rotated = (bits >> self.priority_add | bits << (8 - self.priority_add)) & 0xFF
        return (rotated & -rotated).bit_length() - 1

    def _candidate(self) -> int:
        """The pin that would be acknowledged now, -1 when none."""
        request = self.irr & ~self.imr
        if not request:
            return -1
        in_service = self.isr
        if self.special_mask:
            in_service &= ~self.imr
        if self.special_fully_nested and self.master:
            in_service &= ~(1 << CASCADE)
        priority = self._rotated_lowest(request)
        if priority < self._rotated_lowest(in_service):
            return (priority + self.priority_add) & 7
        return -1

    def _update(self) -> None:
        self.output.set(self._candidate() >= 0)

    def acknowledge(self) -> int:
        """INTA: the pin now in service, or -1 for the spurious answer."""
        pin = self._candidate()
        if pin < 0:
            return -1
        if self.auto_eoi:
            if self.rotate_on_auto_eoi:
                self.priority_add = (pin + 1) & 7
        else:
            self.isr |= 1 << pin
        if not self.elcr >> pin & 1:
            self.irr &= ~(1 << pin)
        self._update()
        return pin

    # -- registers

    def pio_read(self, offset: int, size: int) -> int:
        if self.poll:
            self.poll = False
            pin = self.acknowledge()
            return 0x80 | pin if pin >= 0 else 0
        if offset:
            return self.imr
        return self.isr if self.read_isr else self.irr

    def pio_write(self, offset: int, size: int, value: int) -> None:
        if offset:
            self._write_data(value)
        elif value & 0x10:
            self._initialize()
            self.init_step = 1
            self.icw4_needed = bool(value & 1)
            self.single = bool(value & 2)
        elif value & 0x08:
            self._write_ocw3(value)
        else:
            self._write_ocw2(value)
        self._update()

    def _write_data(self, value: int) -> None:
        if self.init_step == 0:
            self.imr = value
        elif self.init_step == 1:  # ICW2
            self.vector_base = value & 0xF8
            if self.single:
                self.init_step = 3 if self.icw4_needed else 0
            else:
                self.init_step = 2
        elif self.init_step == 2:  # ICW3: the cascade is wired, nothing to choose
            self.init_step = 3 if self.icw4_needed else 0
        else:  # ICW4
            self.special_fully_nested = bool(value & 0x10)
            self.auto_eoi = bool(value & 0x02)
            self.init_step = 0

    def _write_ocw3(self, value: int) -> None:
        if value & 0x04:
            self.poll = True
        if value & 0x02:
            self.read_isr = bool(value & 0x01)
        if value & 0x40:
            self.special_mask = bool(value & 0x20)

    def _write_ocw2(self, value: int) -> None:
        command = value >> 5
        pin = value & 7
        if command in (0, 4):  # rotate in automatic EOI mode: clear, set
            self.rotate_on_auto_eoi = command == 4
        elif command in (1, 5):  # non-specific EOI, without and with rotation
            in_service = self.isr & ~self.imr if self.special_mask else self.isr
            priority = self._rotated_lowest(in_service)
            if priority < 8:
                done = (priority + self.priority_add) & 7
                self.isr &= ~(1 << done)
                if command == 5:
                    self.priority_add = (done + 1) & 7
        elif command in (3, 7):  # specific EOI, without and with rotation
            self.isr &= ~(1 << pin)
            if command == 7:
                self.priority_add = (pin + 1) & 7
        elif command == 6:  # set priority
            self.priority_add = (pin + 1) & 7

    def write_elcr(self, value: int) -> None:
        """Level-triggered inputs are ones; inputs that the ICH fixes to edge stay zero."""
        self.elcr = value & self.elcr_mask
        self.irr = (self.irr & ~self.elcr) | (self.lines & self.elcr)
        self._update()


class Elcr:
    """ELCR1 and ELCR2 as two consecutive ports."""

    WIRING = ("pair",)
    STATISTICS = ()
    SAVED = ()
    __slots__ = WIRING

    def __init__(self, pair: Pic8259Pair) -> None:
        self.pair = pair

    def pio_read(self, offset: int, size: int) -> int:
        return (self.pair.slave if offset else self.pair.master).elcr

    def pio_write(self, offset: int, size: int, value: int) -> None:
        (self.pair.slave if offset else self.pair.master).write_elcr(value)


class Pic8259Pair:
    """Master and slave in cascade; `set_irq` takes ISA interrupt numbers 0 to 15."""

    WIRING = ()
    STATISTICS = ("spurious",)
    SAVED = ("master", "slave")
    __slots__ = WIRING + STATISTICS + SAVED

    def __init__(self) -> None:
        self.master = Pic8259(master=True, elcr_mask=0xF8)
        self.slave = Pic8259(master=False, elcr_mask=0xDE)
        self.slave.output.receiver = lambda level: self.master.set_input(CASCADE, level)
        self.spurious = 0

    @property
    def output(self) -> IrqLine:
        """The master's INT pin."""
        return self.master.output

    def connect(self, receiver: Receiver = unconnected) -> None:
        """Lead INT to `receiver`."""
        self.master.output.receiver = receiver

    def reset(self) -> None:
        self.slave.reset()
        self.master.reset()

    def set_irq(self, irq: int, level: bool) -> None:
        if irq < 8:
            if irq != CASCADE:
                self.master.set_input(irq, level)
        else:
            self.slave.set_input(irq - 8, level)

    def acknowledge(self) -> int:
        """The two INTA cycles: the vector that the vCPU takes."""
        pin = self.master.acknowledge()
        if pin < 0:
            self.spurious += 1
            return self.master.vector_base + SPURIOUS
        if pin != CASCADE:
            return self.master.vector_base + pin
        pin = self.slave.acknowledge()
        if pin < 0:
            self.spurious += 1
            pin = SPURIOUS
        return self.slave.vector_base + pin
