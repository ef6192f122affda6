"""Helpers of the MMX and SSE instructions: what the IR has no op for, and MXCSR's unmasked exceptions.

The declarations are pure (their meaning: `simd_reference`); a backend expands those it has host instructions for, the
rest run here. Immediates are i32 constants at the call. Operand order is the guest instruction's: destination first.
128-bit arguments and results of a native travel in env.scratch[0], [1], ...
"""

from frontends.x86.helpers.access import raise_exception, raise_gp, raise_ud
from frontends.x86.helpers.env import CR4, MXCSR
from frontends.x86.helpers.fpu import mxcsr_get, mxcsr_set
from tcg.ir.block import HelperDecl
from tcg.ir.types import I32, V128, Effect, Type
from tcg.runtime.memory import exported, ld32, ld64, st32

SIMD_HELPERS: dict[str, HelperDecl] = {}


def _pure(name: str, args: tuple[Type, ...], ret: Type = V128, effects: Effect = Effect.NONE) -> HelperDecl:
    decl = HelperDecl(f"x86_{name}", args, ret, effects)
    SIMD_HELPERS[decl.name] = decl
    return decl


_VV, _VVI = (V128, V128), (V128, V128, I32)

# --- packed integers --------------------------------------------------------------------------------------------------
PMADDWD_ = _pure("pmaddwd", _VV)
PMADDUBSW_ = _pure("pmaddubsw", _VV)
PSADBW_ = _pure("psadbw", _VV)
PMULHRSW_ = _pure("pmulhrsw", _VV)
PHMINPOSUW_ = _pure("phminposuw", (V128,))
MPSADBW_ = _pure("mpsadbw", _VVI)

# --- cryptography -----------------------------------------------------------------------------------------------------
AESENC_ = _pure("aesenc", _VV)
AESENCLAST_ = _pure("aesenclast", _VV)
AESDEC_ = _pure("aesdec", _VV)
AESDECLAST_ = _pure("aesdeclast", _VV)
AESIMC_ = _pure("aesimc", (V128,))
AESKEYGENASSIST_ = _pure("aeskeygenassist", (V128, I32))
PCLMULQDQ_ = _pure("pclmulqdq", _VVI)
SHA1RNDS4_ = _pure("sha1rnds4", _VVI)
SHA1NEXTE_ = _pure("sha1nexte", _VV)
SHA1MSG1_ = _pure("sha1msg1", _VV)
SHA1MSG2_ = _pure("sha1msg2", _VV)
SHA256RNDS2_ = _pure("sha256rnds2", (V128, V128, V128))  # third: XMM0
SHA256MSG1_ = _pure("sha256msg1", _VV)
SHA256MSG2_ = _pure("sha256msg2", _VV)

# --- strings: the bit mask of PCMPxSTRM; what else the instructions give follows from it ---------------------------
PCMPISTRM_ = _pure("pcmpistrm", _VVI)  # (first, second, imm with bit 6 clear)
PCMPESTRM_ = _pure("pcmpestrm", (V128, I32, V128, I32, I32))  # (first, its length, second, its length, imm)

# --- approximations: no flags, no rounding control --------------------------------------------------------------------
RCPPS_ = _pure("rcpps", (V128,))
RSQRTPS_ = _pure("rsqrtps", (V128,))

# --- unmasked exceptions ----------------------------------------------------------------------------------------------
# Around an arithmetic op when the guest has unmasked some exception: the first sets the sticky flags aside, the second
# looks at those that the op raised, puts all together again and raises #XM for an unmasked one (SDM vol. 1, 11.5).
_TRAP = Effect.FP | Effect.READS_ENV | Effect.WRITES_ENV | Effect.SIDE
SSE_BEGIN = HelperDecl("x86_sse_begin", (), None, _TRAP)
SSE_END = HelperDecl("x86_sse_end", (), None, _TRAP | Effect.MAY_FAULT)

XM = 19
CR4_OSXMMEXCPT = 1 << 10
FLAGS = 0x3F
BEFORE = 0x07  # invalid, denormal, division by zero are found before the result is computed


@exported
def helper_x86_sse_begin(env: int) -> None:
    """The sticky flags rest in env.mxcsr, where nobody else looks for them (helpers.fpu), until sse_end."""
    now = mxcsr_get()
    st32(env + MXCSR, (ld32(env + MXCSR) & ~FLAGS) | (now & FLAGS))
    mxcsr_set(now & ~FLAGS)


@exported
def helper_x86_sse_end(env: int) -> None:
    """#XM, or #UD without CR4.OSXMMEXCPT, when the op raised an unmasked exception.

    NOTE: underflow is seen as the masked response reports it (tiny and inexact); an exact tiny result does not trap.
    """
    now = mxcsr_get()
    control = ld32(env + MXCSR)
    raised = now & FLAGS
    unmasked = ~(control >> 7) & FLAGS
    if raised & unmasked & BEFORE:
        raised &= BEFORE  # the computation was never begun
    mxcsr_set((now & ~FLAGS) | raised | (control & FLAGS))
    if raised & unmasked:
        if ld64(env + CR4) & CR4_OSXMMEXCPT:
            raise_exception(env, XM, 0)
        else:
            raise_ud(env)


@exported
def helper_unaligned(env: int, gva: int) -> None:
    """What a backend calls for an access that breaks its MemOp's alignment: #GP(0), for SSE operands and CMPXCHG16B."""
    raise_gp(env, 0)
