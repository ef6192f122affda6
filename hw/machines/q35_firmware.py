"""What firmware leaves behind, for a machine that boots a kernel without one.

Every value was read from QEMU 7.2's q35 after SeaBIOS 1.16 had run (`xp` and `i` in the monitor). The writes go through
the devices' own registers, so that their side effects happen as they do under firmware.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hw.intc import lapic_regs

if TYPE_CHECKING:
    from hw.machines.q35 import Q35

PMBASE = 0x600
RCBA = 0xFED1_C000
PCI_COMMAND = 0x0103  # I/O, memory, SERR#
PAM_VALUES = (0x10, 0x11, 0x11, 0x11, 0x11, 0x11, 0x33)
PIRQ_ROUTES = (10, 10, 11, 11)
KIB = 1024


def fill_cmos(machine: Q35) -> None:
    """The bytes that the board itself presets: memory sizes, equipment, boot order."""
    from hw.machines.q35 import low_ram_size

    cmos = machine.rtc.cmos
    size = len(machine.memory.ram)
    low = low_ram_size(size)
    _put16(cmos, 0x15, min(low // KIB, 640))
    extended = min(max(low // KIB - 1024, 0), 0xFFFF)
    _put16(cmos, 0x17, extended)
    _put16(cmos, 0x30, extended)
    _put16(cmos, 0x34, min(max(low - (16 << 20), 0) >> 16, 0xFFFF))
    cmos[0x5B:0x5E] = min((size - low) >> 16, 0xFF_FFFF).to_bytes(3, "little")
    cmos[0x5F] = len(machine.lapics) - 1
    cmos[0x14] = 0x06  # coprocessor, PS/2 mouse
    cmos[0x38] = 0x30
    cmos[0x3D] = 0x12


def leave_as_seabios(machine: Q35) -> None:
    """Program the chipset as the firmware does before it starts an operating system."""
    mch, lpc = machine.mch, machine.lpc
    for function in (mch, lpc):
        function.config_write(0x04, 2, PCI_COMMAND)
    mch.config_write(0x60, 8, 0xB000_0001)
    for i, value in enumerate(PAM_VALUES):
        mch.config_write(0x90 + i, 1, value)
    mch.config_write(0x9D, 1, 0x0A)
    lpc.config_write(0x40, 4, PMBASE | 1)
    lpc.config_write(0x44, 1, 0x80)
    for base in (0x60, 0x68):
        for i, irq in enumerate(PIRQ_ROUTES):
            lpc.config_write(base + i, 1, irq)
    lpc.config_write(0x82, 2, 0x0001 if machine.serial else 0)
    lpc.config_write(0xA0, 2, 0x0010)
    lpc.config_write(0xF0, 4, RCBA | 1)
    machine.pm.regs.set("SMI_EN", 0x21)
    _program_keyboard_controller(machine)
    _program_timer(machine)
    _program_pics(machine)  # after the devices: ICW1 forgets the edges that they made
    _program_lapics(machine)
    machine.port92.value = 0x02


def _program_keyboard_controller(machine: Q35) -> None:
    """Self-test passed, keyboard interrupt and translation on, mouse port off."""
    controller = machine.i8042
    controller.pio_write(4, 1, 0xAA)
    controller.pio_read(0, 1)
    controller.pio_write(4, 1, 0x60)
    controller.pio_write(0, 1, 0x61)
    controller.pio_write(4, 1, 0xA7)


def _program_pics(machine: Q35) -> None:
    """Vectors 0x08 and 0x70, cascade, and the masks that SeaBIOS leaves; PIRQ interrupts 10 and 11 are level."""
    for chip, base, cascade, mask in (
        (machine.pic.master, 0x08, 0x04, 0xB8),
        (machine.pic.slave, 0x70, 0x02, 0x8E),
    ):
        chip.pio_write(0, 1, 0x11)
        chip.pio_write(1, 1, base)
        chip.pio_write(1, 1, cascade)
        chip.pio_write(1, 1, 0x01)
        chip.pio_write(1, 1, mask)
    machine.pic.slave.write_elcr(0x0C)


def _program_lapics(machine: Q35) -> None:
    """Virtual wire mode on the boot processor (MultiProcessor specification 1.4, 3.6.2.2)."""
    for lapic in machine.lapics:
        lapic.write_register(lapic_regs.SVR, 0x1FF)
        if lapic.bsp:
            lapic.write_register(lapic_regs.LVT_LINT0, 0x8700)
            lapic.write_register(lapic_regs.LVT_LINT1, 0x8400)


def _program_timer(machine: Q35) -> None:
    """Counter 0: mode 2, 65536: the 18.2 Hz tick of the BIOS clock."""
    machine.pit.pio_write(3, 1, 0x34)
    machine.pit.pio_write(0, 1, 0)
    machine.pit.pio_write(0, 1, 0)


def _put16(cmos: bytearray, index: int, value: int) -> None:
    cmos[index] = value & 0xFF
    cmos[index + 1] = value >> 8
