"""The second half of block assembly: lay the stencils of CPU.insns into the code buffer and patch them.

    4  copy: block head, hot parts end to end, the exit; then out of line the local jumps, cold parts, exit stubs
    5  patch every relocation with the hole values, which come from the pattern and the guest bytes

Runs under tb_lock, outside JIT code. In front of a block's code lies the address of its record (BLOCK_LINK bytes).

Exits: slot 0 is the taken branch (TARGET), slot 1 the next instruction (NEXT_PC). An exit to the block's own page is a
jump that chaining patches; its displacement lies within a cache line. One to another page depends on the address space
and goes through the jump cache (`far_exit`).
"""

from tcg.exec.forms import HoleSlot, RelocKind
from tcg.runtime.blocks import patch_jump
from tcg.runtime.layout import (
    ASSEMBLED_INSN,
    BLOCK,
    CPU,
    ENV,
    EXIT_SLOT,
    FORM,
    FORM_ENDS,
    MACHINE,
    PATTERN,
    PATTERN_DISP_PC,
    PATTERN_IMM_PC,
    PATTERN_WRAP,
    RELOC,
    STENCIL,
    VALUE_COLD,
    VALUE_EXIT0,
    VALUE_HOT,
    VALUE_LEAVE,
    VALUE_NEXT,
    VALUE_ZERO,
)
from tcg.runtime.memory import (
    copy16,
    ld8,
    ld8s,
    ld16,
    ld16s,
    ld32,
    ld32s,
    ld64,
    memset,
    native,
    st8,
    st16,
    st32,
    st64,
)

_ENV_CPU = ENV.offset("cpu")
_MACHINE = CPU.offset("machine")
_VALUES = CPU.offset("values")
_CODE_TOP = MACHINE.offset("code_top")
_CODE_END = MACHINE.offset("code_end")
_CODE_DELTA = MACHINE.offset("code_delta")
_FORMS = MACHINE.offset("forms")
_PATTERNS = MACHINE.offset("patterns")
_STENCIL_BYTES = MACHINE.offset("stencil_bytes")
_RELOCS = MACHINE.offset("relocs")
_BLOCK_HEAD = MACHINE.offset("block_head")
_EXIT_STUB = MACHINE.offset("exit_stub")
_FAR_EXIT = MACHINE.offset("far_exit")
_LEAVE = MACHINE.offset("leave")
_F_FLAGS = FORM.offset("flags")
_P_LENGTH = PATTERN.offset("length")
_P_DISP_AT = PATTERN.offset("disp_at")
_P_DISP_SIZE = PATTERN.offset("disp_size")
_P_IMM_AT = PATTERN.offset("imm_at")
_P_IMM_SIZE = PATTERN.offset("imm_size")
_P_IMM2_AT = PATTERN.offset("imm2_at")
_P_IMM2_SIZE = PATTERN.offset("imm2_size")
_P_FLAGS = PATTERN.offset("flags")
_P_REGS = PATTERN.offset("regs")
_T_BYTES = STENCIL.offset("bytes")
_T_HOT_SIZE = STENCIL.offset("hot_size")
_T_COLD_SIZE = STENCIL.offset("cold_size")
_T_RELOCS = STENCIL.offset("relocs")
_T_HOT_RELOCS = STENCIL.offset("hot_relocs")
_T_COLD_RELOCS = STENCIL.offset("cold_relocs")
_T_EXITS = STENCIL.offset("exits")
_T_DIRECT = STENCIL.offset("direct")
_T_DIRECT_AT = STENCIL.offset("direct_at")
_R_KIND = RELOC.offset("kind")
_R_VALUE = RELOC.offset("value")
_R_ADDEND = RELOC.offset("addend")
_RELOC_SIZE = RELOC.size
_I_FORM = ASSEMBLED_INSN.offset("form")
_I_BYTES = ASSEMBLED_INSN.offset("bytes")
_I_PC = ASSEMBLED_INSN.offset("pc")
_I_STENCIL = ASSEMBLED_INSN.offset("stencil")
_I_CODE = ASSEMBLED_INSN.offset("code")
_I_COLD = ASSEMBLED_INSN.offset("cold")
_INSN_SIZE = ASSEMBLED_INSN.size
_B_GPA2 = BLOCK.offset("gpa2")
_B_CODE = BLOCK.offset("code")
_B_CODE_SIZE = BLOCK.offset("code_size")
_B_EXITS = BLOCK.offset("exits")
_S_PLACE = EXIT_SLOT.offset("place")
_S_STUB = EXIT_SLOT.offset("stub")
_S_TARGET = EXIT_SLOT.offset("target")
_S_PC = EXIT_SLOT.offset("pc")
_SLOT_SIZE = EXIT_SLOT.size
_PC = int(HoleSlot.PC)
_NEXT_PC = int(HoleSlot.NEXT_PC)
_TARGET = int(HoleSlot.TARGET)
_IMM = int(HoleSlot.IMM)
_DISP = int(HoleSlot.DISP)
_IMM2 = int(HoleSlot.IMM2)
_R0 = int(HoleSlot.R0)
_REL32 = int(RelocKind.REL32)
_ABS32 = int(RelocKind.ABS32)
_ABS64 = int(RelocKind.ABS64)
_ABS16 = int(RelocKind.ABS16)

BLOCK_LINK = 16
COPY_STEP = 16
LINE = 64  # bytes of a host cache line, within which a patched field lies

# Host encodings (x86-64): a jump with a 32-bit displacement and the padding. A second host adds its own here.
JUMP = 0xE9
JUMP_SIZE = 5
JUMP_FIELD = 1
NOP = 0x90


@native
def sized(hva: int, size: int) -> int:
    """A little-endian signed field of 0, 1, 2, 4 or 8 bytes."""
    if size == 4:
        return ld32s(hva)
    if size == 1:
        return ld8s(hva)
    if size == 0:
        return 0
    if size == 2:
        return ld16s(hva)
    return ld64(hva)


@native
def set_values(machine: int, values: int, insn: int) -> None:
    """The hole values of one instruction."""
    pattern = ld64(machine + _PATTERNS) + ld64(insn)
    code = ld64(insn + _I_BYTES)
    pc = ld64(insn + _I_PC)
    flags = ld8(pattern + _P_FLAGS)
    following = pc + ld8(pattern + _P_LENGTH)
    disp = sized(code + ld8(pattern + _P_DISP_AT), ld8(pattern + _P_DISP_SIZE))
    imm = sized(code + ld8(pattern + _P_IMM_AT), ld8(pattern + _P_IMM_SIZE))
    target = following + imm
    if flags & PATTERN_DISP_PC != 0:
        disp += following
    if flags & PATTERN_IMM_PC != 0:
        imm = target
    if flags & PATTERN_WRAP != 0:
        following &= 0xFFFFFFFF
        target &= 0xFFFFFFFF
        if flags & PATTERN_DISP_PC != 0:
            disp &= 0xFFFFFFFF
        if flags & PATTERN_IMM_PC != 0:
            imm &= 0xFFFFFFFF
    st64(values + 8 * _PC, pc)
    st64(values + 8 * _NEXT_PC, following)
    st64(values + 8 * _TARGET, target)
    st64(values + 8 * _IMM, imm)
    st64(values + 8 * _DISP, disp)
    if ld8(pattern + _P_IMM2_SIZE) != 0:
        st64(values + 8 * _IMM2, sized(code + ld8(pattern + _P_IMM2_AT), ld8(pattern + _P_IMM2_SIZE)))
    for i in range(6):
        st64(values + 8 * (_R0 + i), ld32(pattern + _P_REGS + 4 * i))


@native
def patch_part(values: int, relocs: int, count: int, part: int, delta: int) -> None:
    """Apply `count` relocations to the part at `part` (executable side)."""
    end = relocs + count * _RELOC_SIZE
    while relocs < end:
        place = part + ld32(relocs)
        value = ld64(values + 8 * ld16(relocs + _R_VALUE)) + ld64(relocs + _R_ADDEND)
        kind = ld16(relocs + _R_KIND)
        if kind == _REL32:
            st32(place + delta, value - place)
        elif kind == _ABS32:
            st32(place + delta, value)
        elif kind == _ABS64:
            st64(place + delta, value)
        elif kind == _ABS16:
            st16(place + delta, value)
        else:
            st8(place + delta, value)
        relocs += _RELOC_SIZE


@native
def patch_stencil(machine: int, values: int, stencil: int, hot: int, cold: int) -> None:
    delta = ld64(machine + _CODE_DELTA)
    relocs = ld64(machine + _RELOCS) + ld32(stencil + _T_RELOCS) * _RELOC_SIZE
    hot_relocs = ld32(stencil + _T_HOT_RELOCS)
    st64(values + 8 * VALUE_HOT, hot)
    st64(values + 8 * VALUE_COLD, cold)
    patch_part(values, relocs, hot_relocs, hot, delta)
    patch_part(values, relocs + hot_relocs * _RELOC_SIZE, ld32(stencil + _T_COLD_RELOCS), cold, delta)


@native
def copy_code(to: int, source: int, size: int) -> None:
    """Copy at least `size` bytes in COPY_STEPs: what is too much is overwritten by what is laid next.

    Python pads every stencil in the byte array, and the code buffer's limit leaves room behind.
    """
    end = to + size
    while to < end:
        copy16(to, source)
        to += COPY_STEP
        source += COPY_STEP


@native
def place_whole(machine: int, values: int, stencil: int, at: int) -> int:
    """Copy and patch a fixed stencil, hot and cold part end to end, at `at`; the end."""
    hot_size = ld32(stencil + _T_HOT_SIZE)
    size = hot_size + ld32(stencil + _T_COLD_SIZE)
    copy_code(at + ld64(machine + _CODE_DELTA), ld64(machine + _STENCIL_BYTES) + ld64(stencil + _T_BYTES), size)
    patch_stencil(machine, values, stencil, at, at + hot_size)
    return at + size


@native
def align_field(machine: int, at: int, field: int, field2: int) -> int:
    """Pad with NOPs so that the 4-byte fields at at + field and field2 (-1: none) cross no cache line; the new `at`."""
    pad = 0
    while pad < LINE:
        first = field < 0 or (at + pad + field) & (LINE - 1) <= LINE - 4
        second = field2 < 0 or (at + pad + field2) & (LINE - 1) <= LINE - 4
        if first and second:
            break
        pad += 1
    memset(at + ld64(machine + _CODE_DELTA), NOP, pad)
    return at + pad


@native
def place_jump(machine: int, at: int) -> int:
    """A jump at or, with its field aligned, a few NOPs after `at`; where its field is."""
    at = align_field(machine, at, JUMP_FIELD, -1)
    st8(at + ld64(machine + _CODE_DELTA), JUMP)
    return at + JUMP_FIELD


@native
def place_stub(machine: int, values: int, slot: int, far: int, at: int) -> int:
    """Where the exit at `slot` leads: its exit stub, or the look-up of its pc; the end."""
    to = ld64(slot + _S_PC)
    st64(values + 8 * _PC, to)
    st64(values + 8 * _TARGET, to)
    st64(values + 8 * _IMM, slot)
    st64(slot + _S_STUB, at)
    if far != 0:
        return place_whole(machine, values, ld64(machine + _FAR_EXIT), at)
    return place_whole(machine, values, ld64(machine + _EXIT_STUB), at)


@native
def lay_hot(machine: int, first: int, count: int, at: int, direct0: int, direct1: int) -> int:
    """Copy the hot parts from `at` on, end to end; the end."""
    delta = ld64(machine + _CODE_DELTA)
    source = ld64(machine + _STENCIL_BYTES)
    for i in range(count):
        insn = first + i * _INSN_SIZE
        stencil = ld64(insn + _I_STENCIL)
        if i == count - 1 and direct0 | direct1 != 0:
            field0 = ld16(stencil + _T_DIRECT_AT) if direct0 != 0 else -1
            field1 = ld16(stencil + _T_DIRECT_AT + 2) if direct1 != 0 else -1
            at = align_field(machine, at, field0, field1)
        size = ld32(stencil + _T_HOT_SIZE)
        copy_code(at + delta, source + ld64(stencil + _T_BYTES), size)
        st64(insn + _I_CODE, at)
        at += size
    return at


@native
def lay_cold(machine: int, first: int, count: int, at: int) -> int:
    """Copy the cold parts from `at` on; the end."""
    delta = ld64(machine + _CODE_DELTA)
    source = ld64(machine + _STENCIL_BYTES)
    for i in range(count):
        insn = first + i * _INSN_SIZE
        stencil = ld64(insn + _I_STENCIL)
        size = ld32(stencil + _T_COLD_SIZE)
        copy_code(at + delta, source + ld64(stencil + _T_BYTES) + ld32(stencil + _T_HOT_SIZE), size)
        st64(insn + _I_COLD, at)
        at += size
    return at


@native
def lay(env: int, block: int, first: int, count: int, chained: int) -> None:
    """Lay the block's host code at the code buffer's top and set the rest of its record.

    chained 0: every exit returns to the exec loop, for good.
    """
    cpu = ld64(env + _ENV_CPU)
    machine = ld64(cpu + _MACHINE)
    values = cpu + _VALUES
    delta = ld64(machine + _CODE_DELTA)
    pc = ld64(block)
    last = first + (count - 1) * _INSN_SIZE
    tail = ld64(last + _I_STENCIL)
    ends = ld32(ld64(machine + _FORMS) + ld64(last + _I_FORM) + _F_FLAGS) & FORM_ENDS
    st64(values + 8 * VALUE_LEAVE, ld64(machine + _LEAVE))
    st64(values + 8 * VALUE_ZERO, 0)

    # The exits: near ones can be chained, far ones look their pc up.
    set_values(machine, values, last)
    slot0 = block + _B_EXITS
    slot1 = slot0 + _SLOT_SIZE
    memset(slot0, 0, 2 * _SLOT_SIZE)
    st64(slot0, block)
    st64(slot1, block)
    st64(slot0 + _S_PC, ld64(values + 8 * _TARGET))
    st64(slot1 + _S_PC, ld64(values + 8 * _NEXT_PC))
    far0 = 0
    far1 = 0
    if chained != 0:
        if ld64(block + _B_GPA2) != -1 or (ld64(slot0 + _S_PC) ^ pc) & -4096 != 0:
            far0 = 1
        if ld64(block + _B_GPA2) != -1 or (ld64(slot1 + _S_PC) ^ pc) & -4096 != 0:
            far1 = 1
    used0 = ld16(tail + _T_EXITS)
    used1 = ld16(tail + _T_EXITS + 2)
    direct0 = ld16(tail + _T_DIRECT) & (far0 ^ 1)
    direct1 = ld16(tail + _T_DIRECT + 2) & (far1 ^ 1)

    # Hot parts; `after` is where the last instruction falls to.
    start = (ld64(machine + _CODE_TOP) + BLOCK_LINK + 15) & -16
    st64(start - BLOCK_LINK + delta, block)
    head = ld64(machine + _BLOCK_HEAD)
    head_size = ld32(head + _T_HOT_SIZE)
    copy_code(start + delta, ld64(machine + _STENCIL_BYTES) + ld64(head + _T_BYTES), head_size)
    after = lay_hot(machine, first, count, start + head_size, direct0, direct1)
    at = after

    # Each slot's patchable field, and where the stencil's EXIT relocations lead (0: to the stub).
    place0 = 0
    place1 = 0
    exit0 = 0
    exit1 = 0
    if direct1 != 0:
        place1 = ld64(last + _I_CODE) + ld16(tail + _T_DIRECT_AT + 2)
    elif ends == 0 and far1 != 0:
        at = place_stub(machine, values, slot1, 1, at)
        exit1 = ld64(slot1 + _S_STUB)
        used1 = 0
    elif ends == 0 or (used1 != 0 and far1 == 0):
        place1 = place_jump(machine, at)
        exit1 = place1 - JUMP_FIELD
        at = exit1 + JUMP_SIZE
        used1 = 1
    if direct0 != 0:
        place0 = ld64(last + _I_CODE) + ld16(tail + _T_DIRECT_AT)
    elif used0 != 0 and far0 == 0:
        place0 = place_jump(machine, at)
        exit0 = place0 - JUMP_FIELD
        at = exit0 + JUMP_SIZE

    # Cold parts and stubs.
    head_cold = at
    size = ld32(head + _T_COLD_SIZE)
    copy_code(at + delta, ld64(machine + _STENCIL_BYTES) + ld64(head + _T_BYTES) + head_size, size)
    at = lay_cold(machine, first, count, at + size)
    if used0 != 0:
        at = place_stub(machine, values, slot0, far0, at)
    if used1 != 0:
        at = place_stub(machine, values, slot1, far1, at)
    if exit0 == 0:
        exit0 = ld64(slot0 + _S_STUB)
    if exit1 == 0:
        exit1 = ld64(slot1 + _S_STUB)
    if place0 != 0:
        st32(place0 + delta, ld64(slot0 + _S_STUB) - place0 - 4)
    if place1 != 0:
        st32(place1 + delta, ld64(slot1 + _S_STUB) - place1 - 4)
    if chained != 0:
        st64(slot0 + _S_PLACE, place0)
        st64(slot1 + _S_PLACE, place1)

    # Patch. The head's pc is the block's; EXIT values of direct slots are their stubs.
    if direct0 != 0:
        exit0 = ld64(slot0 + _S_STUB)
    if direct1 != 0:
        exit1 = ld64(slot1 + _S_STUB)
    st64(values + 8 * VALUE_EXIT0, exit0)
    st64(values + 8 * (VALUE_EXIT0 + 1), exit1)
    st64(values + 8 * _PC, pc)
    st64(values + 8 * VALUE_NEXT, ld64(first + _I_CODE))
    patch_stencil(machine, values, head, start, head_cold)
    for i in range(count):
        insn = first + i * _INSN_SIZE
        set_values(machine, values, insn)
        st64(values + 8 * VALUE_NEXT, ld64(insn + _INSN_SIZE + _I_CODE) if i < count - 1 else after)
        patch_stencil(machine, values, ld64(insn + _I_STENCIL), ld64(insn + _I_CODE), ld64(insn + _I_COLD))
    st64(block + _B_CODE, start)
    st32(block + _B_CODE_SIZE, at - start)
    st64(machine + _CODE_TOP, at)


@native
def divert_locked(env: int, slot: int) -> None:
    """The exit at `slot` leads to a block of two pages, which nothing is chained to: let it look its pc up for good."""
    cpu = ld64(env + _ENV_CPU)
    machine = ld64(cpu + _MACHINE)
    stencil = ld64(machine + _FAR_EXIT)
    place = ld64(slot + _S_PLACE)
    at = (ld64(machine + _CODE_TOP) + 15) & -16
    room = ld64(machine + _CODE_END) - at - ld32(stencil + _T_HOT_SIZE) - ld32(stencil + _T_COLD_SIZE) - COPY_STEP
    if place == 0 or ld64(slot + _S_TARGET) != 0 or room < 0:
        return
    values = cpu + _VALUES
    st64(values + 8 * VALUE_LEAVE, ld64(machine + _LEAVE))
    st64(values + 8 * VALUE_ZERO, 0)
    st64(machine + _CODE_TOP, place_stub(machine, values, slot, 1, at))
    st64(slot + _S_PLACE, 0)
    patch_jump(machine, place, at)
