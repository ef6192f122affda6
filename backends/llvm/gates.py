"""The ways between the world outside and JIT code, and the stencils that every block shares.

JIT code calling convention (x86-64 host): r12 = env; every other register but rsp and rbp is free; at the start of each
stencil rsp is a multiple of 16 (one call away from the C convention, so that stencils call helpers without moving it;
modules say `override-stack-alignment`); the return address on top leads back into `enter`; MXCSR is the guest's with
every exception masked; the x87 stack is empty, FCW anything; DF clear.

`runtime_modules` are the LLVM texts to be linked into the run-time object; they define the C functions
    enter(env, code)           run JIT code from `code` until it jumps to `leave`
    leave                      not to be called: where JIT code jumps to come back
    callout(code, kind, env, a, b, c) -> i64
                               code(kind, env, a, b, c) under the default MXCSR and FCW, from JIT code or outside
    mxcsr_get() -> i64, mxcsr_set(value)
                               the register itself: natives that JIT code calls see the guest's sticky flags in it
"""

from collections.abc import Sequence

from backends.llvm.stencils import StencilCompiler
from tcg.exec.forms import Stencil
from tcg.ir.block import Block, EnvRef, Hole
from tcg.ir.builder import Builder
from tcg.ir.types import I32, I64, Cond
from tcg.runtime.layout import ENV, ExitReason

_SAVED = ("rbx", "rbp", "r12", "r13", "r14", "r15")
_DEFAULT_MXCSR, _DEFAULT_FCW = 0x1F80, 0x37F
_HOST_MXCSR, _SAVED_MXCSR = ENV.offset("host_mxcsr"), ENV.offset("saved_mxcsr")

# Six pushes leave rsp 8 below a multiple of 16; the call then makes it a multiple at the first stencil.
_ENTER = f"""
{"; ".join(f"pushq %{r}" for r in _SAVED)}
movq %rdi, %r12
stmxcsr {_SAVED_MXCSR}(%r12)
ldmxcsr {_HOST_MXCSR}(%r12)
call *%rsi
stmxcsr {_HOST_MXCSR}(%r12)
ldmxcsr {_SAVED_MXCSR}(%r12)
movl ${_DEFAULT_FCW}, -8(%rsp)
fldcw -8(%rsp)
{"; ".join(f"popq %{r}" for r in reversed(_SAVED))}
ret
"""

_CALLOUT = f"""
subq $24, %rsp
stmxcsr 8(%rsp)
movl ${_DEFAULT_MXCSR}, 12(%rsp)
ldmxcsr 12(%rsp)
movl ${_DEFAULT_FCW}, 12(%rsp)
fldcw 12(%rsp)
movq %rdi, %rax
movq %rsi, %rdi
movq %rdx, %rsi
movq %rcx, %rdx
movq %r8, %rcx
movq %r9, %r8
call *%rax
ldmxcsr 8(%rsp)
addq $24, %rsp
ret
"""


def _naked(name: str, arguments: int, code: str) -> str:
    """A C function of i64 arguments that is exactly `code`."""
    text = "; ".join(code.strip().splitlines()).replace("$", "$$")
    args = ", ".join(["i64"] * arguments)
    return f"""
define i64 @{name}({args}) naked noinline nounwind {{
  call void asm sideeffect "{text}", ""()
  unreachable
}}
"""


GATE_SYMBOLS = ("enter", "leave", "callout", "mxcsr_get", "mxcsr_set")


def runtime_modules() -> Sequence[str]:
    """The gates as LLVM texts."""
    return [
        _naked("enter", 2, _ENTER)
        + _naked("leave", 0, "ret")
        + _naked("callout", 6, _CALLOUT)
        + _naked("mxcsr_get", 0, "stmxcsr -8(%rsp); movl -8(%rsp), %eax; ret")
        + _naked("mxcsr_set", 1, "movl %edi, -8(%rsp); ldmxcsr -8(%rsp); ret")
    ]


def block_head() -> Block:
    """First in every block: leave when env.exit_request asks for it. Hole: pc, of the block."""
    b = Builder()
    pc = Hole("pc", I64)
    b.insn_start(pc)
    on = b.new_label()
    b.brcond(b.setcond(Cond.EQ, b.ld(I32, EnvRef(ENV.offset("exit_request"))), 0), on, likely=True)
    b.exit(ExitReason.INTERRUPT, pc)
    b.label(on)
    return b.block


def exit_stub() -> Block:
    """Where a direct exit leads until it is chained. Holes: target, the pc to go to; imm, the hva of its EXIT_SLOT."""
    b = Builder()
    b.st(EnvRef(ENV.offset("exit_slot")), Hole("imm", I64))
    b.exit(ExitReason.CHAIN, Hole("target", I64))
    return b.block


def far_exit() -> Block:
    """A direct exit to a page that the block does not vouch for: through the jump cache. Hole: target, the pc."""
    b = Builder()
    b.goto_ptr(Hole("target", I64))
    return b.block


FIXED = {"block_head": block_head, "exit_stub": exit_stub, "far_exit": far_exit}


def fixed_stencils(compiler: StencilCompiler) -> dict[str, Stencil]:
    """The stencils that belong to no form, by name."""
    return dict(zip(FIXED, compiler.compile([(name, make()) for name, make in FIXED.items()]), strict=True))
