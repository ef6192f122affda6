"""The x87 in the compiled run-time: results by exact arithmetic, exceptions by the manual, state images by the host."""

import ctypes
import mmap
import platform
import random
import struct
import sys
from fractions import Fraction
from pathlib import Path

import pytest

from frontends.x86.helpers.x87 import X87_HELPERS
from frontends.x86.helpers.x87_host import memory_form, register_form
from tcg.runtime.native import NATIVE

sys.path.append(str(Path(__file__).parent / "helpers"))
from x86guest import Guest, P, W

pytestmark = pytest.mark.skipif(platform.machine() != "x86_64", reason="needs an x86-64 host")

AREA = 0x200000
PC, OFFSET = 0x401234, 0x7FFE_1234_5678
NEAREST, DOWN, UP, ZERO = range(4)
IE, DE, ZE, OE, UE, PE, SF, ES, C1, B = 1, 2, 4, 8, 16, 32, 64, 0x80, 0x200, 0x8000
ADD, MUL, SUB, SUBR, DIV, DIVR = (register_form(0xD8, 0xC1 + 8 * n) for n in (0, 1, 4, 5, 6, 7))
SQRT, FLD1, FLDZ = (register_form(0xD9, modrm) for modrm in (0xFA, 0xE8, 0xEE))
ONE, ZERO_BITS, INFINITY = 0x3FFF << 64 | 1 << 63, 0, 0x7FFF << 64 | 1 << 63
INDEFINITE = 0xFFFF << 64 | 3 << 62
LARGEST, SMALLEST, DENORMAL = 0x7FFE << 64 | (1 << 64) - 1, 1 << 64 | 1 << 63, 1
SIGNALLING = 0x7FFF << 64 | 1 << 63 | 5
SIGN = 1 << 79


@pytest.fixture(scope="module")
def shared() -> Guest:
    guest = Guest()
    guest.map(AREA, AREA, P | W)
    return guest


@pytest.fixture
def guest(shared: Guest) -> Guest:
    shared.helper("fninit")
    return shared


def push(guest: Guest, *values: int) -> None:
    """The last one becomes ST(0)."""
    for value in values:
        guest.helper("x87_load", memory_form(0xDB, 5), PC, value & (1 << 64) - 1, value >> 64, OFFSET)


def st(guest: Guest, i: int = 0) -> int:
    return guest.get("fpregs", guest.get("fpu_top") + i & 7) & (1 << 80) - 1


def run(guest: Guest, thunk: int) -> int:
    """FSW (without TOP) after it."""
    guest.helper("x87", thunk, PC)
    return guest.get("fpu_status")


# --- results ----------------------------------------------------------------------------------------------------------
def value_of(bits: int) -> Fraction:
    """A finite value (a denormal has exponent 1)."""
    exponent = max(bits >> 64 & 0x7FFF, 1)
    magnitude = Fraction(bits & (1 << 64) - 1) * Fraction(2) ** (exponent - 16383 - 63)
    return -magnitude if bits & SIGN else magnitude


def rounded(value: Fraction, precision: int, mode: int) -> tuple[int, bool]:
    """(80-bit encoding of a nonzero value rounded to `precision` bits, inexact?); no overflow or underflow."""
    sign, magnitude = value < 0, abs(value)
    exponent = magnitude.numerator.bit_length() - magnitude.denominator.bit_length()
    if magnitude < Fraction(2) ** exponent:
        exponent -= 1
    scaled = magnitude / Fraction(2) ** (exponent - precision + 1)
    whole, rest = divmod(scaled, 1)
    up = {
        NEAREST: rest > Fraction(1, 2) or (rest == Fraction(1, 2) and whole & 1),
        DOWN: sign and rest > 0,
        UP: not sign and rest > 0,
        ZERO: False,
    }[mode]
    whole += bool(up)
    if whole >> precision:
        whole, exponent = whole >> 1, exponent + 1
    return sign << 79 | exponent + 16383 << 64 | int(whole) << 64 - precision, rest != 0


@pytest.mark.parametrize("mode", [NEAREST, DOWN, UP, ZERO])
@pytest.mark.parametrize(("control", "precision"), [(0, 24), (2, 53), (3, 64)])
def test_arithmetic_is_exact(guest: Guest, control: int, precision: int, mode: int) -> None:
    seed = 8 * precision + mode
    print(f"seed {seed}")
    rng = random.Random(seed)
    for _ in range(60):
        a, b = (
            rng.getrandbits(1) << 79 | 16383 + rng.randrange(-20, 20) << 64 | 1 << 63 | rng.getrandbits(63)
            for _ in "ab"
        )
        x, y = value_of(a), value_of(b)
        exact = {ADD: x + y, SUB: x - y, SUBR: y - x, MUL: x * y, DIV: x / y, DIVR: y / x}
        for thunk, value in exact.items():
            guest.helper("fninit")
            guest.helper("fldcw", 0x7F | control << 8 | mode << 10)
            push(guest, b, a)
            status = run(guest, thunk)
            want, inexact = rounded(value, precision, mode)
            assert st(guest) == want, (thunk, hex(a), hex(b))
            assert status & 0x3F == (PE if inexact else 0)


@pytest.mark.parametrize("mode", [NEAREST, DOWN, UP, ZERO])
def test_square_root_is_exact(guest: Guest, mode: int) -> None:
    print(f"seed {mode}")
    rng = random.Random(mode)
    guest.helper("fldcw", 0x37F | mode << 10)
    for _ in range(60):
        root = rng.getrandbits(31) | 1
        square = root * root
        width = square.bit_length()
        push(guest, 16383 + width - 1 << 64 | square << 64 - width)
        run(guest, SQRT)
        assert value_of(st(guest)) == root
        run(guest, register_form(0xDD, 0xD8))  # FSTP ST(0)
    assert guest.get("fpu_status") & 0x3F == 0 and guest.get("fpu_top") == 0


# --- exceptions (SDM volume 1, 8.5) -----------------------------------------------------------------------------------
CAUSES = [
    # (name, ST(1), ST(0), instruction, flags, masked result)
    ("zero by zero", ZERO_BITS, ZERO_BITS, DIV, IE, INDEFINITE),
    ("infinity minus infinity", INFINITY, INFINITY, SUB, IE, INDEFINITE),
    ("root of a negative", ONE, ONE | SIGN, SQRT, IE, INDEFINITE),
    ("signalling NaN", SIGNALLING, ONE, ADD, IE, SIGNALLING | 1 << 62),
    ("unnormal", ONE, 0x4000 << 64 | 1, ADD, IE, INDEFINITE),
    ("denormal", ONE, DENORMAL, MUL, DE, DENORMAL),
    ("by zero", ZERO_BITS, ONE | SIGN, DIV, ZE, INFINITY | SIGN),
    ("overflow", LARGEST, LARGEST, ADD, OE | PE | C1, INFINITY),
    ("underflow", SMALLEST, SMALLEST, MUL, UE | PE, ZERO_BITS),
    ("precision", 0x4000 << 64 | 3 << 62, ONE, DIV, PE | C1, 0x3FFD << 64 | 0xAAAAAAAAAAAAAAAB),
]


@pytest.mark.parametrize(("one", "zero", "thunk", "flags", "result"), [pytest.param(*c[1:], id=c[0]) for c in CAUSES])
def test_masked_response(guest: Guest, one: int, zero: int, thunk: int, flags: int, result: int) -> None:
    push(guest, one, zero)
    assert run(guest, thunk) == flags
    assert (st(guest), st(guest, 1)) == (result, one)
    assert guest.get("fpu_ip") == PC and guest.get("fpu_dp") == OFFSET


@pytest.mark.parametrize(("one", "zero", "thunk", "flags"), [pytest.param(*c[1:5], id=c[0]) for c in CAUSES])
def test_unmasked_response(guest: Guest, one: int, zero: int, thunk: int, flags: int) -> None:
    """ES and B; invalid, zero-divide and denormal leave the operands, the others give an adjusted result."""
    push(guest, one, zero)
    guest.helper("fldcw", 0x37F & ~flags)
    status = run(guest, thunk)
    assert status & (ES | B) == ES | B
    assert status & 0x3F & flags
    assert st(guest, 1) == one
    if flags & (IE | ZE | DE):
        assert st(guest) == zero
    if flags & OE:  # rounded with an exponent 24576 too small
        assert value_of(st(guest)) == value_of(LARGEST) * 2 / Fraction(2) ** 24576
    if flags & UE:
        assert value_of(st(guest)) == value_of(SMALLEST) ** 2 * Fraction(2) ** 24576


def test_unmasking_later_makes_it_pending(guest: Guest) -> None:
    push(guest, ZERO_BITS, ONE)
    assert run(guest, DIV) == ZE
    guest.helper("fldcw", 0x37F & ~ZE)
    assert guest.get("fpu_status") == ZE | ES | B
    guest.helper("fldcw", 0x37F)
    assert guest.get("fpu_status") == ZE


def test_stack_overflow_and_underflow(guest: Guest) -> None:
    assert run(guest, ADD) == IE | SF and st(guest) == INDEFINITE  # both empty
    guest.helper("fninit")
    for _ in range(8):
        assert run(guest, FLD1) == 0
    assert run(guest, FLDZ) == IE | SF | C1
    assert guest.get("fpu_top") == 7 and st(guest) == INDEFINITE and st(guest, 1) == ONE
    guest.helper("fninit")
    for _ in range(8):
        run(guest, FLD1)
    guest.helper("fldcw", 0x37E)
    assert run(guest, FLDZ) == IE | SF | C1 | ES | B
    assert guest.get("fpu_top") == 0 and st(guest) == ONE


@pytest.mark.parametrize("size", [2, 4, 8, 10])
def test_store_under_unmasked_exceptions(guest: Guest, size: int) -> None:
    """Nothing is stored or popped for an invalid operation; an inexact result is both."""
    thunk = {2: memory_form(0xDF, 3), 4: memory_form(0xDB, 3), 8: memory_form(0xDF, 7), 10: memory_form(0xDF, 6)}[size]
    push(guest, INFINITY)
    guest.helper("fldcw", 0x37E)
    assert guest.helper("x87_store", thunk) == 0
    guest.helper("x87_commit", PC, OFFSET)
    assert guest.get("fpu_status") & ~C1 == IE | ES | B and st(guest) == INFINITY
    guest.helper("fninit")
    push(guest, 0x3FFF << 64 | 3 << 62)  # 1.5
    guest.helper("fldcw", 0x35F)
    assert guest.helper("x87_store", thunk) == 1
    guest.helper("x87_commit", PC, OFFSET)
    assert guest.get("fpu_status") == PE | C1 | ES | B and guest.get("fpu_top") == 0
    assert guest.get("state_image") & 0xFFFF == 2


# --- images -----------------------------------------------------------------------------------------------------------
RANDOM_CODE = (
    *((0xD9, modrm) for modrm in (0xC0, 0xC3, 0xC9, 0xCA, 0xE0, 0xE1, 0xE4, 0xE5, 0xE8, 0xEB, 0xEE, 0xF0, 0xF1, 0xF2)),
    *((0xD9, modrm) for modrm in (0xF3, 0xF4, 0xF5, 0xF6, 0xF7, 0xF8, 0xFA, 0xFC, 0xFD, 0xFE, 0xFF)),
    *((0xD8, modrm) for modrm in (0xC2, 0xCB, 0xD1, 0xE4, 0xF1)),
    *((0xDC, modrm) for modrm in (0xC2, 0xC9, 0xE1, 0xF9)),
    *((0xDD, modrm) for modrm in (0xC5, 0xD3, 0xDA, 0xE1)),
    *((0xDE, modrm) for modrm in (0xC1, 0xC9, 0xD9, 0xE1, 0xF1)),
)


def host_image(code: bytes) -> bytes:
    """FNSAVE's after `code` on the host, in JIT-like memory of our own."""
    area = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    area.write(b"\xdb\xe3" + code + b"\xdd\x37\xc3")  # fninit; ...; fnsave [rdi]; ret
    image = ctypes.create_string_buffer(108)
    ctypes.CFUNCTYPE(None, ctypes.c_void_p)(ctypes.addressof(ctypes.c_char.from_buffer(area)))(ctypes.addressof(image))
    return image.raw


@pytest.mark.parametrize("seed", range(12))
def test_images_after_instructions(guest: Guest, seed: int) -> None:
    """FNSTENV, FXSAVE and FNSAVE after a random program: the environment and registers that the host has after it."""
    print(f"seed {seed}")
    rng = random.Random(seed)
    program = [rng.choice(RANDOM_CODE) for _ in range(rng.randrange(1, 30))]
    for opcode, modrm in program:
        run(guest, register_form(opcode, modrm))
    expected = host_image(b"".join(bytes(pair) for pair in program))
    guest.helper("fxsave", AREA, 1)
    fxsave = guest.read(AREA, 512)
    guest.helper("fnstenv", AREA + 512, 4)
    environment = guest.read(AREA + 512, 28)
    guest.helper("fldcw", 0x37F)
    guest.helper("fnsave", AREA + 1024, 4)
    image = guest.read(AREA + 1024, 108)
    fcw, fsw, ftw = (struct.unpack_from("<H", expected, 4 * n)[0] for n in range(3))
    for ours in (environment, image):
        assert struct.unpack_from("<H2xH2xH", ours) == (fcw, fsw, ftw)
        assert struct.unpack_from("<I", ours, 12)[0] == PC
    assert image[28:] == expected[28:]
    assert struct.unpack_from("<HH", fxsave) == (fcw, fsw)
    assert [fxsave[4] >> n & 1 for n in range(8)] == [int(ftw >> 2 * n & 3 != 3) for n in range(8)]
    assert b"".join(fxsave[32 + 16 * n : 42 + 16 * n] for n in range(8)) == expected[28:]
    assert guest.get("fpu_top") == 0 and guest.get("fpu_control") == 0x37F  # FNSAVE initialises


def test_declared_helpers_exist() -> None:
    for name, decl in X87_HELPERS.items():
        native = NATIVE[f"helper_{name}"]
        assert len(native.args) == 1 + len(decl.args) and (native.returns == "i64") == (decl.ret is not None)
