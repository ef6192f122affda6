"""The 16550A's registers and their bits (PC16550D data sheet, table II)."""

from __future__ import annotations

from enum import IntFlag

RBR_THR, IER_REG, IIR_FCR, LCR_REG, MCR_REG, LSR_REG, MSR_REG, SCR_REG = range(8)


class Ier(IntFlag):
    RDA = 1
    THRE = 2
    RLS = 4
    MS = 8


class Iir(IntFlag):
    NONE = 0x01
    MS = 0x00
    THRE = 0x02
    RDA = 0x04
    RLS = 0x06
    TIMEOUT = 0x0C
    FIFO = 0xC0


class Lcr(IntFlag):
    BREAK = 0x40
    DLAB = 0x80


class Mcr(IntFlag):
    DTR = 0x01
    RTS = 0x02
    OUT1 = 0x04
    OUT2 = 0x08
    LOOP = 0x10


class Lsr(IntFlag):
    DR = 0x01
    OE = 0x02
    PE = 0x04
    FE = 0x08
    BI = 0x10
    THRE = 0x20
    TEMT = 0x40


class Msr(IntFlag):
    DCTS = 0x01
    DDSR = 0x02
    TERI = 0x04
    DDCD = 0x08
    CTS = 0x10
    DSR = 0x20
    RI = 0x40
    DCD = 0x80
