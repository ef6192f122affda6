"""Lazy status flags: what cc_op, cc_dst, cc_src, cc_src2 in env mean (Intel SDM volume 1, section 3.4.3.1).

An instruction that sets flags leaves behind how to work them out: a CcOp and up to three values, each stored
zero-extended from the operand size w. `helpers.flags` computes them, `status` below states them plainly,
for tests and constant folding; the frontend's IR says the same once more, case by case.

| family | cc_dst | cc_src | cc_src2 | CF | OF | AF |
|---|---|---|---|---|---|---|
| EFLAGS | - | the six flags at their RFLAGS places | - | src | src | src |
| CLR | - | - | - | 0 | 0 | 0 (ZF = PF = 1: the result is known to be zero) |
| POPCNT | - | the source operand, zero-extended | - | 0 | 0 | 0 (SF = PF = 0, ZF = src is 0) |
| ADCX | CF (0/1) | the other five at their places | - | dst | src | src |
| ADOX | - | the other five at their places | OF (0/1) | src | src2 | src |
| ADCOX | CF (0/1) | the other four at their places | OF (0/1) | dst | src2 | src |
| ADD | a + b | b | - | carry | overflow | carry from bit 3 |
| ADC | a + b + c | b | c (0/1) | carry | overflow | carry from bit 3 |
| SUB | a - b | b | - | borrow | overflow | borrow of bit 3 |
| SBB | a - b - c | b | c (0/1) | borrow | overflow | borrow of bit 3 |
| LOGIC | result | - | - | 0 | 0 | 0 |
| INC | a + 1 | CF before (0/1) | - | src | dst is the least signed value | dst & 15 is 0 |
| DEC | a - 1 | CF before (0/1) | - | src | dst is the greatest signed value | dst & 15 is 15 |
| SHL | a << n | a << (n - 1) | - | msb of src | msb of src ^ dst | 0 |
| SAR | a >> n | a >> (n - 1), for SHR and SAR alike | - | bit 0 of src | msb of src ^ dst | 0 |
| MUL | low half | nonzero: the high half is significant | - | src is not 0 | the same | 0 |
| BMILG | result | the source operand | - | src is 0 | 0 | 0 (BLSR, BLSMSK, TZCNT, LZCNT) |
| BLSI | result | the source operand | - | src is not 0 | 0 | 0 (BLSI; BZHI with src = index out of range) |

ZF, SF and PF follow from cc_dst where the table says nothing else. Rotates are ADCOX, BT is ADCX, CMP is SUB, NEG is
SUB with a = 0, CMPXCHG is SUB, XADD is ADD.
"""

from enum import IntEnum


class CcOp(IntEnum):
    """Which rule of the table applies. A sized one is its family's value + log2(bytes); 0 means "see env.cc_op"."""

    UNKNOWN = 0  # a translator's word, never in env
    EFLAGS = 1
    CLR = 2
    POPCNT = 3
    ADCX = 4
    ADOX = 5
    ADCOX = 6

    ADDB, ADDW, ADDL, ADDQ = range(8, 12)
    ADCB, ADCW, ADCL, ADCQ = range(12, 16)
    SUBB, SUBW, SUBL, SUBQ = range(16, 20)
    SBBB, SBBW, SBBL, SBBQ = range(20, 24)
    LOGICB, LOGICW, LOGICL, LOGICQ = range(24, 28)
    INCB, INCW, INCL, INCQ = range(28, 32)
    DECB, DECW, DECL, DECQ = range(32, 36)
    SHLB, SHLW, SHLL, SHLQ = range(36, 40)
    SARB, SARW, SARL, SARQ = range(40, 44)
    MULB, MULW, MULL, MULQ = range(44, 48)
    BMILGB, BMILGW, BMILGL, BMILGQ = range(48, 52)
    BLSIB, BLSIW, BLSIL, BLSIQ = range(52, 56)

    @property
    def sized(self) -> bool:
        return self >= FIRST_SIZED

    @property
    def family(self) -> "CcOp":
        """The byte-sized member of a sized op, the op itself otherwise."""
        return CcOp(self & ~3) if self.sized else self

    @property
    def width(self) -> int:
        """Operand width in bits of a sized op."""
        return 8 << (self & 3) if self.sized else 64


FIRST_SIZED = 8

# Operands that a rule reads; the frontend need not store the others.
USES_DST = frozenset(op for op in CcOp if op.sized) | {CcOp.ADCX, CcOp.ADCOX}
USES_SRC = frozenset(op for op in CcOp if op.sized and op.family is not CcOp.LOGICB) | {
    CcOp.EFLAGS,
    CcOp.POPCNT,
    CcOp.ADCX,
    CcOp.ADOX,
    CcOp.ADCOX,
}
USES_SRC2 = frozenset(op for op in CcOp if op.family in (CcOp.ADCB, CcOp.SBBB)) | {CcOp.ADOX, CcOp.ADCOX}

CF, PF, AF, ZF, SF, OF = 0x001, 0x004, 0x010, 0x040, 0x080, 0x800


def status(op: CcOp, dst: int = 0, src: int = 0, src2: int = 0) -> int:
    """The six flags at their RFLAGS places; operands are non-negative and zero-extended from the operand size."""
    match op:
        case CcOp.EFLAGS:
            return src & (CF | PF | AF | ZF | SF | OF)
        case CcOp.CLR:
            return ZF | PF
        case CcOp.POPCNT:
            return 0 if src else ZF
        case CcOp.ADCX:
            return src & (PF | AF | ZF | SF | OF) | CF * dst
        case CcOp.ADOX:
            return src & (CF | PF | AF | ZF | SF) | OF * src2
        case CcOp.ADCOX:
            return src & (PF | AF | ZF | SF) | CF * dst | OF * src2
    width = op.width
    mask, msb = (1 << width) - 1, 1 << (width - 1)
    carry = overflow = half = False
    match op.family:
        case CcOp.ADDB | CcOp.ADCB:
            c = src2 if op.family is CcOp.ADCB else 0
            a = (dst - src - c) & mask
            carry = a + src + c > mask
            overflow = bool(~(a ^ src) & (a ^ dst) & msb)
            half = bool((a ^ src ^ dst) & 16)
        case CcOp.SUBB | CcOp.SBBB:
            c = src2 if op.family is CcOp.SBBB else 0
            a = (dst + src + c) & mask
            carry = a < src + c
            overflow = bool((a ^ src) & (a ^ dst) & msb)
            half = bool((a ^ src ^ dst) & 16)
        case CcOp.INCB:
            carry, overflow, half = bool(src), dst == msb, dst & 15 == 0
        case CcOp.DECB:
            carry, overflow, half = bool(src), dst == msb - 1, dst & 15 == 15
        case CcOp.SHLB:
            carry, overflow = bool(src & msb), bool((src ^ dst) & msb)
        case CcOp.SARB:
            carry, overflow = bool(src & 1), bool((src ^ dst) & msb)
        case CcOp.MULB:
            carry = overflow = src != 0
        case CcOp.BMILGB:
            carry = src == 0
        case CcOp.BLSIB:
            carry = src != 0
    return (
        CF * carry
        | PF * (bin(dst & 0xFF).count("1") % 2 == 0)
        | AF * half
        | ZF * (dst == 0)
        | SF * bool(dst & msb)
        | OF * overflow
    )
