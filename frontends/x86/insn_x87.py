"""The x87 FPU (SDM volume 1, chapter 8; encodings: volume 2, appendix B.17).

Computing instructions run on the host's x87, one helper call each (helpers.x87); what is emitted here is the rest:
availability (#NM), a pending unmasked exception (#MF, whatever CR0.NE says: FERR# and IRQ 13 are not there), guest
memory, EFLAGS. `ENCODINGS` gives each form's opcode, from which the helper's thunk follows.
"""

from frontends.x86.context import X86Insn, env
from frontends.x86.flags import CF, PF, ZF, CcOp
from frontends.x86.helpers.decls import CHECK_FPU, FLDENV, FNINIT, FNSAVE, FNSTENV, FRSTOR
from frontends.x86.helpers.x87 import FLDCW, X87, X87_COMMIT, X87_FLAGS, X87_LOAD, X87_STORE
from frontends.x86.helpers.x87_host import memory_form, register_form
from frontends.x86.operands import MemShape, RegShape
from frontends.x86.registry import Status, instruction
from frontends.x86.state import Mode
from frontends.x86.status import CONDITIONS, all_flags, condition, set_flags
from tcg.ir.block import Const, HelperDecl, Operand
from tcg.ir.types import I8, I16, I32, I64, INT_OF_SIZE, Cond

MF = 16
_CHECK_X87, _CHECK_WAIT, _CHECK_MMX = 0, 1, 2
_FSW_ES = 0x80

# --- encodings --------------------------------------------------------------------------------------------------------
# (name, operands) -> (opcode, first ModRM or /reg). Operands: "" none, "st" ST(i), "st,st" (ST(i) and ST(0), either
# order), m and the size in bytes of a memory operand.
ENCODINGS: dict[tuple[str, str], tuple[int, int]] = {}


def _encodings(opcode: int, operands: str, first: int, names: str) -> None:
    """`names` have consecutive ModRM bytes (operands ""), groups of eight, or /reg fields (memory); -: nobody."""
    step = 8 if operands.startswith("st") else 1
    for n, name in enumerate(names.split()):
        if name != "-":
            ENCODINGS[name, operands] = (opcode, first + step * n)


_REVERSED = "fadd fmul - - fsubr fsub fdivr fdiv"  # with ST(i) as destination
_encodings(0xD8, "m4", 0, "fadd fmul fcom fcomp fsub fsubr fdiv fdivr")
_encodings(0xDC, "m8", 0, "fadd fmul fcom fcomp fsub fsubr fdiv fdivr")
_encodings(0xD8, "st", 0xC0, "fadd fmul fcom fcomp fsub fsubr fdiv fdivr")
_encodings(0xDC, "st,st", 0xC0, _REVERSED)
_encodings(0xDE, "st", 0xC0, "faddp fmulp - - fsubrp fsubp fdivrp fdivp")
_encodings(0xDA, "m4", 0, "fiadd fimul ficom ficomp fisub fisubr fidiv fidivr")
_encodings(0xDE, "m2", 0, "fiadd fimul ficom ficomp fisub fisubr fidiv fidivr")
_encodings(0xD9, "m4", 0, "fld - fst fstp")
_encodings(0xDD, "m8", 0, "fld fisttp fst fstp")
_encodings(0xDB, "m4", 0, "fild fisttp fist fistp")
_encodings(0xDB, "m10", 5, "fld - fstp")
_encodings(0xDF, "m2", 0, "fild fisttp fist fistp")
_encodings(0xDF, "m10", 4, "fbld - fbstp")
_encodings(0xDF, "m8", 5, "fild - fistp")
_encodings(0xD9, "st", 0xC0, "fld")
_encodings(0xD9, "st,st", 0xC8, "fxch - fstpnce")
_encodings(0xD9, "", 0xD0, "fnop")
_encodings(0xD9, "", 0xE0, "fchs fabs - - ftst fxam - - fld1 fldl2t fldl2e fldpi fldlg2 fldln2 fldz")
_encodings(0xD9, "", 0xF0, "f2xm1 fyl2x fptan fpatan fxtract fprem1 fdecstp fincstp")
_encodings(0xD9, "", 0xF8, "fprem fyl2xp1 fsqrt fsincos frndint fscale fsin fcos")
_encodings(0xDA, "st,st", 0xC0, "fcmovb fcmove fcmovbe fcmovu")
_encodings(0xDB, "st,st", 0xC0, "fcmovnb fcmovne fcmovnbe fcmovnu")
_encodings(0xDA, "", 0xE9, "fucompp")
_encodings(0xDB, "st", 0xE8, "fucomi fcomi")
_encodings(0xDF, "st", 0xE8, "fucompi fcompi")
_encodings(0xDD, "st", 0xC0, "ffree - fst fstp fucom fucomp")
_encodings(0xDF, "st", 0xC0, "ffreep")
_encodings(0xDE, "", 0xD9, "fcompp")


def _thunk(x: X86Insn) -> int:
    """The number that the helpers know this form by."""
    numbers = [shape.number for shape in x.ops if isinstance(shape, RegShape)]
    memory = [shape for shape in x.ops if isinstance(shape, MemShape)]
    if memory:
        return memory_form(*ENCODINGS[x.key.name, f"m{memory[0].size}"])
    opcode, modrm = ENCODINGS[x.key.name, ",".join(["st"] * len(numbers))]
    return register_form(opcode, modrm + sum(numbers))  # of two, one is ST(0)


# --- availability -----------------------------------------------------------------------------------------------------
def guard(x: X86Insn, kind: int = _CHECK_X87) -> None:
    """#NM (or #UD) where CR0 says that the FPU is not to be used; kind as CHECK_FPU's argument."""
    if x.key.mode & Mode.FPU_TRAP:
        x.b.call_void(CHECK_FPU, kind)


def wait(x: X86Insn, kind: int = _CHECK_X87) -> None:
    """`guard`, then #MF for a pending unmasked exception: how all but the control instructions FN... begin."""
    guard(x, kind)
    pending = x.b.and_(x.b.ld(I32, env("fpu_status")), _FSW_ES)
    x.raise_if(x.b.setcond(Cond.NE, pending, 0), MF)


# --- computing instructions -------------------------------------------------------------------------------------------
def _compute(x: X86Insn) -> None:
    """Registers, or a memory source."""
    wait(x)
    if not x.ops or not x.is_mem(0):
        x.b.call_void(X87, _thunk(x), x.pc)
        return
    size = x.ops[0].size
    offset, gva = _place(x)
    low = x.load(gva, min(size, 8), to=I64)
    high: Operand = x.load(x.b.add(gva, 8), 2, to=I64) if size == 10 else Const(I64, 0)
    x.b.call_void(X87_LOAD, _thunk(x), x.pc, low, high, offset)


def _place(x: X86Insn) -> tuple[Operand, Operand]:
    """(offset in its segment, gva) of the memory operand."""
    shape = x.ops[0]
    assert isinstance(shape, MemShape)
    offset = x.effective(0)
    return offset, x.linear(offset, shape.seg)


def _store(x: X86Insn) -> None:
    """A memory destination; nothing has changed when it faults."""
    if not x.is_mem(0):
        _compute(x)
        return
    wait(x)
    b, size = x.b, x.ops[0].size
    offset, gva = _place(x)
    stored = b.call(X87_STORE, _thunk(x))
    done = b.new_label()
    b.brcond(b.setcond(Cond.EQ, stored, 0), done, likely=False)
    if size == 10:
        x.store(b.add(gva, 8), b.ld(I16, env("state_image", 1)))
        size = 8
    x.store(gva, b.ld(INT_OF_SIZE[size], env("state_image")))
    b.label(done)
    b.call_void(X87_COMMIT, x.pc, offset)


_STORES = frozenset(("fst", "fstp", "fist", "fistp", "fisttp", "fbstp"))
_FLAGS = frozenset(("fcomi", "fcompi", "fucomi", "fucompi"))
for _name in dict.fromkeys(name for name, _ in ENCODINGS):
    if not _name.startswith("fcmov") and _name not in _FLAGS:
        instruction(_name)(_store if _name in _STORES else _compute)


@instruction(*sorted(_FLAGS), status=Status(reads=True, kills=True, out=CcOp.EFLAGS))
def FCOMI(x: X86Insn) -> None:
    """FCOMI, FCOMIP, FUCOMI, FUCOMIP. An unmasked exception leaves the flags as they were."""
    wait(x)
    old = all_flags(x) if x.status_live else Const(I64, 0)
    set_flags(x, x.b.call(X87_FLAGS, _thunk(x), x.pc, old))


@instruction(*(name for name, _ in ENCODINGS if name.startswith("fcmov")), status=Status(reads=True))
def FCMOVcc(x: X86Insn) -> None:
    wait(x)
    name = x.key.name[5:].replace("u", "p")
    negated = name.startswith("n")
    holds = condition(x, CONDITIONS[name[1:] if negated else name])
    flags = x.b.select(holds, Const(I64, CF | ZF | PF), Const(I64, 0))
    x.b.call(X87_FLAGS, _thunk(x), x.pc, flags)


# --- control ----------------------------------------------------------------------------------------------------------
@instruction("wait", "fwait")
def FWAIT(x: X86Insn) -> None:
    wait(x, _CHECK_WAIT)


@instruction("fninit")
def FNINIT_(x: X86Insn) -> None:
    guard(x)
    x.b.call_void(FNINIT)


@instruction("fnclex")
def FNCLEX(x: X86Insn) -> None:
    guard(x)
    b = x.b
    b.st(env("fpu_status"), b.and_(b.ld(I32, env("fpu_status")), 0x7F00))


@instruction("feni8087_nop", "fdisi8087_nop", "fsetpm")
def FSETPM(x: X86Insn) -> None:
    """What the 8087 and the 80287 needed."""
    guard(x)


@instruction("fnstsw")
def FNSTSW(x: X86Insn) -> None:
    guard(x)
    b = x.b
    word = b.or_(b.ld(I32, env("fpu_status")), b.shl(b.ld(I32, env("fpu_top")), 11))
    x.write(0, b.trunc(word, I16))


@instruction("fnstcw")
def FNSTCW(x: X86Insn) -> None:
    guard(x)
    x.write(0, x.b.trunc(x.b.ld(I32, env("fpu_control")), I16))


@instruction("fldcw")
def FLDCW_(x: X86Insn) -> None:
    wait(x)
    x.b.call_void(FLDCW, x.load(x.address(0), 2, to=I64))


def _image(name: str, helper: HelperDecl, *, waits: bool) -> None:
    """The state in memory: 16-bit format with a 16-bit operand size."""

    @instruction(name)
    def emit(x: X86Insn) -> None:
        if waits:
            wait(x)
        else:
            guard(x)
        x.b.call_void(helper, x.address(0), 2 if x.size == 2 else 4)


_image("fnsave", FNSAVE, waits=False)
_image("fnstenv", FNSTENV, waits=False)
_image("frstor", FRSTOR, waits=True)
_image("fldenv", FLDENV, waits=True)


@instruction("emms")
def EMMS(x: X86Insn) -> None:
    """Every register empty and TOP 0 (SDM volume 3, table 13-2)."""
    wait(x, _CHECK_MMX)
    x.b.st(env("fpu_top"), Const(I32, 0))
    for n in range(8):
        x.b.st(env("fpu_tags", n), Const(I8, 1))
