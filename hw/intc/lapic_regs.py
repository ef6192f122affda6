"""The local APIC's registers (Intel SDM volume 3, table 10-1 and 10.12.1.2): offset, name, and what may be written.

One row serves the memory-mapped page and, at MSR 0x800 + offset / 16, x2APIC mode.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntFlag

ID = 0x020
VERSION = 0x030
TPR = 0x080
APR = 0x090
PPR = 0x0A0
EOI = 0x0B0
RRD = 0x0C0
LDR = 0x0D0
DFR = 0x0E0
SVR = 0x0F0
ISR = 0x100
TMR = 0x180
IRR = 0x200
ESR = 0x280
ICR_LOW = 0x300
ICR_HIGH = 0x310
LVT_TIMER = 0x320
LVT_THERMAL = 0x330
LVT_PERFMON = 0x340
LVT_LINT0 = 0x350
LVT_LINT1 = 0x360
LVT_ERROR = 0x370
TIMER_INITIAL = 0x380
TIMER_CURRENT = 0x390
TIMER_DIVIDE = 0x3E0
SELF_IPI = 0x3F0

LVTS = (LVT_TIMER, LVT_THERMAL, LVT_PERFMON, LVT_LINT0, LVT_LINT1, LVT_ERROR)

LVT_MASKED = 1 << 16
LVT_LEVEL = 1 << 15
LVT_REMOTE_IRR = 1 << 14
LVT_READ_ONLY = 1 << 12 | LVT_REMOTE_IRR
SVR_ENABLE = 1 << 8


class Esr(IntFlag):
    """Error status (10.5.3)."""

    SEND_ILLEGAL_VECTOR = 1 << 5
    RECEIVE_ILLEGAL_VECTOR = 1 << 6
    ILLEGAL_REGISTER = 1 << 7


@dataclass(frozen=True, slots=True)
class Row:
    """One register. `writable` are the bits that software may set; None: the register is read-only.

    `x2apic`: it exists as an MSR. `xapic`: it exists in the page.
    """

    offset: int
    name: str
    writable: int | None = None
    readable: bool = True
    xapic: bool = True
    x2apic: bool = True


def _bank(offset: int, name: str) -> tuple[Row, ...]:
    return tuple(Row(offset + 0x10 * i, f"{name}{i}") for i in range(8))


ROWS: tuple[Row, ...] = (
    Row(ID, "ID", 0xFF00_0000),
    Row(VERSION, "VERSION"),
    Row(TPR, "TPR", 0xFF),
    Row(APR, "APR", x2apic=False),
    Row(PPR, "PPR"),
    Row(EOI, "EOI", 0, readable=False),
    Row(RRD, "RRD", x2apic=False),
    Row(LDR, "LDR", 0xFF00_0000),
    Row(DFR, "DFR", 0xF000_0000, x2apic=False),
    Row(SVR, "SVR", 0x3FF),
    *_bank(ISR, "ISR"),
    *_bank(TMR, "TMR"),
    *_bank(IRR, "IRR"),
    Row(ESR, "ESR", 0),
    Row(ICR_LOW, "ICR_LOW", 0x000C_CFFF),
    Row(ICR_HIGH, "ICR_HIGH", 0xFF00_0000, x2apic=False),
    Row(LVT_TIMER, "LVT_TIMER", 0x7_00FF),
    Row(LVT_THERMAL, "LVT_THERMAL", 0x1_07FF),
    Row(LVT_PERFMON, "LVT_PERFMON", 0x1_07FF),
    Row(LVT_LINT0, "LVT_LINT0", 0x1_A7FF),
    Row(LVT_LINT1, "LVT_LINT1", 0x1_A7FF),
    Row(LVT_ERROR, "LVT_ERROR", 0x1_00FF),
    Row(TIMER_INITIAL, "TIMER_INITIAL", 0xFFFF_FFFF),
    Row(TIMER_CURRENT, "TIMER_CURRENT"),
    Row(TIMER_DIVIDE, "TIMER_DIVIDE", 0xB),
    Row(SELF_IPI, "SELF_IPI", 0xFF, readable=False, xapic=False),
)

BY_OFFSET: dict[int, Row] = {row.offset: row for row in ROWS}
X2APIC_READ_ONLY = frozenset((ID, LDR))  # 10.12.1.2: derived from the x2APIC ID
