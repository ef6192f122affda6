"""What to fuzz of the x87 FPU, and states that provoke it: every kind of operand, rounding, precision, mask, stack."""

import random
import struct
from collections.abc import Callable

from frontends.x86.insn_x87 import ENCODINGS
from fuzz.x86.cases import Case, Template
from fuzz.x86.simd import address
from fuzz.x86.state import DATA, State

M64 = (1 << 64) - 1
INTEGER_BIT = 1 << 63
_BIAS = 16383
# What Unicorn (QEMU 5) computes otherwise: in double precision or in other steps than the CPU, constants in nearest
# rounding only, square roots with C2, BCD and truncation out of range, reserved bits of FCW, EMMS without TOP.
_UNICORN_WRONG = frozenset((
    "f2xm1", "fyl2x", "fyl2xp1", "fptan", "fpatan", "fsin", "fcos", "fsincos", "fprem", "fprem1", "fscale", "fsqrt",
    "fldl2t", "fldl2e", "fldpi", "fldlg2", "fldln2", "fbstp", "fisttp", "fldcw", "emms",
))  # fmt: skip


def _extended(sign: int, exponent: int, significand: int) -> int:
    return sign << 79 | exponent << 64 | significand


def random_extended(rng: random.Random) -> int:
    """An 80-bit value of any class, the unsupported ones too."""
    sign, kind = rng.getrandbits(1), rng.randrange(16)
    fraction = rng.choice((0, 1, INTEGER_BIT >> 1, INTEGER_BIT - 1, rng.getrandbits(63), rng.getrandbits(10) << 53))
    match kind:
        case 0:
            return _extended(sign, 0, 0)
        case 1:
            return _extended(sign, 0, fraction)  # denormal
        case 2:
            return _extended(sign, 0, INTEGER_BIT | fraction)  # pseudo-denormal
        case 3:
            return _extended(sign, 0x7FFF, INTEGER_BIT)
        case 4:
            return _extended(sign, 0x7FFF, INTEGER_BIT | INTEGER_BIT >> 1 | fraction)  # quiet NaN
        case 5:
            return _extended(sign, 0x7FFF, INTEGER_BIT | fraction & ~(INTEGER_BIT >> 1))  # signalling NaN, or infinity
        case 6:
            return _extended(sign, 0x7FFF, fraction)  # pseudo-NaN, pseudo-infinity
        case 7:
            return _extended(sign, rng.randrange(1, 0x7FFF), fraction)  # unnormal
        case 8:
            return _extended(sign, rng.choice((1, 2, 64, 0x7FFE, 0x7FFD)), INTEGER_BIT | fraction)
        case 9:  # about where the shorter formats end
            near = rng.choice(
                (-1074, -1023, -1022, -149, -127, -126, 127, 128, 1023, 1024, 15, 31, 63)
            ) + rng.randrange(-1, 2)
            return _extended(sign, _BIAS + near, INTEGER_BIT | fraction)
        case 10 | 11:  # a small integer or fraction
            return _integer(sign, rng.randrange(1, 1 << rng.randrange(1, 64)), -rng.randrange(0, 4))
        case 12:
            return _extended(sign, rng.randrange(1, 0x7FFF), INTEGER_BIT | fraction)
    return _extended(sign, _BIAS + rng.randrange(-70, 70), INTEGER_BIT | fraction)


def _integer(sign: int, value: int, scale: int) -> int:
    width = value.bit_length()
    return _extended(sign, _BIAS + width - 1 + scale, value << 64 - width)


def random_operand(rng: random.Random, size: int) -> bytes:
    """A memory operand of `size` bytes: integer, decimal, or a float of that size."""
    if size == 10:
        if rng.randrange(2):
            return random_extended(rng).to_bytes(10, "little")
        digits = "".join(rng.choice("0123456789") for _ in range(18))
        return bytes.fromhex(rng.choice(("00", "80", "7f")) + digits)[::-1]
    width = 8 * size
    if size == 2 or rng.randrange(3) == 0:
        return rng.choice((0, 1, 1 << width - 1, (1 << width) - 1, rng.getrandbits(width))).to_bytes(size, "little")
    bits = 23 if size == 4 else 52
    top = (1 << width - 1 - bits) - 1
    exponent = rng.choice((0, 1, top - 1, top, top // 2, top // 2 + rng.randrange(-70, 70), rng.randrange(top)))
    fraction = rng.choice((0, 1, 1 << bits - 1, (1 << bits) - 1, rng.getrandbits(bits)))
    return (rng.getrandbits(1) << width - 1 | exponent << bits | fraction).to_bytes(size, "little")


_SIZES = {"word": 2, "dword": 4, "qword": 8, "tbyte": 10}


def _aim_operand(case: Case, state: State, operand: Callable[[int], bytes]) -> None:
    """Put operand(size) where the case's memory operand is."""
    if not case.memory:
        return
    size = _SIZES[case.text.split()[1]]
    offset = (address(case, state) & M64) - DATA
    if 0 <= offset <= len(state.memory) - size:
        memory = bytearray(state.memory)
        memory[offset : offset + size] = operand(size)
        state.memory = bytes(memory)


def prepare(case: Case, state: State, rng: random.Random) -> None:
    """Random x87 state without a pending unmasked exception; a memory operand of interest."""
    fpu = state.fpu
    masks = rng.choice((0x3F, 0x3F, rng.getrandbits(6)))
    fpu.control = 0x40 | masks | rng.choice((0, 2, 3, 3, 3)) << 8 | rng.getrandbits(2) << 10
    fpu.status = rng.choice((0, rng.getrandbits(16) & 0x4740, rng.getrandbits(6) & masks))
    fpu.top = rng.randrange(8)
    fpu.empty = rng.choice((0, 0, 0, rng.getrandbits(8), 1 << (fpu.top - 1) % 8, 1 << (fpu.top - 1) % 8))
    fpu.regs = [random_extended(rng) for _ in range(8)]
    if rng.randrange(8) == 0:
        fpu.regs[(fpu.top + 1) % 8] = fpu.regs[fpu.top]
    _aim_operand(case, state, lambda size: random_operand(rng, size))


def tame(case: Case, state: State, rng: random.Random) -> None:
    """What Unicorn can be asked about: everything masked, no stack fault, no NaN, nothing denormal or invalid."""
    fpu = state.fpu
    fpu.control = 0x7F | rng.choice((0, 2, 3)) << 8 | rng.getrandbits(2) << 10
    fpu.top = rng.randrange(8)
    fpu.empty = 1 << (fpu.top - 1) % 8
    fpu.regs = [_integer(rng.getrandbits(1), rng.randrange(1, 1 << 60), -rng.randrange(80)) for _ in range(8)]
    fpu.regs[(fpu.top + rng.randrange(1, 3)) % 8] = fpu.regs[fpu.top]
    number = rng.choice((1, 3, rng.randrange(1, 1 << 15)))
    floats = {
        4: struct.pack("<f", number),
        8: struct.pack("<d", number),
        10: int(str(number), 16).to_bytes(10, "little"),
    }
    integer = case.text.startswith("fi")
    _aim_operand(case, state, lambda size: number.to_bytes(size, "little") if integer else floats.get(size, b"\x7f\3"))


def templates() -> list[Template]:
    """Every computing form of the table, and what there is of control."""
    found = []
    for (name, operands), (opcode, first) in ENCODINGS.items():
        if operands.startswith("m"):
            text = f"{name} {{m{8 * int(operands[1:])}}}"
        elif operands:
            text = f".byte {opcode:02x}{{{'|'.join(f'{first + n:02x}' for n in (0, 1, 4, 7))}}}"
        else:
            text = f".byte {opcode:02x}{first:02x}"
        modes = (True, False) if operands.startswith("m") else (True,)
        found.append(Template(text, unicorn=name not in _UNICORN_WRONG, modes=modes))
    control = ("fldcw {m16}", "fnstcw {m16}", "fnstsw {m16}", "fnstsw ax", "fnclex", "fninit", "emms", "wait")
    found += [Template(t, unicorn=t.split()[0] not in _UNICORN_WRONG) for t in control]
    return found + [Template(t) for t in (".byte dbe0", ".byte dbe1", ".byte dbe4")]  # FENI, FDISI, FSETPM
