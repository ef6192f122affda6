"""The host CPU's own floating-point unit as a reference (x86-64 hosts): one instruction on a batch of operands.

Each function runs over 64-byte records: operands at 0 and 16, result at 32, control word (MXCSR or FCW) at 48, status
(MXCSR or FSW) at 52. The control registers are restored before it returns.
"""

import ctypes
import mmap
import platform
import struct
from dataclasses import dataclass

import keystone

RECORD = 64
IS_X86_64 = platform.machine() in ("x86_64", "AMD64")

_SSE = """
    sub rsp, 16
    stmxcsr [rsp]
again:
    ldmxcsr [rdi + 48]
    movups xmm0, [rdi]
    movups xmm1, [rdi + 16]
    {body}
    movups [rdi + 32], xmm0
    stmxcsr [rdi + 52]
    add rdi, 64
    dec rsi
    jnz again
    ldmxcsr [rsp]
    add rsp, 16
    ret
"""
_X87 = """
    sub rsp, 16
    fnstcw [rsp]
again:
    fninit
    fldcw [rdi + 48]
    {body}
    add rdi, 64
    dec rsi
    jnz again
    fninit
    fldcw [rsp]
    add rsp, 16
    ret
"""
_STATUS = "fnstsw ax; mov [rdi + 52], ax;"
_LOAD_B_A = "fld xword ptr [rdi + 16]; fld xword ptr [rdi]; fnclex;"
_STORE = f"{_STATUS} fstp xword ptr [rdi + 32]"
_LOAD_A = "fld xword ptr [rdi]; fnclex;"

SSE_BODIES = {
    **{
        name: f"{name} xmm0, xmm1"
        for op in ("add", "sub", "mul", "div", "min", "max")
        for name in (f"{op}ss", f"{op}sd")
    },
    "sqrtss": "sqrtss xmm0, xmm0",
    "sqrtsd": "sqrtsd xmm0, xmm0",
    "cvtss2sd": "cvtss2sd xmm0, xmm0",
    "cvtsd2ss": "cvtsd2ss xmm0, xmm0",
    **{
        f"{op}{s}2si{w}": f"{op}{s}2si {'rax' if w == 64 else 'eax'}, xmm0; movq xmm0, rax"
        for op in ("cvt", "cvtt")
        for s in ("ss", "sd")
        for w in (32, 64)
    },
    **{
        f"cvtsi2{s}{w}": f"mov rax, [rdi]; cvtsi2{s} xmm0, {'rax' if w == 64 else 'eax'}"
        for s in ("ss", "sd")
        for w in (32, 64)
    },
    # imm: bits 1:0 rounding (nearest, down, up, zero), bit 2 MXCSR's own, bit 3 suppress inexact
    **{f"round{s}{imm}": f"round{s} xmm0, xmm0, {imm}" for s in ("ss", "sd") for imm in (0, 1, 2, 3, 4, 8, 12)},
    **{
        f"{op}{s}": f"{op}{s} xmm0, xmm1; pushfq; pop rax; movq xmm0, rax"
        for op in ("comi", "ucomi")
        for s in ("ss", "sd")
    },
    **{f"cmp{s}{imm}": f"cmp{s} xmm0, xmm1, {imm}" for s in ("ss", "sd") for imm in (0, 1, 2, 3)},
}
X87_BODIES = {
    **{f"f{op}": f"{_LOAD_B_A} f{op} st(0), st(1); {_STORE}" for op in ("add", "sub", "mul", "div")},
    "fsqrt": f"{_LOAD_A} fsqrt; {_STORE}",
    "frndint": f"{_LOAD_A} frndint; {_STORE}",
    "fld32": f"fld dword ptr [rdi]; {_STORE}",
    "fld64": f"fld qword ptr [rdi]; {_STORE}",
    "fst32": f"{_LOAD_A} fstp dword ptr [rdi + 32]; {_STATUS}",
    "fst64": f"{_LOAD_A} fstp qword ptr [rdi + 32]; {_STATUS}",
    "fild32": f"fild dword ptr [rdi]; {_STORE}",
    "fild64": f"fild qword ptr [rdi]; {_STORE}",
    "fist32": f"{_LOAD_A} fistp dword ptr [rdi + 32]; {_STATUS}",
    "fist64": f"{_LOAD_A} fistp qword ptr [rdi + 32]; {_STATUS}",
    "fcomi": f"{_LOAD_B_A} fcomi st(0), st(1); pushfq; pop rcx; mov [rdi + 32], rcx; {_STATUS}",
    "fucomi": f"{_LOAD_B_A} fucomi st(0), st(1); pushfq; pop rcx; mov [rdi + 32], rcx; {_STATUS}",
}


@dataclass(frozen=True, slots=True)
class Case:
    a: int
    b: int
    control: int


@dataclass(frozen=True, slots=True)
class Answer:
    result: int  # 128 bits
    status: int  # MXCSR or FSW afterwards


class HostFpu:
    """Assembles every body once into one executable mapping."""

    def __init__(self) -> None:
        assembler = keystone.Ks(keystone.KS_ARCH_X86, keystone.KS_MODE_64)
        code = bytearray()
        places = {}
        for frame, bodies in ((_SSE, SSE_BODIES), (_X87, X87_BODIES)):
            for name, body in bodies.items():
                places[name] = len(code)
                encoding, _ = assembler.asm(frame.format(body=body))
                code += bytes(encoding)
        self._map = mmap.mmap(-1, len(code), prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
        self._map.write(code)
        self._base = ctypes.addressof(ctypes.c_char.from_buffer(self._map))
        self._places = places

    def run(self, name: str, cases: list[Case]) -> list[Answer]:
        records = bytearray()
        for case in cases:
            records += struct.pack(
                "<16s16s16xI12x", case.a.to_bytes(16, "little"), case.b.to_bytes(16, "little"), case.control
            )
        buffer = (ctypes.c_char * len(records)).from_buffer(records)
        function = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_size_t)(self._base + self._places[name])
        function(ctypes.addressof(buffer), len(cases))
        answers = []
        for at in range(0, len(records), RECORD):
            result, status = struct.unpack_from("<16s4xI", records, at + 32)
            answers.append(Answer(int.from_bytes(result, "little"), status))
        return answers
