"""The micro series: what each stage of the translator and each round trip costs. Asserts nothing.

    make bench-micro                   the table, and time per unit below it
    ... BENCH_FLAGS="-k decode"        some of them

A row's time is that of one round; "per unit" divides its least and its median by the instructions, look-ups or accesses
of a round. A round trip includes the guest's loop around it: a few nanoseconds.
"""

import ctypes
import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from backends.llvm.stencils import StencilCompiler
from benchmarks.micro_guest import CODE, MMIO, RAM_SIZE, MicroGuest, assemble
from frontends.x86.frontend import X86Frontend
from frontends.x86.state import Mode
from tcg.exec.forms import Pattern, Variant
from tcg.ir.block import Block
from tcg.ir.builder import Builder
from tcg.opt.pipeline import optimize
from tcg.runtime.layout import BLOCK, MACHINE, PAGE_SIZE, Callback
from tcg.runtime.object import Runtime, runtime_from
from tcg.runtime.registry import Recipe
from tcg.runtime.struct import View

SEED = 1
MODE = int(Mode.PROTECTED | Mode.CODE64)
INSTRUCTIONS = (
    "mov rax, rbx", "mov eax, 1234", "mov rax, [rbx+8]", "mov [rbx+8], rax", "lea rax, [rbx+rcx*4+16]",
    "movzx eax, byte ptr [rsi]", "movsxd rax, ecx", "push rbx", "pop rbx", "xchg rax, rcx",
    "add rax, rbx", "add rax, [rbx+8]", "add qword ptr [rbx+8], rax", "sub rsp, 40", "adc rax, rdx",
    "cmp rax, 10", "cmp byte ptr [rdi], 0", "test eax, eax", "and eax, 255", "xor eax, eax",
    "inc rcx", "neg rax", "imul rax, rbx, 12", "mul rcx", "div rcx",
    "shl rax, 3", "shr eax, cl", "sar rdx, 63", "bt eax, 5", "bsf rax, rbx",
    "cmovne rax, rbx", "sete al", "jne 0x200020", "jmp 0x200020", "call 0x200020",
    "ret", "jmp rax", "movaps xmm0, xmm1", "movups xmm0, [rsi]", "paddd xmm0, xmm1",
)  # fmt: skip
COUNT = len(INSTRUCTIONS)

Round = Callable[..., Any]


@pytest.fixture
def series(benchmark: Any) -> Callable[..., None]:
    """series(function, units, unit): rounds of `function`, the first not measured; `setup` runs before each of them."""

    def run(function: Round, units: int, unit: str, setup: Callable[[], None] | None = None, rounds: int = 20) -> None:
        benchmark.extra_info.update(units=units, unit=unit)
        benchmark.pedantic(function, setup=setup, rounds=rounds, warmup_rounds=1)

    return run


@pytest.fixture(scope="session")
def guest() -> MicroGuest:
    return MicroGuest()


@pytest.fixture(scope="session")
def frontend() -> X86Frontend:
    return X86Frontend()


@pytest.fixture(scope="session")
def codes() -> list[bytes]:
    return [assemble(text) for text in INSTRUCTIONS]


@pytest.fixture(scope="session")
def patterns(frontend: X86Frontend, codes: list[bytes]) -> list[Pattern]:
    return [frontend.decode(code, CODE, MODE) for code in codes]


def emit(frontend: X86Frontend, pattern: Pattern) -> Block:
    builder = Builder()
    frontend.emit(pattern.form, Variant(), builder)
    return builder.block


@pytest.fixture(scope="session")
def blocks(frontend: X86Frontend, patterns: list[Pattern]) -> list[tuple[str, Block]]:
    return [(pattern.form.name, optimize(emit(frontend, pattern))) for pattern in patterns]


# ---- translation of a new encoding or form (Python)


def test_decode(series: Round, codes: list[bytes]) -> None:
    """By a frontend that has seen nothing yet: capstone, operands, form."""
    fresh: list[X86Frontend] = []

    def forget() -> None:
        fresh[:] = [X86Frontend()]
        fresh[0].decode(codes[0], CODE, MODE)

    series(lambda: [fresh[0].decode(code, CODE, MODE) for code in codes], COUNT, "encoding", setup=forget)


def test_decode_by_analogy(series: Round, frontend: X86Frontend, codes: list[bytes]) -> None:
    """Encodings of which it has decoded the like."""
    series(lambda: [frontend.decode(code, CODE, MODE) for code in codes], COUNT, "encoding")


def test_ir(series: Round, frontend: X86Frontend, patterns: list[Pattern]) -> None:
    series(lambda: [emit(frontend, pattern) for pattern in patterns], COUNT, "form")


def test_optimize(series: Round, frontend: X86Frontend, patterns: list[Pattern]) -> None:
    raw = [emit(frontend, pattern) for pattern in patterns]
    series(lambda: [optimize(block) for block in raw], COUNT, "form")


def test_llvm_batch_of_1(series: Round, blocks: list[tuple[str, Block]]) -> None:
    """A compiler keeps what it has made, so every round has a new one."""

    def batches() -> None:
        compiler = StencilCompiler()
        for block in blocks:
            compiler.compile([block])

    series(batches, COUNT, "form", rounds=5)


def test_llvm_batch_of_40(series: Round, blocks: list[tuple[str, Block]]) -> None:
    series(lambda: StencilCompiler().compile(blocks), COUNT, "form", rounds=5)


# ---- the native half


def straight_code(count: int) -> tuple[bytes, int]:
    """`count` blocks of 8 instructions (load, store, ALU; known forms), each of which runs once; the code, how many."""
    rng = random.Random(SEED)
    registers = ("rax", "rbx", "rdx", "rsi", "rdi", "r8", "r9", "r10")
    lines = [f"mov rbp, {CODE - PAGE_SIZE:#x}"]
    for n in range(count):
        for _ in range(2):
            a, b = rng.choice(registers), rng.choice(registers)
            load, store = (f"[rbp+{8 * rng.randrange(128)}]" for _ in range(2))
            lines += [f"mov {a}, {load}", f"add {b}, {a}", f"mov {store}, {b}"]
        lines += [f"cmp {rng.choice(registers)}, {rng.randrange(1000)}", f"jne b{n}", f"b{n}:"]
    return assemble("\n".join([*lines, "hlt"])), 8 * count + 2


def test_assemble(series: Round, guest: MicroGuest) -> None:
    """Blocks never seen, of known forms: look-up, native block assembly, one run, chaining."""
    code, instructions = straight_code(1000)
    guest.load(code)

    def again() -> None:
        guest.machine.flush()
        guest.enter()

    series(guest.run, instructions, "guest instruction", setup=again)


def test_run(series: Round, guest: MicroGuest) -> None:
    """The same code when it is translated: block heads, chained jumps and in-line TLB hits."""
    code, instructions = straight_code(1000)
    guest.load(code)
    series(guest.run, instructions, "guest instruction", setup=guest.enter)


@pytest.fixture(scope="session")
def qht_runtime() -> Runtime:
    modules = ("tcg.runtime.qht", "benchmarks.micro_native")
    return runtime_from(Recipe(), ("qht_init", "qht_free", "qht_add", "micro_qht_find"), modules)


@pytest.fixture
def qht(qht_runtime: Runtime) -> Iterator[tuple[int, int, int]]:
    """A table of 20 000 blocks: hva of the machine, of the first record, count."""
    count = 20_000
    machine = (ctypes.c_char * MACHINE.size)()
    records = (ctypes.c_char * (count * BLOCK.size + 16))()
    at, first = ctypes.addressof(machine), (ctypes.addressof(records) + 15) & -16
    qht_runtime.call("qht_init", at)
    rng = random.Random(SEED)
    for n, gpa in enumerate(rng.sample(range(1 << 26), count)):
        record = View(BLOCK, first + n * BLOCK.size)
        record.set("gpa", gpa)
        record.set("pc", 0xFFFFFFFF80000000 + gpa)
        record.set("mode", MODE)
        qht_runtime.call("qht_add", at, record.address)
    yield at, first, count
    qht_runtime.call("qht_free", at)


def test_qht_probe(series: Round, qht_runtime: Runtime, qht: tuple[int, int, int]) -> None:
    find = qht_runtime.function("micro_qht_find", 3)
    series(lambda: find(*qht), qht[2], "look-up")


# ---- the guest's memory and devices


def loop(body: str, count: int) -> bytes:
    return assemble(f"mov esi, {MMIO:#x}; mov ecx, {count}; again: {body}; dec ecx; jnz again; hlt")


def test_tlb_fill(series: Round, guest: MicroGuest) -> None:
    """Loads over twice as many pages as the TLB has entries: each one misses and walks four levels."""
    pages = RAM_SIZE // PAGE_SIZE
    guest.load(assemble(f"xor esi, esi; mov ecx, {pages}; l: mov al, [rsi]; add rsi, {PAGE_SIZE}; dec ecx; jnz l; hlt"))
    guest.enter()
    guest.run()  # grows the TLB
    before = guest.stat("walks")
    guest.enter()
    guest.run()
    walks = guest.stat("walks") - before
    series(guest.run, pages, f"load, {walks / pages:.2f} walks", setup=guest.enter)


def test_mmio_round_trip(series: Round, guest: MicroGuest) -> None:
    """A load from a device: TLB flag, slow path, callback into an empty Python handler."""
    guest.load(loop("mov eax, [rsi]", 1000))
    series(guest.run, 1000, "load", setup=guest.enter)


def test_port_round_trip(series: Round, guest: MicroGuest) -> None:
    guest.vcpu.handlers[Callback.PORT_READ] = lambda _port, _size, _c: 0xFF
    guest.load(loop("in al, 0x80", 1000))
    series(guest.run, 1000, "IN", setup=guest.enter)
