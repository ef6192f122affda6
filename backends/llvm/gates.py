"""The ways between the world outside and JIT code, and the stencils that every block shares.

JIT code calling convention (x86-64 host): r12 = env; every other register but rsp and rbp is free; at the start of each
stencil rsp is a multiple of 16 (one call away from the C convention, so that stencils call helpers without moving it;
modules say `override-stack-alignment`); the return address on top leads back into `enter`; MXCSR is the guest's with
every exception masked; the x87 stack is empty, FCW anything; DF clear.

GATES, an LLVM module to be linked into the run-time object, defines the C functions
    void enter(env, code)      run JIT code from `code` until it jumps to `leave`
    leave                      not a function: where JIT code jumps to come back
    i64 callout(code, kind, env, a, b, c)
                               code(kind, env, a, b, c) under the world's default MXCSR and FCW, from JIT or outside
    i64 mxcsr_get(), mxcsr_set(value)
                               the register itself: natives that JIT code calls see the guest's sticky flags in it
"""

from backends.llvm.stencils import StencilCompiler
from tcg.exec.forms import Stencil
from tcg.ir.block import Block, EnvRef, Hole
from tcg.ir.builder import Builder
from tcg.ir.types import I32, I64, Cond
from tcg.runtime.layout import ENV, ExitReason

_SAVED = ("rbx", "rbp", "r12", "r13", "r14", "r15")
_DEFAULT_MXCSR, _DEFAULT_FCW = 0x1F80, 0x37F

# Six pushes leave rsp 8 below a multiple of 16; the call then makes it a multiple at the first stencil.
_ENTER = f"""
.text
.p2align 4
.globl enter
.type enter,@function
enter:
{"; ".join(f"pushq %{r}" for r in _SAVED)}
movq %rdi, %r12
stmxcsr {ENV.offset("saved_mxcsr")}(%r12)
ldmxcsr {ENV.offset("host_mxcsr")}(%r12)
call *%rsi
stmxcsr {ENV.offset("host_mxcsr")}(%r12)
ldmxcsr {ENV.offset("saved_mxcsr")}(%r12)
movl ${_DEFAULT_FCW:#x}, -8(%rsp)
fldcw -8(%rsp)
{"; ".join(f"popq %{r}" for r in reversed(_SAVED))}
ret
.size enter, .-enter
.globl leave
.type leave,@function
leave:
ret
.size leave, .-leave
"""

_CALLOUT = f"""
.p2align 4
.globl callout
.type callout,@function
callout:
subq $24, %rsp
stmxcsr 8(%rsp)
movl ${_DEFAULT_MXCSR:#x}, 12(%rsp)
ldmxcsr 12(%rsp)
movl ${_DEFAULT_FCW:#x}, 12(%rsp)
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
.size callout, .-callout
.globl mxcsr_get
.type mxcsr_get,@function
mxcsr_get:
stmxcsr -8(%rsp)
movl -8(%rsp), %eax
ret
.size mxcsr_get, .-mxcsr_get
.globl mxcsr_set
.type mxcsr_set,@function
mxcsr_set:
movl %edi, -8(%rsp)
ldmxcsr -8(%rsp)
ret
.size mxcsr_set, .-mxcsr_set
"""


def _module_asm(text: str) -> str:
    return "\n".join(f'module asm "{line}"' for line in text.strip().splitlines())


GATES = _module_asm(_ENTER + _CALLOUT) + "\n"
GATE_SYMBOLS = ("enter", "leave", "callout", "mxcsr_get", "mxcsr_set")


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


def fixed_stencils(compiler: StencilCompiler) -> dict[str, Stencil]:
    """The stencils that belong to no form, by name."""
    names = ("block_head", "exit_stub")
    return dict(zip(names, compiler.compile([("block_head", block_head()), ("exit_stub", exit_stub())]), strict=True))
