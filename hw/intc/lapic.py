"""The local APIC's register interface: xAPIC page, x2APIC MSRs, interrupt command register (SDM volume 3, 10.4,
10.6, 10.12). What the registers mean to interrupts is `lapic_core`.
"""

from __future__ import annotations

from hw.intc import lapic_regs as r
from hw.intc.apic_bus import Delivery
from hw.intc.lapic_core import BASE_ENABLE, BASE_EXTD, LapicCore
from hw.intc.lapic_regs import Esr

MSR_APIC_BASE = 0x1B
MSR_TSC_DEADLINE = 0x6E0
MSR_X2APIC = 0x800
VERSION = 0x14 | (len(r.LVTS) - 1) << 16


class LocalApic(LapicCore):
    """One vCPU's local APIC as software sees it."""

    __slots__ = ()

    # -- registers

    def read_register(self, offset: int) -> int:
        """The 32-bit register at `offset` of the page."""
        if offset == r.ID:
            return self.apic_id if self.x2apic else self.xapic_id << 24
        if offset == r.VERSION:
            return VERSION
        if offset == r.TPR:
            return self.tpr_value
        if offset == r.PPR:
            return self.ppr
        if offset == r.LDR:
            return (self.apic_id >> 4) << 16 | 1 << (self.apic_id & 15) if self.x2apic else self.ldr
        if offset == r.DFR:
            return self.dfr
        if offset == r.SVR:
            return self.svr
        if r.ISR <= offset < r.ISR + 0x80:
            return self.isr >> 2 * (offset - r.ISR) & 0xFFFF_FFFF
        if r.TMR <= offset < r.TMR + 0x80:
            return self.tmr >> 2 * (offset - r.TMR) & 0xFFFF_FFFF
        if r.IRR <= offset < r.IRR + 0x80:
            return self.irr >> 2 * (offset - r.IRR) & 0xFFFF_FFFF
        if offset == r.ESR:
            return self.esr
        if offset == r.ICR_LOW:
            return self.icr & 0xFFFF_FFFF
        if offset == r.ICR_HIGH:
            return self.icr >> 32
        if offset in self.lvt:
            return self.lvt[offset]
        if offset == r.TIMER_INITIAL:
            return self.timer.initial
        if offset == r.TIMER_CURRENT:
            return self.timer.current()
        if offset == r.TIMER_DIVIDE:
            return self.timer.divide
        return 0  # APR, RRD

    def write_register(self, offset: int, value: int) -> None:
        """Write the 32-bit register at `offset` of the page; `value` holds writable bits only."""
        if offset == r.EOI:
            self.eoi()
        elif offset == r.TPR:
            self.tpr = value
        elif offset == r.ICR_LOW:
            self.icr = (self.icr & ~0xFFFF_FFFF) | (value & ~(1 << 12))
            self._send_ipi()
        elif offset == r.ICR_HIGH:
            self.icr = (self.icr & 0xFFFF_FFFF) | value << 32
        elif offset == r.TIMER_INITIAL:
            self.timer.set_initial(value)
        elif offset in self.lvt:
            self._write_lvt(offset, value)
        elif offset == r.ID:
            self.xapic_id = value >> 24
        elif offset == r.LDR:
            self.ldr = value
        elif offset == r.DFR:
            self.dfr = value | 0x0FFF_FFFF
        elif offset == r.SVR:
            self.svr = value
            if not value & r.SVR_ENABLE:
                for lvt in self.lvt:
                    self.lvt[lvt] |= r.LVT_MASKED
            self._update()
        elif offset == r.ESR:
            self.esr = self.esr_pending
            self.esr_pending = 0
        elif offset == r.TIMER_DIVIDE:
            self.timer.set_divide(value)
        elif offset == r.SELF_IPI:
            self._request_self(value)

    def _write_lvt(self, offset: int, value: int) -> None:
        old = self.lvt[offset]
        value |= old & r.LVT_READ_ONLY
        if not self.svr & r.SVR_ENABLE:
            value |= r.LVT_MASKED
        self.lvt[offset] = value
        if offset == r.LVT_TIMER:
            self.timer.set_mode(value >> 17 & 3)
        elif offset == r.LVT_LINT0:
            self._drive_lint0()
            self._update()

    def _request_self(self, vector: int) -> None:
        if vector < 16:
            self._error(Esr.SEND_ILLEGAL_VECTOR)
        else:
            self._request(vector, level=False)

    def _send_ipi(self) -> None:
        """Act on ICR (10.6.1)."""
        icr = self.icr
        mode = icr >> 8 & 7
        vector = icr & 0xFF
        shorthand = icr >> 18 & 3
        if mode in (Delivery.FIXED, Delivery.LOWEST) and vector < 16:
            self._error(Esr.SEND_ILLEGAL_VECTOR)
            return
        if shorthand == 1:
            targets: list[LapicCore] = [self]
        elif shorthand:
            targets = [lapic for lapic in self._bus.lapics if lapic is not self or shorthand == 2]
        else:
            destination = icr >> 32 if self.x2apic else icr >> 56
            targets = self._bus.targets(destination, logical=bool(icr & 1 << 11))
        level = bool(icr & 1 << 15) and mode == Delivery.INIT
        self._bus.deliver_to(targets, mode, vector, level=level, assert_=bool(icr & 1 << 14))

    # -- the page

    def mmio_read(self, offset: int, size: int) -> int:
        """A read of the page; all ones when the page is not there (disabled, or x2APIC mode)."""
        if self.base & (BASE_ENABLE | BASE_EXTD) != BASE_ENABLE:
            return (1 << 8 * size) - 1
        row = r.BY_OFFSET.get(offset & ~0xF)
        if row is None or not row.xapic:
            self._error(Esr.ILLEGAL_REGISTER)
            return 0
        if not row.readable or offset & 0xC:
            return 0
        return self.read_register(row.offset) >> 8 * (offset & 3) & ((1 << 8 * size) - 1)

    def mmio_write(self, offset: int, size: int, value: int) -> None:
        """A write to the page; only aligned dwords count (10.4.1)."""
        if self.base & (BASE_ENABLE | BASE_EXTD) != BASE_ENABLE:
            return
        if offset & 0xF or size != 4:
            self._log.guest_error("local APIC", f"write of {size} bytes at offset {offset:#x}")
            return
        row = r.BY_OFFSET.get(offset)
        if row is None or not row.xapic:
            self._error(Esr.ILLEGAL_REGISTER)
        elif row.writable is not None:
            self.write_register(offset, value & row.writable)

    # -- MSRs

    def read_msr(self, index: int) -> int | None:
        """RDMSR of IA32_APIC_BASE, IA32_TSC_DEADLINE or an x2APIC register; None means #GP."""
        if index == MSR_APIC_BASE:
            return self.base
        if index == MSR_TSC_DEADLINE:
            return self.timer.deadline_tsc
        row = self._x2apic_row(index)
        if row is None or not row.readable:
            return None
        if row.offset == r.ICR_LOW:
            return self.icr
        return self.read_register(row.offset)

    def write_msr(self, index: int, value: int) -> bool:
        """WRMSR of the same registers; False means #GP."""
        if index == MSR_APIC_BASE:
            return self.set_apic_base(value)
        if index == MSR_TSC_DEADLINE:
            self.timer.set_deadline(value)
            return True
        row = self._x2apic_row(index)
        if row is None or row.writable is None or row.offset in r.X2APIC_READ_ONLY:
            return False
        if row.offset == r.ICR_LOW:
            if value & 0xFFFF_FFFF & ~row.writable:
                return False
            self.icr = value
            self._send_ipi()
            return True
        if value & ~row.writable:
            return False
        self.write_register(row.offset, value)
        return True

    def _x2apic_row(self, index: int) -> r.Row | None:
        if not self.base & BASE_EXTD:
            return None
        row = r.BY_OFFSET.get((index - MSR_X2APIC) << 4)
        return row if row is not None and row.x2apic else None
