"""Instruction templates and how they become encodings: `add {rm32},{r32}` for some registers and addressing shapes.

Placeholders: {r8} {r16} {r32} {r64} registers; {m8}..{m128} memory; {rm8}..{rm64} one case each; {i8} {i16} {i32} {i64}
immediates; {x} an XMM register, {xm32}, {xm64}, {xm128} an XMM register or memory; {mm}, {mmm} MMX; {a|b} one of these.
"""

import functools
import itertools
import random
import re
from dataclasses import dataclass, replace

import keystone

from frontends.x86.state import Reg
from fuzz.x86.state import CODE, DATA, DATA_SIZE, MIDDLE, State

_R = {
    "r64": [
        "rax",
        "rcx",
        "rdx",
        "rbx",
        "rsp",
        "rbp",
        "rsi",
        "rdi",
        "r8",
        "r9",
        "r10",
        "r11",
        "r12",
        "r13",
        "r14",
        "r15",
    ],
    "r32": [
        "eax",
        "ecx",
        "edx",
        "ebx",
        "esp",
        "ebp",
        "esi",
        "edi",
        "r8d",
        "r9d",
        "r10d",
        "r11d",
        "r12d",
        "r13d",
        "r14d",
        "r15d",
    ],
    "r16": [
        "ax",
        "cx",
        "dx",
        "bx",
        "sp",
        "bp",
        "si",
        "di",
        "r8w",
        "r9w",
        "r10w",
        "r11w",
        "r12w",
        "r13w",
        "r14w",
        "r15w",
    ],
    "r8": [
        "al",
        "cl",
        "dl",
        "bl",
        "ah",
        "ch",
        "dh",
        "bh",
        "spl",
        "bpl",
        "sil",
        "dil",
        "r8b",
        "r9b",
        "r10b",
        "r11b",
        "r14b",
        "r15b",
    ],
    "x": [f"xmm{n}" for n in range(16)],
    "mm": [f"mm{n}" for n in range(8)],
}
_LEGACY = {"r64": 0, "r32": 8, "r16": 8, "r8": 8, "x": 8, "mm": 8}
_SIZE_WORD = {8: "byte", 16: "word", 32: "dword", 64: "qword", 128: "xmmword", 80: "tbyte", 48: "fword", 0: ""}
_PLACE = re.compile(r"\{([^}]*)\}")
_INDEX_REGS = [r for r in range(16) if r != Reg.RSP]
_SHAPES = (
    "base",
    "base+disp8",
    "base+disp32",
    "base+index",
    "base+index*8+disp8",
    "index*4+disp32",
    "rip",
    "fs",
    "disp",
)


@dataclass(frozen=True, slots=True)
class Case:
    """One encoding. undefined: the flags that the manual leaves undefined. host: it may run on the host CPU.

    base, index, scale, disp: of its memory operand (registers by number or -1), so that states can aim it at the data.
    """

    text: str
    code: bytes
    code64: bool = True
    undefined: int = 0
    host: bool = True
    base: int = -1
    index: int = -1
    scale: int = 1
    disp: int = 0
    memory: bool = False


@dataclass(frozen=True, slots=True)
class Template:
    """text: see the module. undefined: flags mask. host: False when the host must not run it (privilege, branches).

    modes: code sizes it exists in. unicorn: False where Unicorn is known wrong (docs/differences.md).
    """

    text: str
    undefined: int = 0
    host: bool = True
    modes: tuple[bool, ...] = (True,)
    unicorn: bool = True


@functools.cache
def assembler(code64: bool) -> keystone.Ks:
    return keystone.Ks(keystone.KS_ARCH_X86, keystone.KS_MODE_64 if code64 else keystone.KS_MODE_32)


def assemble(text: str, code64: bool = True, pc: int = 0) -> bytes:
    """The encoding of one instruction; a text of hex bytes after `.byte` is taken as it is."""
    if text.startswith(".byte "):
        return bytes.fromhex(text[6:])
    encoded, _ = assembler(code64).asm(text, pc, as_bytes=True)
    if not encoded:
        raise ValueError(f"keystone does not know {text!r}")
    return bytes(encoded)


def expand(template: Template) -> list[Template]:
    """One template for each combination of alternatives and of register or memory."""
    choices = []
    for place in _PLACE.findall(template.text):
        if "|" in place:
            choices.append(place.split("|"))
        elif place.startswith(("rm", "xm")) and place != "xmm":
            choices.append([f"{{{place[0]}{place[2:] if place[0] == 'r' else ''}}}", f"{{m{place[2:]}}}"])
        elif place == "mmm":
            choices.append(["{mm}", "{m64}"])
        else:
            choices.append([f"{{{place}}}"])
    parts = _PLACE.split(template.text)[::2]
    result = []
    for combination in itertools.product(*choices):
        text = "".join(a + b for a, b in itertools.zip_longest(parts, combination, fillvalue=""))
        result.append(replace(template, text=text))
    return result


def cases_of(template: Template, rng: random.Random, count: int) -> list[Case]:
    """`count` encodings of an expanded template with random registers, immediates and addressing shapes."""
    return [_case(template, rng, code64) for code64 in template.modes for _ in range(count)]


def _case(template: Template, rng: random.Random, code64: bool) -> Case:
    memory: dict[str, int] = {}
    host = template.host
    registers = {}
    high_byte = "{r8}" in template.text and "{r64}" not in template.text and rng.randrange(3) == 0 and code64
    numbers = range(8) if high_byte or not code64 else range(16)

    def fill(match: re.Match[str]) -> str:
        nonlocal host
        place = match.group(1)
        if place in _R:
            names = _R[place]
            if place == "r8":
                names = names[:8] if high_byte or not code64 else [n for n in names if n[1] != "h"]
            elif not code64 or high_byte:
                names = names[: 8 if place != "r64" else 16]
            name = rng.choice(names)
            registers[name] = True
            return name
        if place.startswith("m"):
            return _memory(int(place[1:] or 0), rng, code64, numbers, memory)
        bits = int(place[1:])
        value = rng.choice((rng.getrandbits(bits), rng.randrange(-8, 8), rng.getrandbits(min(bits, 5))))
        value &= (1 << bits) - 1
        return f"{value - (1 << bits) if value >> (bits - 1) else value}"

    text = _PLACE.sub(fill, template.text)
    code = assemble(text, code64)
    if memory.get("fs"):
        host = False
    return Case(
        text,
        code,
        code64,
        template.undefined,
        host and code64,
        memory.get("base", -1),
        memory.get("index", -1),
        memory.get("scale", 1),
        memory.get("disp", 0),
        bool(memory),
    )


def _memory(bits: int, rng: random.Random, code64: bool, numbers: range, out: dict[str, int]) -> str:
    shapes = _SHAPES[:-1] if code64 else (*_SHAPES[:-3], "disp")  # keystone makes every [disp] of 64-bit code relative
    shape = rng.choice(shapes)
    names = _R["r64" if code64 else "r32"]
    base = rng.choice(numbers)
    index = rng.choice([r for r in _INDEX_REGS if r in numbers])
    text, segment = "", ""
    out["memory"] = 1
    if shape == "fs":
        segment, shape, out["fs"] = "fs:", "base+disp8", 1
    if shape in ("disp", "rip"):
        at = DATA + rng.randrange(64, DATA_SIZE - 64)
        if shape == "rip":
            out["rip"] = 1
            text = f"[rip+{MIDDLE - CODE}]"
        else:
            text = f"[{at:#x}]"
        out["disp"] = at
    else:
        pieces = []
        if "base" in shape:
            out["base"] = base
            pieces.append(names[base])
        if "index" in shape:
            scale = 8 if "*8" in shape else 4 if "*4" in shape else 1
            out["index"], out["scale"] = index, scale
            pieces.append(f"{names[index]}*{scale}")
        disp = (
            rng.randrange(-128, 128)
            if "disp8" in shape
            else rng.randrange(-(1 << 16), 1 << 16)
            if "disp" in shape
            else 0
        )
        out["disp"] = disp
        text = "+".join(pieces) + (f"{disp:+d}" if disp else "")
        text = f"[{text}]"
    word = _SIZE_WORD[bits]
    return f"{word} ptr {segment}{text}" if word else f"{segment}{text}"


def aim(case: Case, state: State, rng: random.Random, slack: int = 64) -> None:
    """Set base and index registers so that the memory operand lies in the data region (with 64-byte alignment kept)."""
    if not case.memory:
        return
    target = DATA + rng.randrange(slack, DATA_SIZE - slack)
    if rng.randrange(2):
        target &= ~15
    if "fs:" in case.text:
        target -= state.fs_base
    regs, mask = state.regs, (1 << 64) - 1 if case.code64 else (1 << 32) - 1
    if case.index >= 0 and case.base == case.index:
        regs[case.base] = (target - case.disp) // (case.scale + 1) & mask
    elif case.base >= 0:
        if case.index >= 0:
            regs[case.index] = rng.randrange(-64, 64) & mask
            offset = case.scale * regs[case.index]
        else:
            offset = 0
        regs[case.base] = (target - case.disp - offset) & mask
    elif case.index >= 0:
        regs[case.index] = (target - case.disp) // case.scale & mask
