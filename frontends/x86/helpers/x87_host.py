"""The host's x87 as the engine of the guest's: one gate that runs any computing x87 instruction on a whole guest state.

The area that the gate works on (in env.state_image): 16 bytes of memory operand, then the 108 bytes of FSAVE's 32-bit
protected-mode format (SDM volume 1, figure 8-9) with the guest's FCW, exceptions unmasked as the guest has them.
FRSTOR, the instruction, FNSAVE (which does not wait): stack faults, masked and unmasked responses, precision and
rounding control, C0..C3 and every bit of a result are the host CPU's own. No exception may be pending beforehand (ES
clear), or the instruction would trap here.

Each encoding has a 4-byte thunk (the instruction, RET), at the number that `register_form` or `memory_form` gives.
x86-64 hosts only.
"""

import ctypes
import functools
from collections.abc import Callable

from tcg.runtime.memory import primitive

OPERAND, AREA = 0, 16
AREA_SIZE = 108
# Of the area: control, status, tag word, instruction offset, opcode, data offset, registers from ST(0) on.
FCW, FSW, FTW, FOP, ST0 = AREA, AREA + 4, AREA + 8, AREA + 18, AREA + 28
_STATUS_FLAGS = 0x8D5
_RED_ZONE = 128


def register_form(opcode: int, modrm: int) -> int:
    """The thunk of D8..DF with ModRM C0..FF."""
    assert 0xD8 <= opcode <= 0xDF and 0xC0 <= modrm <= 0xFF
    return (opcode - 0xD8) * 64 + modrm - 0xC0


def memory_form(opcode: int, reg: int) -> int:
    """The thunk of D8..DF /reg with a memory operand: the area's."""
    assert 0xD8 <= opcode <= 0xDF and 0 <= reg <= 7
    return 512 + (opcode - 0xD8) * 8 + reg


def _thunks() -> str:
    ret, nop, at_rdx = 0xC3, 0x90, 2
    codes = [(opcode, modrm) for opcode in range(0xD8, 0xE0) for modrm in range(0xC0, 0x100)]
    codes += [(opcode, reg << 3 | at_rdx) for opcode in range(0xD8, 0xE0) for reg in range(8)]
    return ".byte " + ",".join(f"{opcode},{modrm},{ret},{nop}" for opcode, modrm in codes)


_CODE = f"""
leaq -{_RED_ZONE}(%rsp), %rsp
frstor {AREA}(%rdx)
pushfq
andq $~{_STATUS_FLAGS}, (%rsp)
orq %rax, (%rsp)
popfq
leaq 1f(%rip), %rax
leaq (%rax,%rcx,4), %rcx
call *%rcx
pushfq
popq %rax
fnsave {AREA}(%rdx)
leaq {_RED_ZONE}(%rsp), %rsp
jmp 2f
1:
{_thunks()}
2:
"""
_CLOBBERS = "~{memory},~{dirflag},~{fpsr},~{flags}," + ",".join(f"~{{st({n})}}" if n else "~{st}" for n in range(8))
_ASM = "; ".join(_CODE.strip().splitlines()).replace(":;", ":").replace("$", "$$")
_CONSTRAINTS = f"={{rax}},={{rcx}},{{rdx}},0,1,{_CLOBBERS}"
_BODY = f"""
%both = call {{ i64, i64 }} asm sideeffect "{_ASM}", "{_CONSTRAINTS}"(i64 %area, i64 %flags, i64 %thunk)
%all = extractvalue {{ i64, i64 }} %both, 0
%status = and i64 %all, {_STATUS_FLAGS}
ret i64 %status
"""


@primitive(_BODY)
def run_x87(area: int, thunk: int, flags: int) -> int:
    """Run the thunk's instruction on the state in the area under these status flags; the flags it leaves."""
    return _compiled()(area, thunk, flags)


@functools.cache
def _compiled() -> Callable[[int, int, int], int]:
    """The same text, compiled alone: for natives that run as Python."""
    import llvmlite.binding as llvm

    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    llvm.initialize_native_asmparser()
    module = llvm.parse_assembly(f"define i64 @run_x87(i64 %area, i64 %thunk, i64 %flags) nounwind {{\n{_BODY}\n}}\n")
    engine = llvm.create_mcjit_compiler(module, llvm.Target.from_default_triple().create_target_machine())
    engine.finalize_object()
    entry = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64, ctypes.c_int64, ctypes.c_int64)(
        engine.get_function_address("run_x87")
    )

    def call(area: int, thunk: int, flags: int, _engine: object = engine) -> int:
        return int(entry(area, thunk, flags))

    return call
