"""Templates of the MMX and SSE instructions, states that make them interesting, and MXCSR for the interpreter."""

import functools
import random
import struct
from collections.abc import Callable

from frontends.x86.helpers.simd_reference import REFERENCE
from frontends.x86.state import Reg
from fuzz.x86.cases import Case, Template
from fuzz.x86.ours import Env, Helpers, Ours
from fuzz.x86.state import DATA, DATA_SIZE, State
from tcg.ir.interp import EnvAccess
from tcg.ir.softfloat import FpState
from tcg.ir.types import Rounding

M64 = (1 << 64) - 1


# --- our side ---------------------------------------------------------------------------------------------------------
class Mxcsr:
    """env.mxcsr as the interpreter's SIMD control and sticky flags."""

    def __init__(self, env: Env) -> None:
        self.env = env

    def control(self, env: EnvAccess, *, x87: bool) -> FpState:
        value = self.env.get("mxcsr")
        return FpState(Rounding(value >> 13 & 3), bool(value & 0x40), bool(value & 0x8000))

    def accumulate(self, env: EnvAccess, flags: int, *, x87: bool) -> None:
        self.env.set("mxcsr", self.env.get("mxcsr") | int(flags))


class PureHelpers(Helpers):
    """The SIMD helpers by their reference meaning, the others as natives."""

    def __getitem__(self, name: str) -> Callable[..., "int | None"]:
        meaning = REFERENCE.get(name)
        return super().__getitem__(name) if meaning is None else lambda access, *args: meaning(*args)


def simd_ours() -> Ours:
    ours = Ours(Mxcsr)
    ours.helpers = PureHelpers(ours.env)
    return ours


def _words(text: str) -> list[str]:
    return text.split()


# --- templates --------------------------------------------------------------------------------------------------------
_FLOATS = (("ss", 32), ("sd", 64), ("ps", 128), ("pd", 128))

MOVE = [
    *(f"{n} {{x}},{{xm128}}" for n in _words("movaps movapd movups movupd movdqa movdqu movshdup movsldup")),
    *(f"{n} {{m128}},{{x}}" for n in _words("movaps movapd movups movupd movdqa movdqu movntps movntpd movntdq")),
    *("lddqu {x},{m128}", "movntdqa {x},{m128}", "movss {x},{xm32}", "movss {m32},{x}", "movsd {x},{xm64}"),
    *("movsd {m64},{x}", "movd {x},{rm32}", "movd {rm32},{x}", "movq {x},{rm64}", "movq {r64},{x}", "movq {x},{xm64}"),
    *("movq {m64},{x}", "movhlps {x},{x}", "movlhps {x},{x}", "movddup {x},{xm64}", "movnti {m32},{r32}"),
    *(f"{n} {{x}},{{m64}}" for n in _words("movlps movlpd movhps movhpd")),
    *(f"{n} {{m64}},{{x}}" for n in _words("movlps movlpd movhps movhpd")),
    *(f"{n} {{r32}},{{x}}" for n in _words("movmskps movmskpd pmovmskb")),
    *(f"{n} {{x}},{{xm128}},{{i8}}" for n in _words("pshufd pshuflw pshufhw shufps shufpd palignr")),
    *(f"{n} {{x}},{{xm128}},{{i8}}" for n in _words("blendps blendpd pblendw")),
    *(f"{n} {{x}},{{xm128}}" for n in _words("blendvps blendvpd pblendvb")),
    *(f"{n} {{x}},{{xm128}}" for n in _words("unpcklps unpcklpd unpckhps unpckhpd punpcklqdq punpckhqdq")),
    *("pinsrw {x},{r32},{i8}", "pinsrw {x},{m16},{i8}", "pinsrb {x},{r32},{i8}", "pinsrb {x},{m8},{i8}"),
    *("pinsrd {x},{rm32},{i8}", "pinsrq {x},{rm64},{i8}", "pextrw {r32},{x},{i8}", "pextrw {m16},{x},{i8}"),
    *("pextrb {r32},{x},{i8}", "pextrb {m8},{x},{i8}", "pextrd {rm32},{x},{i8}", "pextrq {rm64},{x},{i8}"),
    *("extractps {rm32},{x},{i8}", "insertps {x},{xm32},{i8}", "maskmovdqu {x},{x}"),
]
# Both in MM and in XMM registers
_BOTH = _words("""
    paddb paddw paddd paddq psubb psubw psubd psubq paddusb paddusw paddsb paddsw psubusb psubusw psubsb psubsw
    pmullw pmulhw pmulhuw pminub pmaxub pminsw pmaxsw pavgb pavgw pcmpgtb pcmpgtw pcmpgtd pcmpeqb pcmpeqw pcmpeqd
    pand por pxor pandn pmuludq pmaddwd psadbw phaddw phaddd phaddsw phsubw phsubd phsubsw psignb psignw psignd
    pabsb pabsw pabsd psllw pslld psllq psrlw psrld psrlq psraw psrad packsswb packssdw packuswb pshufb pmaddubsw
    pmulhrsw punpckhbw punpckhwd punpckhdq
""")
_XMM_ONLY = _words("""
    pmulld pcmpeqq pminsb pminuw pminsd pminud pmaxsb pmaxuw pmaxsd pmaxud pcmpgtq ptest pmuldq packusdw
    punpcklbw punpcklwd punpckldq andps andpd orps orpd xorps xorpd andnps andnpd phminposuw
""")
_SHIFTS = _words("psllw pslld psllq psrlw psrld psrlq psraw psrad")
_WIDEN = (("bw", 64), ("bd", 32), ("bq", 16), ("wd", 64), ("wq", 32), ("dq", 64))
INTEGER = [
    *(f"{n} {{x}},{{xm128}}" for n in _BOTH + _XMM_ONLY),
    *(f"{n} {{x}},{{i8}}" for n in [*_SHIFTS, "pslldq", "psrldq"]),
    *(f"pmov{s}x{n} {{x}},{'{x}' if reg else f'{{m{m}}}'}" for s in "sz" for n, m in _WIDEN for reg in (0, 1)),
    "mpsadbw {x},{xm128},{i8}",
]
FLOAT = [
    *(f"{n}{s} {{x}},{{xm{w}}}" for n in _words("add sub mul div min max sqrt") for s, w in _FLOATS),
    *(f"cmp{s} {{x}},{{xm{w}}},{i}" for s, w in _FLOATS for i in range(8)),
    *(f"round{s} {{x}},{{xm{w}}},{i}" for s, w in _FLOATS for i in (0, 1, 2, 3, 4, 12)),
    *(f"{n} {{x}},{{xm128}}" for n in _words("haddps haddpd hsubps hsubpd addsubps addsubpd")),
    *(f"{n} {{x}},{{xm128}}" for n in _words("cvtpd2ps cvtdq2ps cvtps2dq cvttps2dq cvtpd2dq cvttpd2dq")),
    *("dpps {x},{xm128},{i8}", "dppd {x},{xm128},{i8}"),
    *(f"{c}omis{s} {{x}},{{xm{w}}}" for c in ("c", "uc") for s, w in (("s", 32), ("d", 64))),
    *("cvtps2pd {x},{xm64}", "cvtdq2pd {x},{xm64}", "cvtsd2ss {x},{xm64}", "cvtss2sd {x},{xm32}"),
    *(f"cvtsi2{s} {{x}},{{rm{w}}}" for s in ("ss", "sd") for w in (32, 64)),
    *(f"cvt{t}s{s}2si {{r{w}}},{{xm{m}}}" for t in ("", "t") for s, m in (("s", 32), ("d", 64)) for w in (32, 64)),
]
CRYPTO = [
    *(f"{n} {{x}},{{xm128}}" for n in _words("aesenc aesenclast aesdec aesdeclast aesimc")),
    *(f"{n} {{x}},{{xm128}}" for n in _words("sha1nexte sha1msg1 sha1msg2 sha256msg1 sha256msg2 sha256rnds2")),
    *(f"{n} {{x}},{{xm128}},{{i8}}" for n in _words("aeskeygenassist pclmulqdq sha1rnds4")),
]
STRING = [
    f"{n} {{x}},{{xm128}},{low | (low * 5 + more) % 8 << 4}"
    for n in _words("pcmpistri pcmpistrm pcmpestri pcmpestrm")
    for low in range(16)
    for more in (0, 4)
] + [".byte 66480f3a61c118", ".byte 66480f3a60c141", ".byte 66480f3a61c15a"]  # REX.W: 64-bit lengths
MMX = [
    *(f"{n} {{mm}},{{mmm}}" for n in _BOTH),
    *(f"{n} {{mm}},{{i8}}" for n in _SHIFTS),
    *("punpcklbw {mm},{mm}", "punpcklwd {mm},{mm}", "punpckldq {mm},{mm}", "movd {mm},{rm32}", "movd {rm32},{mm}"),
    *("movq {mm},{mmm}", "movq {m64},{mm}", "movntq {m64},{mm}", "movdq2q {mm},{x}", "movq2dq {x},{mm}"),
    *("pshufw {mm},{mmm},{i8}", "palignr {mm},{mmm},{i8}", "pinsrw {mm},{r32},{i8}", "pextrw {r32},{mm},{i8}"),
    *("pmovmskb {r32},{mm}", "maskmovq {mm},{mm}", ".byte 480f6ec8", ".byte 480f7ec9"),
    *("cvtpi2ps {x},{mmm}", "cvtpi2pd {x},{mmm}", "cvtps2pi {mm},{x}", "cvttps2pi {mm},{m64}", "cvtps2pi {mm},{m64}"),
    *("cvttps2pi {mm},{x}", "cvtpd2pi {mm},{x}", "cvttpd2pi {mm},{m128}", "cvtpd2pi {mm},{m128}", "cvttpd2pi {mm},{x}"),
]
APPROXIMATE = ["rcpps {x},{xm128}", "rcpss {x},{xm32}", "rsqrtps {x},{xm128}", "rsqrtss {x},{xm32}"]

CHAPTERS = {"move": MOVE, "integer": INTEGER, "float": FLOAT, "crypto": CRYPTO, "string": STRING, "mmx": MMX}


def templates(*chapters: str) -> list[tuple[str, Template]]:
    """MM registers: Unicorn keeps no exponent field and no tags for them. Strings and crypto: the host alone judges."""
    made = []
    for chapter in chapters or CHAPTERS:
        plain = chapter in ("move", "integer")
        for text in CHAPTERS[chapter]:
            modes = (True, False) if plain and "r64}" not in text and "rm64}" not in text else (True,)
            made.append((chapter, Template(text, unicorn=plain, modes=modes)))
    return made


# --- states -----------------------------------------------------------------------------------------------------------
_F32 = (
    0, 0x80000000, 0x3F800000, 0xBF800000, 0x7F800000, 0xFF800000, 0x7FC00000, 0xFFC12345, 0x7F812345, 0xFF800001, 1,
    0x80000001, 0x007FFFFF, 0x00800000, 0x7F7FFFFF, 0x4F000000, 0xCF000000, 0x5F000000, 0x3F000000, 0x3FC00000,
)  # fmt: skip
_F64 = (
    0, 1 << 63, 0x3FF << 52, 0xBFF << 52, 0x7FF << 52, 0xFFF << 52, 0x7FF8 << 48, 0xFFF81234 << 32, 0x7FF0000000012345,
    0xFFF0000000000001, 1, 1 << 63 | 1, (1 << 52) - 1, 1 << 52, 0x7FEFFFFFFFFFFFFF, 0x41E << 52, 0xC1E << 52,
    0x43E << 52, 0xC3E << 52, 0x3FE << 52, 0x36A << 52, 0x381 << 52, 0x41DFFFFFFFC00000, 0x41DFFFFFFFE00000,
)  # fmt: skip


def _float(rng: random.Random, edges: tuple[int, ...], code: str, tiny: float, huge: float) -> int:
    width = 32 if code == "f" else 64
    match rng.randrange(4):
        case 0:
            return rng.choice(edges)
        case 1:
            return rng.getrandbits(width)
    scale = rng.choice((4.0, 1e10, tiny, huge, 0.0))
    value = rng.uniform(-scale, scale) if scale else rng.randrange(-100, 100) / 2
    return int.from_bytes(struct.pack(f"<{code}", value), "little")


def float_vector(rng: random.Random) -> int:
    """Singles or doubles: ordinary, special, denormal, at the edges of conversions."""
    if rng.randrange(2):
        return sum(_float(rng, _F32, "f", 1e-38, 3e38) << 32 * i for i in range(4))
    return sum(_float(rng, _F64, "d", 1e-308, 1e39) << 64 * i for i in range(2))


def integer_vector(rng: random.Random) -> int:
    match rng.randrange(5):
        case 0:
            return rng.getrandbits(128) & rng.getrandbits(128) & rng.getrandbits(128)
        case 1:
            return int.from_bytes(bytes(rng.choice((0, 255, 127, 128, 1)) for _ in range(16)), "little")
        case 2:
            return rng.randrange(80)
    return rng.getrandbits(128)


def string_vector(rng: random.Random, symbols: int) -> int:
    return int.from_bytes(bytes(rng.randrange(symbols) for _ in range(16)), "little")


_POOL_SIZE = 1 << 12


@functools.cache
def _pool(kind: str, symbols: int) -> list[int]:
    """Vectors to choose from: making them takes longer than running the instruction."""
    rng = random.Random(f"{kind} {symbols}")
    make = {"float": float_vector, "integer": integer_vector, "string": lambda rng: string_vector(rng, symbols)}[kind]
    return [make(rng) for _ in range(_POOL_SIZE)]


def address(case: Case, state: State) -> int:
    """gva of the case's memory operand (its displacement is the whole when it has no registers)."""
    base = state.regs[case.base] if case.base >= 0 else 0
    index = state.regs[case.index] * case.scale if case.index >= 0 else 0
    return base + index + case.disp + (state.fs_base if "fs:" in case.text else 0) & M64


def prepare(chapter: str, case: Case, state: State, rng: random.Random) -> None:
    """Vectors that matter for the chapter, in registers and memory; most memory operands aligned."""
    symbols = rng.choice((2, 3, 256))

    kind = "string" if chapter == "string" else "float" if chapter == "float" or "cvt" in case.text else "integer"
    pool = _pool(kind, symbols if kind == "string" else 0)

    def vector() -> int:
        return rng.choice(pool)

    state.xmm = rng.choices(pool, k=16)
    if rng.randrange(4) == 0:
        state.xmm[1] = state.xmm[0]
    rounding = rng.randrange(4) << 13 | rng.randrange(2) << 15 | rng.randrange(2) << 6
    state.mxcsr = 0x1F80 | rounding | (rng.getrandbits(6) if rng.randrange(3) == 0 else 0)
    state.fpu.regs = [rng.choice((0xFFFF, 0x3FFF)) << 64 | vector() & M64 for _ in range(8)]
    state.fpu.top = rng.randrange(8)
    if chapter == "string":
        for reg in (Reg.RAX, Reg.RDX):
            if reg not in (case.base, case.index):
                length = rng.choice(
                    (rng.randrange(-20, 20), rng.randrange(20) | rng.getrandbits(32) << 32, 1 << 31, 1 << 63)
                )
                state.regs[reg] = length & M64
    if "maskmov" in case.text:
        state.regs[Reg.RDI] = DATA + rng.randrange(DATA_SIZE - 16)
    if case.memory and case.base >= 0 and case.base != case.index and rng.randrange(8):
        mask = M64 if case.code64 else 0xFFFFFFFF
        state.regs[case.base] = (state.regs[case.base] - address(case, state) % 16) & mask
    if case.memory:
        at = address(case, state) - DATA
        if 0 <= at <= DATA_SIZE - 16:
            state.memory = state.memory[:at] + vector().to_bytes(16, "little") + state.memory[at + 16 :]
