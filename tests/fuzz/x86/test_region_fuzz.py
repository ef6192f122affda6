"""Whole blocks against their instructions one by one: random sequences, equal registers, flags and memory."""

import random
import re

import keystone
import pytest

from frontends.x86.context import X86Insn
from frontends.x86.frontend import X86Frontend
from frontends.x86.operands import X86Key
from frontends.x86.region import concrete, decode_block, emit_block
from frontends.x86.state import STATE, Mode
from tcg.exec.forms import Variant
from tcg.ir.builder import Builder
from tcg.ir.interp import FlatMemory, run
from tcg.ir.verify import verify
from tcg.opt.pipeline import optimize

PC, MODE = 0x1000, int(Mode.CODE64 | Mode.PROTECTED)
DATA = 0x800  # RBP and R13 stay here: memory operands are near it
R8 = ("al", "cl", "dl", "bl", "ah", "ch", "dh", "bh")
R8N = ("al", "cl", "sil", "dil", "r8b", "r9b")
R16 = ("ax", "cx", "dx", "bx", "si", "r8w")
R32 = ("eax", "ecx", "edx", "ebx", "esi", "r8d", "r9d")
R64 = ("rax", "rcx", "rdx", "rbx", "rsi", "r8", "r9")
HIGH, REX = re.compile(r"\b[abcd]h\b"), re.compile(r"\br\d|\b[sd]il\b")
XMM = ("xmm0", "xmm1", "xmm2", "xmm3")
BINARY = ("add", "sub", "and", "or", "xor", "cmp", "test", "adc", "sbb", "mov")
CONDITIONS = ("e", "ne", "l", "ge", "b", "ae", "s", "o", "p", "a", "g")
UNCHANGED = ("cc_dst", "cc_src", "cc_src2", "cc_op")  # how the flags are kept may differ; what they say may not


def one(rng: random.Random) -> str:
    kind = rng.randrange(12)
    names = rng.choice((R8, R8N, R16, R32, R64))
    size = {R8: "byte", R8N: "byte", R16: "word", R32: "dword", R64: "qword"}[names]
    memory = f"{size} ptr [{rng.choice(('rbp', 'r13'))} + {rng.randrange(-64, 64)}]"
    a, b = rng.choice(names), rng.choice(names)
    if kind < 4:
        return f"{rng.choice(BINARY)} {a}, {rng.choice((b, b, memory, str(rng.randrange(-100, 100))))}"
    if kind == 4:
        return f"{rng.choice(BINARY)} {memory}, {b}"
    if kind == 5:
        return f"{rng.choice(('inc', 'dec', 'neg', 'not'))} {a}"
    if kind == 6:
        return f"{rng.choice(('shl', 'shr', 'sar', 'rol', 'ror'))} {a}, {rng.choice(('1', '3', 'cl'))}"
    if kind == 7:
        return f"set{rng.choice(CONDITIONS)} {rng.choice(R8 + R8N)}"
    if kind == 8:
        return f"cmov{rng.choice(CONDITIONS)} {rng.choice(R64)}, {rng.choice(R64)}"
    if kind == 9:
        return rng.choice((f"movzx {rng.choice(R32)}, {rng.choice(R8N)}", f"lea {rng.choice(R64)}, [rbp + rax*2 + 5]"))
    x, y = rng.choice(XMM), rng.choice(XMM)
    if kind == 10:
        return f"{rng.choice(('movaps', 'pxor', 'paddd', 'punpckldq', 'movsd', 'movss', 'shufps'))} {x}, {y}"
    return rng.choice((f"movd {x}, {rng.choice(R32)}", f"movq {rng.choice(R64)}, {x}", f"movsd qword ptr [rbp+8], {x}"))


def flags(env: bytearray | memoryview) -> int:
    from frontends.x86.flags import CcOp, status

    def field(name: str) -> int:
        at, size = STATE.offset(name), STATE.fields[name].size
        return int.from_bytes(env[at : at + size], "little")

    return status(CcOp(field("cc_op")), field("cc_dst"), field("cc_src"), field("cc_src2"))


def start(rng: random.Random) -> tuple[bytearray, bytearray]:
    env = bytearray(65536)
    for n in range(16):
        value = rng.choice((rng.getrandbits(64), rng.getrandbits(8), (1 << 64) - 1, 1 << 63))
        at = STATE.offset("regs", n)
        env[at : at + 8] = (DATA if n in (5, 13) else value).to_bytes(8, "little")
        at = STATE.offset("xmm", n)
        env[at : at + 16] = rng.getrandbits(128).to_bytes(16, "little")
    env[STATE.offset("cc_op")] = 1
    env[STATE.offset("cc_src")] = rng.choice((0, 0x41, 0x95 & 0xD5, 0x80))
    return env, bytearray(rng.randbytes(4096))


def masked(env: bytearray) -> bytes:
    copy = bytearray(env)
    for name in UNCHANGED:
        at = STATE.offset(name)
        copy[at : at + STATE.fields[name].size] = bytes(STATE.fields[name].size)
    return bytes(copy[STATE.offset("regs") :])


@pytest.mark.parametrize("part", range(8))
def test_blocks_mean_what_their_instructions_mean(part: int, seed: int) -> None:
    rng = random.Random(f"{seed} {part}")
    frontend = X86Frontend()
    assembler = keystone.Ks(keystone.KS_ARCH_X86, keystone.KS_MODE_64)
    for _ in range(25):
        lines = []
        while len(lines) < 8:
            text = one(rng)
            if text.startswith("shufps"):
                text += ", 0x1b"
            # AH and its like have no encoding beside a REX prefix, and keystone ends the process over them.
            if not (HIGH.search(text) and REX.search(text)):
                lines.append(text)
        code = bytes(assembler.asm("; ".join(lines), PC)[0])
        region = optimize(emit_block(frontend, code, PC, MODE, len(lines)))
        verify(region)
        env, memory = start(rng)
        plain_env, plain_memory = bytearray(env), bytearray(memory)
        natives = {"x86_compute_eflags": lambda access: flags(access.data)}
        got = run(region, env, FlatMemory(memory), natives, {}, limit=10_000)
        for pc, pattern in decode_block(frontend, code, PC, MODE, len(lines)):
            key = pattern.form.key
            assert isinstance(key, X86Key)
            builder = Builder()
            x = X86Insn(key, Variant(), builder, concrete(pattern, code[pc - PC :], pc))
            builder.insn_start(x.pc)
            frontend.emit_row(x)
            run(builder.block, plain_env, FlatMemory(plain_memory), natives, {}, limit=10_000)
        told = f"seed {seed} part {part}: " + "; ".join(lines)
        assert got.kind == "next", told
        assert memory == plain_memory, told
        assert flags(env) == flags(plain_env), told
        assert masked(env) == masked(plain_env), told
