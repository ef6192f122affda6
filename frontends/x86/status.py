"""Emission of the lazy status flags: how instructions leave them behind and how others read them (rules: `flags`).

A reader is specialised by `x.status_in`: with a known CcOp, a condition is one or two comparisons of cc_dst and cc_src;
with an unknown one, the helper works all six flags out. A writer stores nothing when nobody reads (`x.status_live`).

How a Status row (registry) speaks to the translator:
  reads, not kills   needs the flags always (Jcc, ADC)
  reads and kills    needs the old flags only to make the new ones (INC keeps CF): dead flags out, nothing is read
  kills only         overwrites all six (ADD)
  neither            passes them through: does not touch them, or merges at run time by what env holds (SHL by CL)
"""

from frontends.x86.context import X86Insn, env
from frontends.x86.flags import AF, CF, OF, PF, SF, USES_DST, USES_SRC, USES_SRC2, ZF, CcOp
from frontends.x86.helpers.decls import COMPUTE_EFLAGS
from tcg.ir.block import Const, Operand
from tcg.ir.types import I1, I8, I32, I64, INT_OF_SIZE, Cond

CC_DST, CC_SRC, CC_SRC2, CC_OP = env("cc_dst"), env("cc_src"), env("cc_src2"), env("cc_op")
SIX = CF | PF | AF | ZF | SF | OF

# Condition codes by the low four bits of the Jcc opcode (SDM vol. 1, appendix B), with every alias.
_NAMES = (
    *("o", "no", "b c nae", "ae nb nc", "e z", "ne nz", "be na", "a nbe"),
    *("s", "ns", "p pe", "np po", "l nge", "ge nl", "le ng", "g nle"),
)
CONDITIONS = {name: code for code, names in enumerate(_NAMES) for name in names.split()}

_LOG2 = {1: 0, 2: 1, 4: 2, 8: 3}


def sized(family: CcOp, size: int) -> CcOp:
    """The member of a sized family for operands of `size` bytes; an unsized op itself."""
    return CcOp(family + _LOG2[size]) if family.sized else family


# --- writing ----------------------------------------------------------------------------------------------------------
def set_status(
    x: X86Insn,
    family: CcOp,
    dst: Operand | None = None,
    src: Operand | None = None,
    src2: Operand | None = None,
    size: int | None = None,
) -> None:
    """Leave the flags of `family` (sized by dst's type unless `size` says); only if somebody reads them.

    The operands are zero-extended to env's fields; those that the family does not read may be None.
    """
    if not x.status_live:
        return
    if family.sized and size is None:
        assert dst is not None
        size = dst.type.size
    op = sized(family, size or 8)
    b = x.b
    for uses, place, value in ((USES_DST, CC_DST, dst), (USES_SRC, CC_SRC, src), (USES_SRC2, CC_SRC2, src2)):
        if op in uses:
            assert value is not None, (op, place)
            b.st(place, b.zext(value, I64))
    b.st(CC_OP, Const(I32, int(op)))


def set_flags(x: X86Insn, flags: Operand) -> None:
    """All six flags at their RFLAGS places (other bits clear), as CcOp.EFLAGS."""
    set_status(x, CcOp.EFLAGS, src=flags)


def bit_at(x: X86Insn, condition: Operand, flag: int) -> Operand:
    """i64 with `flag` set when the i1 holds."""
    wide = x.b.zext(condition, I64)
    return wide if flag == 1 else x.b.shl(wide, flag.bit_length() - 1)


# --- reading ----------------------------------------------------------------------------------------------------------
class _Known:
    """The flags of a known CcOp in env, each worked out when asked for."""

    def __init__(self, x: X86Insn, op: CcOp) -> None:
        self.b = x.b
        self.op = op
        self.family = op.family
        self.type = INT_OF_SIZE[op.width // 8]

    # Fields, as integers of the operand's width (little-endian: the low bytes of the field).
    @property
    def dst(self) -> Operand:
        return self.b.ld(self.type, CC_DST)

    @property
    def src(self) -> Operand:
        return self.b.ld(self.type, CC_SRC)

    @property
    def src2(self) -> Operand:
        return self.b.ld(self.type, CC_SRC2)

    def bit(self, place: Operand, flag: int) -> Operand:
        return self.b.setcond(Cond.NE, self.b.and_(place, flag), 0)

    def first(self) -> Operand:
        """The first operand of SUB."""
        return self.b.add(self.dst, self.src)

    def carry(self) -> Operand:
        b = self.b
        match self.family:
            case CcOp.EFLAGS | CcOp.ADOX:
                return self.bit(self.src, CF)
            case CcOp.CLR | CcOp.POPCNT | CcOp.LOGICB:
                return Const(I1, 0)
            case CcOp.ADCX | CcOp.ADCOX:
                return b.setcond(Cond.NE, self.dst, 0)
            case CcOp.ADDB:
                return b.setcond(Cond.LTU, self.dst, self.src)
            case CcOp.ADCB:
                dst, src = self.dst, self.src
                carried = b.setcond(Cond.NE, self.src2, 0)
                return b.select(carried, b.setcond(Cond.LEU, dst, src), b.setcond(Cond.LTU, dst, src))
            case CcOp.SUBB:
                return b.setcond(Cond.LTU, self.first(), self.src)
            case CcOp.SBBB:
                src, c = self.src, self.src2
                first = b.add(b.add(self.dst, src), c)
                borrowed = b.setcond(Cond.NE, c, 0)
                return b.select(borrowed, b.setcond(Cond.LEU, first, src), b.setcond(Cond.LTU, first, src))
            case CcOp.SHLB:
                return b.setcond(Cond.LT, self.src, 0)
            case CcOp.SARB:
                return b.trunc(self.src, I1)
            case CcOp.BMILGB:
                return b.setcond(Cond.EQ, self.src, 0)
            case _:  # INC, DEC, MUL, BLSI
                return b.setcond(Cond.NE, self.src, 0)

    def zero(self) -> Operand:
        match self.op:
            case CcOp.EFLAGS | CcOp.ADCX | CcOp.ADOX | CcOp.ADCOX:
                return self.bit(self.src, ZF)
            case CcOp.CLR:
                return Const(I1, 1)
            case CcOp.POPCNT:
                return self.b.setcond(Cond.EQ, self.src, 0)
        return self.b.setcond(Cond.EQ, self.dst, 0)

    def sign(self) -> Operand:
        match self.op:
            case CcOp.EFLAGS | CcOp.ADCX | CcOp.ADOX | CcOp.ADCOX:
                return self.bit(self.src, SF)
            case CcOp.CLR | CcOp.POPCNT:
                return Const(I1, 0)
        return self.b.setcond(Cond.LT, self.dst, 0)

    def parity(self) -> Operand:
        b = self.b
        match self.op:
            case CcOp.EFLAGS | CcOp.ADCX | CcOp.ADOX | CcOp.ADCOX:
                return self.bit(self.src, PF)
            case CcOp.CLR:
                return Const(I1, 1)
            case CcOp.POPCNT:
                return Const(I1, 0)
        return b.setcond(Cond.EQ, b.and_(b.popcnt(b.ld(I8, CC_DST)), 1), 0)

    def overflow(self) -> Operand:
        b = self.b
        match self.family:
            case CcOp.EFLAGS | CcOp.ADCX:
                return self.bit(self.src, OF)
            case CcOp.ADOX | CcOp.ADCOX:
                return b.setcond(Cond.NE, self.src2, 0)
            case CcOp.CLR | CcOp.POPCNT | CcOp.LOGICB | CcOp.BMILGB | CcOp.BLSIB:
                return Const(I1, 0)
            case CcOp.ADDB | CcOp.ADCB:
                dst, src = self.dst, self.src
                first = b.sub(dst, src)
                if self.family is CcOp.ADCB:
                    first = b.sub(first, self.src2)
                return b.setcond(Cond.LT, b.andc(b.xor(first, dst), b.xor(first, src)), 0)
            case CcOp.SUBB | CcOp.SBBB:
                dst, src = self.dst, self.src
                first = b.add(dst, src)
                if self.family is CcOp.SBBB:
                    first = b.add(first, self.src2)
                return b.setcond(Cond.LT, b.and_(b.xor(first, src), b.xor(first, dst)), 0)
            case CcOp.INCB:
                return b.setcond(Cond.EQ, self.dst, 1 << (self.op.width - 1))
            case CcOp.DECB:
                return b.setcond(Cond.EQ, self.dst, (1 << (self.op.width - 1)) - 1)
            case CcOp.SHLB | CcOp.SARB:
                return b.setcond(Cond.LT, b.xor(self.src, self.dst), 0)
            case _:  # MUL
                return b.setcond(Cond.NE, self.src, 0)

    def even(self, code: int) -> Operand:
        """The condition of an even code."""
        b = self.b
        match code:
            case 0:
                return self.overflow()
            case 2:
                return self.carry()
            case 4:
                return self.zero()
            case 6:
                if self.family is CcOp.SUBB:
                    return b.setcond(Cond.LEU, self.first(), self.src)
                return self.zero() if self.never_carries else b.or_(self.carry(), self.zero())
            case 8:
                return self.sign()
            case 10:
                return self.parity()
            case 12:
                if self.family is CcOp.SUBB:
                    return b.setcond(Cond.LT, self.first(), self.src)
                return self.sign() if self.never_overflows else b.xor(self.sign(), self.overflow())
        if self.family is CcOp.SUBB:
            return b.setcond(Cond.LE, self.first(), self.src)
        if self.family is CcOp.LOGICB:
            return b.setcond(Cond.LE, self.dst, 0)
        return b.or_(self.zero(), self.even(12))

    @property
    def never_carries(self) -> bool:
        return self.family in (CcOp.LOGICB, CcOp.POPCNT, CcOp.CLR)

    @property
    def never_overflows(self) -> bool:
        return self.family in (CcOp.LOGICB, CcOp.POPCNT, CcOp.CLR, CcOp.BMILGB, CcOp.BLSIB)


def all_flags(x: X86Insn) -> Operand:
    """The six incoming flags at their RFLAGS places, as i64."""
    if x.status_in == CcOp.EFLAGS:
        return x.b.ld(I64, CC_SRC)
    return x.call(COMPUTE_EFLAGS)


def _of_flags(x: X86Insn, flags: Operand, code: int) -> Operand:
    """The condition of an even code, from flags at their RFLAGS places."""
    b = x.b
    if code >= 12:
        differ = b.and_(b.xor(flags, b.shr(flags, 4)), SF)  # SF is bit 7, OF bit 11
        return b.setcond(Cond.NE, differ if code == 12 else b.or_(differ, b.and_(flags, ZF)), 0)
    mask = {0: OF, 2: CF, 4: ZF, 6: CF | ZF, 8: SF, 10: PF}[code]
    return b.setcond(Cond.NE, b.and_(flags, mask), 0)


def negate(x: X86Insn, value: Operand) -> Operand:
    """not value, of an i1; a comparison just made is turned round instead."""
    if isinstance(value, Const):
        return Const(I1, value.value ^ 1)
    return x.b.not_(value)


def condition(x: X86Insn, code: int) -> Operand:
    """i1: condition `code` (0..15, as in Jcc's opcode) of the incoming flags."""
    even = code & ~1
    if x.status_in in (CcOp.UNKNOWN, CcOp.EFLAGS):
        value = _of_flags(x, all_flags(x), even)
    else:
        value = _Known(x, CcOp(x.status_in)).even(even)
    return negate(x, value) if code & 1 else value


def carry(x: X86Insn) -> Operand:
    """i1: the incoming CF."""
    return condition(x, CONDITIONS["c"])


# --- keeping some flags of the old ones -------------------------------------------------------------------------------
def keep_zero(x: X86Insn) -> None:
    """Make cc_dst nonzero exactly when the incoming ZF is clear (for BT, which keeps ZF alone). No flags are set."""
    b = x.b
    if x.status_in:
        if not CcOp(x.status_in).sized:
            b.st(CC_DST, b.zext(condition(x, CONDITIONS["nz"]), I64))
        return
    done = b.new_label()
    b.brcond(b.setcond(Cond.GEU, b.ld(I32, CC_OP), CcOp.ADDB), done, likely=True)
    b.st(CC_DST, b.zext(condition(x, CONDITIONS["nz"]), I64))
    b.label(done)


def keep_carry(x: X86Insn) -> None:
    """Make cc_src the incoming CF as 0 or 1 (for INC and DEC). No flags are set."""
    b = x.b
    if x.status_in:
        if CcOp(x.status_in).family not in (CcOp.INCB, CcOp.DECB):
            b.st(CC_SRC, b.zext(carry(x), I64))
        return
    done = b.new_label()
    first = b.sub(b.ld(I32, CC_OP), CcOp.INCB)
    b.brcond(b.setcond(Cond.LTU, first, 8), done, likely=True)
    b.st(CC_SRC, b.zext(carry(x), I64))
    b.label(done)


def split(x: X86Insn) -> None:
    """Bring the incoming flags into CcOp.ADCOX's shape in env: CF in cc_dst, OF in cc_src2, the others in cc_src.

    For instructions that change CF or OF and keep the rest (rotates, ADCX, CLC); cc_op is left to set_status.
    """
    b = x.b
    if x.status_in == CcOp.ADCOX:
        return
    done = b.new_label()
    if not x.status_in:
        b.brcond(b.setcond(Cond.EQ, b.ld(I32, CC_OP), CcOp.ADCOX), done)
    flags = all_flags(x)
    b.st(CC_DST, b.and_(flags, CF))
    b.st(CC_SRC, flags)
    b.st(CC_SRC2, b.shr(flags, 11))
    b.label(done)


def set_split(x: X86Insn, cf: Operand | None = None, of: Operand | None = None) -> None:
    """After `split`: replace CF, OF (i1) or keep them, and say that env holds CcOp.ADCOX."""
    b = x.b
    if cf is not None:
        b.st(CC_DST, b.zext(cf, I64))
    if of is not None:
        b.st(CC_SRC2, b.zext(of, I64))
    b.st(CC_OP, Const(I32, int(CcOp.ADCOX)))


def select_status(x: X86Insn, changed: Operand, family: CcOp, dst: Operand, src: Operand) -> None:
    """Flags of a sized family with dst and src when `changed`, else the old ones (shift by CL with a count of 0)."""
    if not x.status_live:
        return
    b = x.b
    op = sized(family, dst.type.size)
    b.st(CC_DST, b.select(changed, b.zext(dst, I64), b.ld(I64, CC_DST)))
    b.st(CC_SRC, b.select(changed, b.zext(src, I64), b.ld(I64, CC_SRC)))
    b.st(CC_OP, b.select(changed, Const(I32, int(op)), b.ld(I32, CC_OP)))


def replace_zero(x: X86Insn, zero: Operand) -> None:
    """ZF := zero, the other five as they were (out: CcOp.EFLAGS)."""
    if x.status_live:
        set_flags(x, x.b.or_(x.b.and_(all_flags(x), SIX & ~ZF), bit_at(x, zero, ZF)))
