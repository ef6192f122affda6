"""ICH9 power management block at PMBASE: PM1 events and control, PM timer, GPE0, SMI (ICH9 data sheet 13.8).

The SCI line follows the enabled PM1 and GPE0 status bits. Writing SLP_EN with SLP_TYP 0 (the type that QEMU's and our
_S5 object name) powers the machine off.
"""

from __future__ import annotations

from collections.abc import Callable

from hw.core.clock import NS_PER_S, Clock, TimerQueue
from hw.core.irq import IrqLine
from hw.core.log import GuestLog
from hw.core.regs import RO, RW, W1C, Field, Reg, RegFile, RegMap, reserved

SIZE = 0x80
PM1_TMR = 0x08
TIMER_HZ = 3_579_545
TIMER_MASK = (1 << 24) - 1
HALF_WRAP = 1 << 23

TMROF, GBL, PWRBTN, RTC = 1 << 0, 1 << 5, 1 << 8, 1 << 10
WAK = 1 << 15
SCI_EN = 1 << 0
SLP_EN = 1 << 13
GBL_SMI_EN, APMC_EN = 1 << 0, 1 << 5
APM_STS = 1 << 5
ACPI_ENABLE, ACPI_DISABLE = 0x02, 0x03  # the values that the FADT names
SLEEP_S5, SLEEP_S4 = 0, 2  # of S3 (type 1) a machine without firmware could not wake

MAP = RegMap(
    SIZE,
    (
        Reg(
            0x00,
            "PM1_STS",
            2,
            (
                Field("TMROF_STS", 1, W1C),
                reserved(3),
                Field("BM_STS", 1, W1C),
                Field("GBL_STS", 1, W1C),
                reserved(2),
                Field("PWRBTN_STS", 1, W1C),
                reserved(1),
                Field("RTC_STS", 1, W1C),
                Field("PRBTNOR_STS", 1, W1C),
                reserved(2),
                Field("PCIEXPWAK_STS", 1, W1C),
                Field("WAK_STS", 1, W1C),
            ),
        ),
        Reg(
            0x02,
            "PM1_EN",
            2,
            (
                Field("TMROF_EN", 1),
                reserved(4),
                Field("GBL_EN", 1),
                reserved(2),
                Field("PWRBTN_EN", 1),
                reserved(1),
                Field("RTC_EN", 1),
                reserved(3),
                Field("PCIEXPWAK_DIS", 1),
                reserved(1),
            ),
        ),
        Reg(
            0x04,
            "PM1_CNT",
            4,
            (
                Field("SCI_EN", 1),
                Field("BM_RLD", 1),
                Field("GBL_RLS", 1),
                reserved(7),
                Field("SLP_TYP", 3),
                Field("SLP_EN", 1, RO),  # write-only: acts, reads as zero
                reserved(18),
            ),
        ),
        Reg(0x08, "PM1_TMR", 4, (Field("TMR_VAL", 24, RO), reserved(8))),
        Reg(0x20, "GPE0_STS", 8, (Field("GPE0_STS", 64, W1C),)),
        Reg(0x28, "GPE0_EN", 8, (Field("GPE0_EN", 64, RW),)),
        Reg(0x30, "SMI_EN", 4),
        Reg(0x34, "SMI_STS", 4, (Field("SMI_STS", 32, W1C),)),
    ),
)


class PowerManagement:
    """The block behind `IoWindow` PMBASE, and the SMI command port's effect (`apm_control`)."""

    WIRING = ("_clock", "_log", "raise_smi", "sci", "shutdown")
    STATISTICS = ()
    SAVED = ("overflow_timer", "overflow_tick", "regs")
    __slots__ = WIRING + STATISTICS + SAVED

    def __init__(self, clock: Clock, timers: TimerQueue, log: GuestLog) -> None:
        self._clock = clock
        self._log = log
        self.sci = IrqLine()
        self.shutdown: Callable[[str], None] = lambda _: None
        self.raise_smi: Callable[[], None] = lambda: None
        self.overflow_timer = timers.timer(self._overflow)
        self.regs = RegFile(MAP)
        self.regs.on_read["PM1_STS"] = self._status
        self.regs.on_read["PM1_TMR"] = lambda: self._ticks() & TIMER_MASK
        self.regs.on_write["PM1_STS"] = self._status_written
        self.regs.on_write["PM1_EN"] = lambda old, written: self._update()
        self.regs.on_write["PM1_CNT"] = self._control_written
        self.regs.on_write["GPE0_STS"] = lambda old, written: self._update()
        self.regs.on_write["GPE0_EN"] = lambda old, written: self._update()
        self.overflow_tick = HALF_WRAP
        self.reset()

    def reset(self) -> None:
        self.regs.reset()
        self._plan_overflow()
        self._update()

    def pio_read(self, offset: int, size: int) -> int:
        if offset == PM1_TMR:  # the clock source's hot path
            return self._ticks() & TIMER_MASK & ((1 << 8 * size) - 1)
        return self.regs.read(offset, size)

    def pio_write(self, offset: int, size: int, value: int) -> None:
        self.regs.write(offset, size, value)

    # -- PM timer

    def _ticks(self) -> int:
        return self._clock.now_ns() * TIMER_HZ // NS_PER_S

    def _plan_overflow(self) -> None:
        """TMROF_STS is set when bit 23 next changes."""
        self.overflow_tick = (self._ticks() // HALF_WRAP + 1) * HALF_WRAP

    def _status(self) -> int:
        """PM1_STS now, with a timer overflow that has happened since."""
        status = self.regs.get("PM1_STS")
        if self._ticks() >= self.overflow_tick:
            status |= TMROF
        return status

    def _status_written(self, old: int, written: int) -> None:
        if written & TMROF:
            self._plan_overflow()
        self._update()

    def _overflow(self) -> None:
        self._update()

    # -- events

    def _update(self) -> None:
        """The SCI line, and the deadline of a timer overflow that would raise it."""
        status = self._status()
        enable = self.regs.get("PM1_EN")
        active = status & enable & (TMROF | GBL | PWRBTN | RTC)
        gpe = self.regs.get("GPE0_STS") & self.regs.get("GPE0_EN")
        self.sci.set(bool(active or gpe))
        if enable & TMROF and not status & TMROF:
            self.overflow_timer.mod((self.overflow_tick * NS_PER_S + TIMER_HZ - 1) // TIMER_HZ)
        else:
            self.overflow_timer.cancel()

    def set_status(self, bits: int) -> None:
        """Set bits of PM1_STS."""
        self.regs.set("PM1_STS", self.regs.get("PM1_STS") | bits)
        self._update()

    def power_button(self) -> None:
        """The user presses the power button."""
        self.set_status(PWRBTN)

    def set_gpe(self, number: int) -> None:
        """Raise general-purpose event `number`."""
        self.regs.set("GPE0_STS", self.regs.get("GPE0_STS") | 1 << number)
        self._update()

    def _control_written(self, old: int, written: int) -> None:
        if not written & SLP_EN:
            return
        sleep_type = self.regs.get("PM1_CNT") >> 10 & 7
        if sleep_type in (SLEEP_S5, SLEEP_S4):
            self.shutdown("guest-shutdown")
        else:
            self._log.unimp("ICH9 PM", f"sleep type {sleep_type}")

    # -- SMI

    def apm_control(self, value: int) -> None:
        """A write to APM_CNT (port 0xB2): ACPI_ENABLE and ACPI_DISABLE act here as on QEMU's ICH9, others raise SMI."""
        if value in (ACPI_ENABLE, ACPI_DISABLE):
            control = self.regs.get("PM1_CNT")
            self.regs.set("PM1_CNT", control | SCI_EN if value == ACPI_ENABLE else control & ~SCI_EN)
        elif self.regs.get("SMI_EN") & (GBL_SMI_EN | APMC_EN) == GBL_SMI_EN | APMC_EN:
            self.regs.set("SMI_STS", self.regs.get("SMI_STS") | APM_STS)
            self.raise_smi()


class ApmPorts:
    """APM_CNT (0xB2) and APM_STS (0xB3)."""

    WIRING = ("_pm",)
    STATISTICS = ()
    SAVED = ("control", "status")
    __slots__ = WIRING + SAVED

    def __init__(self, pm: PowerManagement) -> None:
        self._pm = pm
        self.reset()

    def reset(self) -> None:
        self.control = 0
        self.status = 0

    def pio_read(self, offset: int, size: int) -> int:
        return self.status if offset else self.control

    def pio_write(self, offset: int, size: int, value: int) -> None:
        if offset:
            self.status = value
        else:
            self.control = value
            self._pm.apm_control(value)


class ResetControl:
    """RST_CNT, port 0xCF9: RST_CPU (bit 2) going high resets, hard or soft as SYS_RST (1) and FULL_RST (3) say."""

    WIRING = ("reset_machine",)
    STATISTICS = ()
    SAVED = ("value",)
    __slots__ = WIRING + SAVED

    def __init__(self) -> None:
        self.reset_machine: Callable[[], None] = lambda: None
        self.value = 0

    def reset(self) -> None:
        self.value = 0

    def pio_read(self, offset: int, size: int) -> int:
        return self.value

    def pio_write(self, offset: int, size: int, value: int) -> None:
        if value & 4:
            self.reset_machine()
        else:
            self.value = value & 0x0A
