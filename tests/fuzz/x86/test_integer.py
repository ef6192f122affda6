"""Integer instructions: our IR in every variant against Unicorn and the host CPU, over random states."""

import random

import pytest

from frontends.x86.flags import CF, OF
from frontends.x86.state import Mode, Reg
from fuzz.x86.cases import Case, Template
from fuzz.x86.harness import fuzz
from fuzz.x86.integer import CHAPTERS
from fuzz.x86.state import DATA, DATA_SIZE, MIDDLE, Result, State, random_word

_TEMPLATES = [pytest.param(t, name, id=f"{name}: {t.text}") for name, chapter in CHAPTERS.items() for t in chapter]


def _prepare(chapter: str, case: Case, state: State, rng: random.Random) -> None:
    """Make the interesting things likely: faults stay rare, counts small, quotients fitting."""
    regs = state.regs
    mask = (1 << 64) - 1 if case.code64 else (1 << 32) - 1
    name = case.text.removeprefix("lock ").split()[0]
    if name == "xlatb" or case.text == ".byte 64d7":
        base = DATA + rng.randrange(DATA_SIZE - 256)
        regs[Reg.RBX] = base - (state.fs_base if case.code[0] == 0x64 else 0) & mask
    elif chapter == "string":
        for reg in (Reg.RSI, Reg.RDI):
            regs[reg] = DATA + 0x100 + rng.randrange(0x400)
        if case.code[0] in (0x64, 0x65):
            regs[Reg.RSI] = rng.randrange(0x400)
        if rng.randrange(3) == 0:  # equal elements, for CMPS and SCAS
            regs[Reg.RSI] = regs[Reg.RDI] if case.code[0] not in (0x64, 0x65) else regs[Reg.RSI]
            at = regs[Reg.RDI] - DATA
            regs[Reg.RAX] = int.from_bytes(state.memory[at : at + 8], "little") & mask
    elif name in ("leave", "enter", ".byte") and chapter == "stack":
        regs[Reg.RBP] = MIDDLE + 8 * rng.randrange(-64, 64)
    elif name in ("bt", "bts", "btr", "btc") and case.memory:
        source = case.text.split(",")[-1].strip()
        for i, names in enumerate(_NAMES):
            if source in names and i not in (case.base, case.index):
                regs[i] = rng.randrange(-300, 300) & mask
    elif name.startswith(("cmpxchg",)):
        if rng.randrange(2) and case.memory:
            at = _address(case, state) - DATA
            if 0 <= at <= DATA_SIZE - 16 and Reg.RAX not in (case.base, case.index):
                regs[Reg.RAX] = int.from_bytes(state.memory[at : at + 8], "little") & mask
                if Reg.RDX not in (case.base, case.index):
                    regs[Reg.RDX] = int.from_bytes(state.memory[at + 8 : at + 16], "little") & mask
                if name == "cmpxchg8b" and Reg.RDX not in (case.base, case.index):
                    regs[Reg.RDX] = int.from_bytes(state.memory[at + 4 : at + 8], "little")
    elif chapter == "divide" and rng.randrange(4):
        signed = name == "idiv"
        for reg in (Reg.RDX, Reg.RAX):
            if reg not in (case.base, case.index):
                regs[reg] = (
                    rng.choice((0, random_word(rng, 7), mask if signed else 1)) if reg == Reg.RDX else random_word(rng)
                )
                regs[reg] &= mask
    elif chapter == "control" and (case.code[0] == 0x67 or 0xE0 <= case.code[0] < 0xE4):
        regs[Reg.RCX] = rng.choice((0, 1, 2, 1 << 32, (1 << 32) + 1)) & mask
    elif name == "bound" or (chapter == "control" and case.code[:1] == b"\x62"):
        regs[Reg.RSI] = DATA + 0x100


_NAMES = [
    {"rax", "eax", "ax"},
    {"rcx", "ecx", "cx"},
    {"rdx", "edx", "dx"},
    {"rbx", "ebx", "bx"},
    {"rsp", "esp", "sp"},
    {"rbp", "ebp", "bp"},
    {"rsi", "esi", "si"},
    {"rdi", "edi", "di"},
    *({f"r{n}", f"r{n}d", f"r{n}w"} for n in range(8, 16)),
]


def _address(case: Case, state: State) -> int:
    base = state.regs[case.base] if case.base >= 0 else 0
    index = state.regs[case.index] * case.scale if case.index >= 0 else 0
    return base + index + case.disp + (state.fs_base if "fs:" in case.text else 0) & (1 << 64) - 1


def _undefined(case: Case, before: State, ours: Result, expected: Result) -> int:
    """Flags left undefined for the count that this shift has."""
    name = case.text.split()[0]
    if name not in ("shl", "shr", "sar", "rol", "ror", "rcl", "rcr", "shld", "shrd"):
        return 0
    operands = case.text[len(name) :].split(",")
    width = _width(operands[0])
    last = operands[-1].strip()
    count = before.regs[Reg.RCX] & 0xFF if last == "cl" else int(last, 0) & 0xFF
    count &= 63 if width == 64 else 31
    mask = 0
    if count > 1:
        mask |= OF
    if name in ("shl", "shr") and count >= width:
        mask |= CF | OF
    if name in ("shld", "shrd") and count > width:
        return -1
    return mask


def _unicorn_wrong(case: Case) -> bool:
    """QEMU before 7 forgets the immediate when it works out a pc-relative operand of these."""
    return "rip" in case.text and case.text.startswith(("shld", "shrd", "rorx"))


def _width(operand: str) -> int:
    operand = operand.strip()
    for word, width in (("byte", 8), ("qword", 64), ("dword", 32), ("word", 16)):
        if operand.startswith(word):
            return width
    if (operand.endswith(("d",)) and operand[0] == "r") or operand[0] == "e":
        return 32
    if operand[0] == "r" and operand[-1] not in "wb":
        return 64
    return 8 if operand.endswith(("l", "h", "b")) else 16


@pytest.mark.parametrize(("template", "chapter"), _TEMPLATES)
def test_agrees(template: Template, chapter: str, seed: int, states: int) -> None:
    problems = fuzz(
        template,
        seed,
        states,
        prepare=lambda case, state, rng: _prepare(chapter, case, state, rng),
        undefined=_undefined,
        unicorn_wrong=_unicorn_wrong,
    )
    assert not problems, "\n".join(str(p) for p in problems[:3])


@pytest.mark.parametrize(
    "template", [t for c in CHAPTERS.values() for t in c if t.text.startswith(("lock", "xchg"))], ids=lambda t: t.text
)
def test_atomics_agree(template: Template, seed: int, states: int) -> None:
    """With more than one vCPU, locked instructions take the IR's atomic ops."""
    problems = fuzz(
        template,
        seed,
        states,
        prepare=lambda case, state, rng: _prepare("", case, state, rng),
        stencil=False,
        more_mode=Mode.PARALLEL,
    )
    assert not problems, "\n".join(str(p) for p in problems[:3])
