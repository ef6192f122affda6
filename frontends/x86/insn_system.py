"""System instructions (SDM vol. 3, 2.8): descriptor tables, control state, TLBs, time, ports, halting.

What they do lives in the system helpers, privilege checks included; here is only how operands reach them and whether
the block ends (`helpers.decls.ENDS`).
"""

from frontends.x86.context import X86Insn, env
from frontends.x86.flags import CcOp
from frontends.x86.helpers.decls import (
    CLAC,
    CLI,
    CLTS,
    CPUID,
    HLT,
    IN,
    INVLPG,
    INVPCID,
    LAR,
    LGDT,
    LIDT,
    LLDT,
    LMSW,
    LSL,
    LTR,
    MONITOR,
    MWAIT,
    OUT,
    POPF,
    PUSHF,
    RDBASE,
    RDMSR,
    RDPID,
    RDPMC,
    RDTSC,
    RDTSCP,
    STAC,
    STI,
    SWAPGS,
    VERR,
    VERW,
    WBINVD,
    WRBASE,
    WRMSR,
    XGETBV,
    XSETBV,
)
from frontends.x86.insn_move import stack_operand_size
from frontends.x86.operands import ImmShape, MemShape
from frontends.x86.registry import Status, instruction
from frontends.x86.state import Mode, Reg, Seg
from frontends.x86.status import replace_zero
from tcg.exec.forms import StatusOut
from tcg.ir.block import Const, HelperDecl, Operand
from tcg.ir.types import I16, I32, I64, INT_OF_SIZE, Cond

_UD = 6
_UNKNOWN = Status(out=StatusOut.UNKNOWN)


def _helper(x: X86Insn, decl: HelperDecl) -> None:
    x.b.call_void(decl)


def _protected_only(x: X86Insn) -> bool:
    """Raise #UD outside protected mode; whether to go on."""
    if not x.key.mode & Mode.PROTECTED:
        x.raise_(_UD)
        return False
    return True


# --- flags register ---------------------------------------------------------------------------------------------------
@instruction("pushf", "pushfd", "pushfq", status=Status(reads=True))
def PUSHF_(x: X86Insn) -> None:
    flags = x.call(PUSHF)
    x.push(x.b.trunc(flags, INT_OF_SIZE[stack_operand_size(x)]))


@instruction("popf", "popfd", "popfq", status=_UNKNOWN)
def POPF_(x: X86Insn) -> None:
    size = stack_operand_size(x)
    value, rsp = x.peek(size)
    x.b.call_void(POPF, x.b.zext(value, I64), size)
    x.set_rsp(rsp)
    x.reflow()


@instruction("cli")
def CLI_(x: X86Insn) -> None:
    _helper(x, CLI)


@instruction("sti")
def STI_(x: X86Insn) -> None:
    _helper(x, STI)
    x.b.goto_tb(1, x.next_pc)


@instruction("clac", feature="smap")
def CLAC_(x: X86Insn) -> None:
    """Only the mmu index changes, which the code after it reads from env: the block goes on."""
    _helper(x, CLAC)


@instruction("stac", feature="smap")
def STAC_(x: X86Insn) -> None:
    _helper(x, STAC)


# --- descriptor tables ------------------------------------------------------------------------------------------------
def _load_table(x: X86Insn, helper: HelperDecl) -> None:
    b = x.b
    gva = x.address(0)
    limit, base = x.load(gva, 2), b.zext(x.load(b.add(gva, 2), 8 if x.code64 else 4), I64)
    if not x.code64 and x.key.opsize == 2:
        base = b.and_(base, 0xFFFFFF)
    b.call_void(helper, b.zext(limit, I64), base)


@instruction("lgdt")
def LGDT_(x: X86Insn) -> None:
    _load_table(x, LGDT)


@instruction("lidt")
def LIDT_(x: X86Insn) -> None:
    _load_table(x, LIDT)


def _store_table(x: X86Insn, table: str) -> None:
    b = x.b
    gva = x.address(0)
    base: Operand = b.ld(I64, env(f"{table}_base"))
    x.store(gva, b.trunc(b.ld(I32, env(f"{table}_limit")), I16))
    x.store(b.add(gva, 2), base if x.code64 else b.trunc(base, I32))


@instruction("sgdt")
def SGDT(x: X86Insn) -> None:
    _store_table(x, "gdt")


@instruction("sidt")
def SIDT(x: X86Insn) -> None:
    _store_table(x, "idt")


def _selector(x: X86Insn, i: int = 0) -> Operand:
    """Operand i's low 16 bits, as i64."""
    return x.b.zext(x.read(i, 2), I64)


@instruction("lldt")
def LLDT_(x: X86Insn) -> None:
    if _protected_only(x):
        x.b.call_void(LLDT, _selector(x))


@instruction("ltr")
def LTR_(x: X86Insn) -> None:
    if _protected_only(x):
        x.b.call_void(LTR, _selector(x))


def _store_selector(x: X86Insn, seg: Seg) -> None:
    if not _protected_only(x):
        return
    selector = x.b.ld(I16, env("seg_selector", seg))
    x.write(0, selector if x.is_mem(0) else x.b.resize(selector, x.type))


@instruction("sldt")
def SLDT(x: X86Insn) -> None:
    _store_selector(x, Seg.LDTR)


@instruction("str")
def STR(x: X86Insn) -> None:
    _store_selector(x, Seg.TR)


def _inspect(x: X86Insn, helper: HelperDecl) -> None:
    if _protected_only(x):
        old = x.b.zext(x.read(0), I64)
        x.write(0, x.b.trunc(x.call(helper, _selector(x, 1), old), x.type))


# These set ZF through the helper, which leaves all flags as CcOp.EFLAGS in env.
@instruction("lar", status=_UNKNOWN)
def LAR_(x: X86Insn) -> None:
    _inspect(x, LAR)


@instruction("lsl", status=_UNKNOWN)
def LSL_(x: X86Insn) -> None:
    _inspect(x, LSL)


@instruction("verr", status=_UNKNOWN)
def VERR_(x: X86Insn) -> None:
    if _protected_only(x):
        x.b.call_void(VERR, _selector(x))


@instruction("verw", status=_UNKNOWN)
def VERW_(x: X86Insn) -> None:
    if _protected_only(x):
        x.b.call_void(VERW, _selector(x))


@instruction("arpl", status=Status(reads=True, kills=True, out=CcOp.EFLAGS))
def ARPL(x: X86Insn) -> None:
    b = x.b
    if not _protected_only(x):
        return
    wanted = b.and_(x.read(1), 3)
    old, _ = x.modify(
        0, lambda a: b.select(b.setcond(Cond.LTU, b.and_(a, 3), wanted), b.or_(b.and_(a, 0xFFFC), wanted), a)
    )
    replace_zero(x, b.setcond(Cond.LTU, b.and_(old, 3), wanted))


# --- segment bases ----------------------------------------------------------------------------------------------------
@instruction("swapgs")
def SWAPGS_(x: X86Insn) -> None:
    _helper(x, SWAPGS)


def _read_base(x: X86Insn, seg: Seg) -> None:
    x.write(0, x.b.trunc(x.call(RDBASE, int(seg)), x.type))


def _write_base(x: X86Insn, seg: Seg) -> None:
    x.b.call_void(WRBASE, int(seg), x.b.zext(x.read(0), I64))


@instruction("rdfsbase", feature="fsgsbase")
def RDFSBASE(x: X86Insn) -> None:
    _read_base(x, Seg.FS)


@instruction("rdgsbase", feature="fsgsbase")
def RDGSBASE(x: X86Insn) -> None:
    _read_base(x, Seg.GS)


@instruction("wrfsbase", feature="fsgsbase")
def WRFSBASE(x: X86Insn) -> None:
    _write_base(x, Seg.FS)


@instruction("wrgsbase", feature="fsgsbase")
def WRGSBASE(x: X86Insn) -> None:
    _write_base(x, Seg.GS)


# --- control registers ------------------------------------------------------------------------------------------------
@instruction("clts")
def CLTS_(x: X86Insn) -> None:
    _helper(x, CLTS)
    x.reflow()


@instruction("smsw")
def SMSW(x: X86Insn) -> None:
    cr0 = x.b.ld(I64, env("cr0"))
    x.write(0, x.b.trunc(cr0, I16 if x.is_mem(0) else x.type))


@instruction("lmsw")
def LMSW_(x: X86Insn) -> None:
    x.b.call_void(LMSW, _selector(x))
    x.reflow()


@instruction("xgetbv", feature="xsave")
def XGETBV_(x: X86Insn) -> None:
    _helper(x, XGETBV)


@instruction("xsetbv", feature="xsave")
def XSETBV_(x: X86Insn) -> None:
    _helper(x, XSETBV)
    x.reflow()


# --- TLB and caches ---------------------------------------------------------------------------------------------------
@instruction("invlpg")
def INVLPG_(x: X86Insn) -> None:
    x.b.call_void(INVLPG, x.address(0))
    x.reflow()


@instruction("invpcid", feature="invpcid")
def INVPCID_(x: X86Insn) -> None:
    x.b.call_void(INVPCID, x.b.zext(x.read(0), I64), x.address(1))
    x.reflow()


@instruction("wbinvd", "invd", "wbnoinvd")
def WBINVD_(x: X86Insn) -> None:
    _helper(x, WBINVD)


# --- model-specific registers, time, identification -------------------------------------------------------------------
@instruction("rdmsr")
def RDMSR_(x: X86Insn) -> None:
    _helper(x, RDMSR)


@instruction("wrmsr")
def WRMSR_(x: X86Insn) -> None:
    _helper(x, WRMSR)
    x.reflow()


@instruction("rdtsc")
def RDTSC_(x: X86Insn) -> None:
    _helper(x, RDTSC)


@instruction("rdtscp", feature="rdtscp")
def RDTSCP_(x: X86Insn) -> None:
    _helper(x, RDTSCP)


@instruction("rdpmc")
def RDPMC_(x: X86Insn) -> None:
    _helper(x, RDPMC)


@instruction("rdpid", feature="rdpid")
def RDPID_(x: X86Insn) -> None:
    x.write(0, x.b.trunc(x.call(RDPID), x.type))


@instruction("cpuid")
def CPUID_(x: X86Insn) -> None:
    _helper(x, CPUID)


# --- halting ----------------------------------------------------------------------------------------------------------
@instruction("hlt")
def HLT_(x: X86Insn) -> None:
    x.b.call_void(HLT, x.next_pc)
    x.reflow()


@instruction("monitor", feature="monitor")
def MONITOR_(x: X86Insn) -> None:
    shape = next((o for o in x.ops if isinstance(o, MemShape)), None)
    seg = shape.seg if shape else x.data_segment
    x.b.call_void(MONITOR, x.linear(x.wrap(x.reg(Reg.RAX), x.key.address_size), seg))


@instruction("mwait", feature="monitor")
def MWAIT_(x: X86Insn) -> None:
    x.b.call_void(MWAIT, x.next_pc)
    x.reflow()


# --- ports ------------------------------------------------------------------------------------------------------------
def _port(x: X86Insn, i: int) -> Operand:
    if isinstance(x.ops[i], ImmShape):
        return Const(I64, x.imm_value(i))
    return x.b.zext(x.reg(Reg.RDX, 2), I64)


@instruction("in")
def IN_(x: X86Insn) -> None:
    value = x.call(IN, _port(x, 1), x.size)
    x.set_reg(Reg.RAX, x.b.trunc(value, x.type))


@instruction("out")
def OUT_(x: X86Insn) -> None:
    value = x.read(1)
    x.b.call_void(OUT, _port(x, 0), x.b.zext(value, I64), value.type.size)
    x.b.goto_tb(1, x.next_pc)
