"""Who may run MMX and SSE instructions, what they leave of the x87 state, MXCSR's loads and stores, known answers."""

from collections.abc import Callable

import pytest

from frontends.x86.context import env
from frontends.x86.frontend import X86Frontend
from frontends.x86.helpers.simd_reference import REFERENCE
from frontends.x86.state import STATE, XMM_STRIDE, Mode, Reg, Seg
from tcg.exec.forms import Form, HoleSlot, Variant
from tcg.ir.builder import Builder
from tcg.ir.interp import EnvAccess, FlatMemory, GuestFault, Outcome, run

MODE64 = Mode.CODE64 | Mode.PROTECTED
DATA = 0x10000
UD, NM, GP, PF, MF = 6, 7, 13, 14, 16
ADDPS, MOVAPS_LOAD, MOVUPS_LOAD = bytes.fromhex("0f58c1"), bytes.fromhex("0f2800"), bytes.fromhex("0f1000")  # at [rax]
PADDB_MM, PADDB_XMM, MOVQ_LOAD_MM = bytes.fromhex("0ffcc1"), bytes.fromhex("660ffcc1"), bytes.fromhex("0f6f00")
CVTPI2PS = bytes.fromhex("0f2ac1")
_FLOAT_ONES = 0x3F800000_3F800000_3F800000_3F800000


class Machine:
    """One instruction at a time on the interpreter, with helpers of the test's own."""

    def __init__(self) -> None:
        self.frontend = X86Frontend()
        self.env = bytearray(STATE.size)
        self.memory = bytearray(256)
        self.helpers: dict[str, Callable[..., int | None]] = {}

    def form(self, code: bytes, mode: int = MODE64) -> tuple[Form, dict[str, int]]:
        pattern = self.frontend.decode(code.ljust(15, b"\x90"), 0x1000, mode)
        holes = {"pc": 0x1000, "next_pc": 0x1000 + pattern.length, "disp": 0}
        holes |= {HoleSlot(HoleSlot.R0 + i).name.lower(): value for i, value in enumerate(pattern.regs)}
        return pattern.form, holes

    def step(self, code: bytes, mode: int = MODE64) -> Outcome:
        form, holes = self.form(code, mode)
        builder = Builder()
        self.frontend.emit(form, Variant(), builder)
        return run(builder.block, self.env, FlatMemory(self.memory, DATA), self.helpers, holes)

    def set(self, name: str, value: int, index: int = 0) -> None:
        at, size = STATE.offset(name, index), STATE.fields[name].size
        self.env[at : at + size] = value.to_bytes(size, "little")

    def get(self, name: str, index: int = 0) -> int:
        at, size = STATE.offset(name, index), STATE.fields[name].size
        return int.from_bytes(self.env[at : at + size], "little")


@pytest.fixture
def machine() -> Machine:
    made = Machine()
    made.set("regs", DATA)
    for n in range(16):
        made.set("xmm", _FLOAT_ONES, n)
    for n in range(8):
        made.set("fpu_tags", 1, n)
        made.set("fpregs", 0x3FFF_0000_0000_0000_0100 + n, n)
    made.set("fpu_top", 5)
    return made


def test_state_offsets() -> None:
    assert env("xmm", 3).offset - env("xmm").offset == 3 * XMM_STRIDE


@pytest.mark.parametrize("code", [ADDPS, MOVAPS_LOAD, PADDB_XMM, CVTPI2PS])
def test_sse_is_undefined_until_the_system_enables_it(machine: Machine, code: bytes) -> None:
    before = bytes(machine.env)
    outcome = machine.step(code, MODE64 | Mode.NO_SSE)
    assert (outcome.kind, outcome.vector) == ("raise", UD)
    assert bytes(machine.env) == before


def test_mmx_needs_no_osfxsr(machine: Machine) -> None:
    assert machine.step(PADDB_MM, MODE64 | Mode.NO_SSE).kind == "next"
    assert machine.get("fpregs") & 0xFF == 1 and machine.get("fpregs") >> 64 == 0xFFFF


@pytest.mark.parametrize(
    ("code", "kind"), [(ADDPS, 3), (PADDB_XMM, 3), (CVTPI2PS, 3), (PADDB_MM, 2), (MOVQ_LOAD_MM, 2)]
)
def test_unavailable_fpu_is_asked_about_first(machine: Machine, code: bytes, kind: int) -> None:
    asked: list[int] = []

    def check(access: EnvAccess, which: int) -> None:
        asked.append(which)
        raise GuestFault(NM)

    machine.helpers["x86_check_fpu"] = check
    machine.set("regs", 0)  # the memory operand would fault too
    before = bytes(machine.env)
    outcome = machine.step(code, MODE64 | Mode.FPU_TRAP)
    assert (outcome.kind, outcome.vector, asked) == ("fault", NM, [kind])
    assert bytes(machine.env) == before


def test_pending_x87_exception_stops_mmx_alone(machine: Machine) -> None:
    machine.set("fpu_status", 0x80)
    outcome = machine.step(PADDB_MM)
    assert (outcome.kind, outcome.vector) == ("raise", MF)
    assert machine.get("fpu_top") == 5
    assert machine.step(PADDB_XMM).kind == "next"


def test_mmx_takes_the_x87_registers(machine: Machine) -> None:
    assert machine.step(PADDB_MM).kind == "next"
    assert machine.get("fpu_top") == 0
    assert [machine.get("fpu_tags", n) for n in range(8)] == [0] * 8
    assert machine.get("fpregs", 1) >> 64 == 0x3FFF, "only what is written changes"


def test_a_fault_leaves_the_x87_state(machine: Machine) -> None:
    machine.set("regs", 0)
    before = bytes(machine.env)
    assert machine.step(MOVQ_LOAD_MM).kind == "fault"
    assert bytes(machine.env) == before


def test_alignment(machine: Machine) -> None:
    """FlatMemory faults where MemOp's alignment is broken; MOVUPS asks for none."""
    machine.set("regs", DATA + 1)
    assert machine.step(MOVAPS_LOAD).kind == "fault"
    assert machine.step(MOVUPS_LOAD).kind == "next"


def test_mmx_unpack_low_reads_32_bits(machine: Machine) -> None:
    machine.memory[-4:] = b"\x11\x22\x33\x44"
    machine.set("regs", DATA + len(machine.memory) - 4)
    machine.set("fpregs", 0x8877_6655_4433_2211)
    assert machine.step(bytes.fromhex("0f6000")).kind == "next"  # punpcklbw mm0, [rax]
    assert machine.get("fpregs") & (1 << 64) - 1 == 0x44_44_33_33_22_22_11_11
    assert machine.step(bytes.fromhex("660f6000")).kind == "fault"  # the XMM form reads all 16 bytes


@pytest.mark.parametrize(("prefix", "place"), [("", 0), ("64", 16), ("67", 0)])
def test_masked_store_goes_through_its_segment(machine: Machine, prefix: str, place: int) -> None:
    machine.set("seg_base", 16, Seg.FS)
    machine.set("regs", DATA | (1 << 32 if prefix == "67" else 0), Reg.RDI)
    machine.set("xmm", 0x80 | 0x80 << 120, 1)
    assert machine.step(bytes.fromhex(prefix + "660ff7c1")).kind == "next"
    stored = _FLOAT_ONES.to_bytes(16, "little")
    assert machine.memory[place : place + 16] == stored[:1] + bytes(14) + stored[15:]


def test_ldmxcsr_ends_the_block(machine: Machine) -> None:
    """The mode that code is translated for depends on MXCSR's masks."""
    code = bytes.fromhex("0fae10")
    assert machine.form(code)[0].ends_block
    seen: list[int] = []

    def load(access: EnvAccess, value: int) -> None:
        seen.append(value)

    machine.helpers["x86_ldmxcsr"] = load
    machine.memory[:4] = (0x9FC0).to_bytes(4, "little")
    outcome = machine.step(code)
    assert (outcome.kind, outcome.pc, seen) == ("goto_ptr", 0x1003, [0x9FC0])


def test_stmxcsr(machine: Machine) -> None:
    machine.helpers["x86_stmxcsr"] = lambda access: 0x1FA0
    assert machine.step(bytes.fromhex("0fae18")).kind == "next"
    assert machine.memory[:5] == (0x1FA0).to_bytes(5, "little")


def test_features_gate_instructions() -> None:
    aesenc = bytes.fromhex("660f38dcc1")
    for features, undefined in ((frozenset({"aes"}), False), (frozenset({"sse4.1"}), True)):
        frontend = X86Frontend(features)
        form = frontend.decode(aesenc.ljust(15, b"\x90"), 0, MODE64).form
        assert (form.name.startswith("(undefined)")) == undefined


def test_aes_128() -> None:
    """FIPS 197, appendix B: one block through the helpers as a guest would chain them."""
    key = int.from_bytes(bytes.fromhex("2b7e151628aed2a6abf7158809cf4f3c"), "little")
    text = int.from_bytes(bytes.fromhex("3243f6a8885a308d313198a2e0370734"), "little")
    keys, constant = [key], 1
    for _ in range(10):
        assisted = REFERENCE["x86_aeskeygenassist"](key, constant) >> 96
        words = [key >> 32 * i & 0xFFFFFFFF for i in range(4)]
        for i in range(4):
            words[i] ^= assisted if i == 0 else words[i - 1]
        key = sum(w << 32 * i for i, w in enumerate(words))
        keys.append(key)
        constant = constant << 1 ^ (0x11B if constant & 0x80 else 0)
    state = text ^ keys[0]
    for key in keys[1:-1]:
        state = REFERENCE["x86_aesenc"](state, key)
    state = REFERENCE["x86_aesenclast"](state, keys[-1])
    assert state.to_bytes(16, "little").hex() == "3925841d02dc09fbdc118597196a0b32"
    state ^= keys[-1]
    for key in keys[-2:0:-1]:
        state = REFERENCE["x86_aesdec"](state, REFERENCE["x86_aesimc"](key))
    assert REFERENCE["x86_aesdeclast"](state, keys[0]) == text
