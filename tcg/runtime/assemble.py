"""The block assembler: from guest bytes to host bytes by look-up and copy. The fast half of translation.

    1  walk the pattern trie over the guest bytes until a form ends the block, the page ends, or MAX_INSNS
    2  forward: what sort of status flags comes into each instruction; backward: whether anybody reads what goes out
    3  pick the stencils (one callback compiles all that are missing), sum up their sizes
    4  copy: block head, hot parts end to end, the exit; then out of line the local jumps, cold parts, exit stubs
    5  patch every relocation with the hole values, which come from the pattern and the guest bytes

Runs under tb_lock, outside JIT code. An instruction that goes on into the next page is a block of its own, entered in
both pages' lists. In front of a block's code lies the address of its record (BLOCK_LINK bytes).

Exits: slot 0 is the taken branch (TARGET), slot 1 the next instruction (NEXT_PC). An exit to the block's own page is a
jump that chaining patches; its displacement lies within a cache line. One to another page depends on the address space
and goes through the jump cache (`far_exit`).
"""

from tcg.exec.forms import HoleSlot, RelocKind, StatusOut
from tcg.runtime.blocks import patch_jump, register_locked
from tcg.runtime.hooks import ask
from tcg.runtime.layout import (
    ASSEMBLED_INSN,
    BLOCK,
    CPU,
    ENV,
    EXIT_SLOT,
    FORM,
    FORM_ENDS,
    FORM_FAULTS,
    FORM_KILLS,
    FORM_READS,
    MACHINE,
    PATTERN,
    PATTERN_DISP_PC,
    PATTERN_IMM_PC,
    PATTERN_WRAP,
    RELOC,
    STATS,
    STENCIL,
    TLB_ENTRY,
    TLB_MMIO,
    VALUE_COLD,
    VALUE_EXIT0,
    VALUE_HOT,
    VALUE_LEAVE,
    VALUE_NEXT,
    VALUE_ZERO,
    Callback,
    ExitReason,
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
    least,
    memcpy,
    memset,
    native,
    st8,
    st16,
    st32,
    st64,
)
from tcg.runtime.qht import qht_add_locked
from tcg.runtime.tlb import entry_gpa, page_of, tlb_find

_ENV_CPU = ENV.offset("cpu")
_ENV_MODE = ENV.offset("mode")
_ENV_MMU_INDEX = ENV.offset("mmu_index")
_ENV_EXCEPTION = ENV.offset("exception")
_ENV_EXIT_REASON = ENV.offset("exit_reason")
_MACHINE = CPU.offset("machine")
_VALUES = CPU.offset("values")
_INSNS = CPU.offset("insns")
_MISSING = CPU.offset("missing")
_FETCH = CPU.offset("fetch")
_FETCH_BYTES = 32
_STATS = CPU.offset("stats")
_S_BLOCKS = _STATS + STATS.offset("blocks")
_S_INSNS = _STATS + STATS.offset("insns")
_S_GUEST = _STATS + STATS.offset("guest_bytes")
_S_HOST = _STATS + STATS.offset("host_bytes")
_S_PATTERN_MISSES = _STATS + STATS.offset("pattern_misses")
_S_STENCIL_MISSES = _STATS + STATS.offset("stencil_misses")
_CODE_TOP = MACHINE.offset("code_top")
_CODE_END = MACHINE.offset("code_end")
_CODE_DELTA = MACHINE.offset("code_delta")
_BLOCK_TOP = MACHINE.offset("block_top")
_BLOCK_END = MACHINE.offset("block_end")
_FORMS = MACHINE.offset("forms")
_PATTERNS = MACHINE.offset("patterns")
_VARIANTS = MACHINE.offset("variants")
_STENCILS = MACHINE.offset("stencils")
_STENCIL_BYTES = MACHINE.offset("stencil_bytes")
_RELOCS = MACHINE.offset("relocs")
_TRIE = MACHINE.offset("trie")
_ROOTS = MACHINE.offset("roots")
_BLOCK_HEAD = MACHINE.offset("block_head")
_EXIT_STUB = MACHINE.offset("exit_stub")
_FAR_EXIT = MACHINE.offset("far_exit")
_LEAVE = MACHINE.offset("leave")
_STEP_MODES = MACHINE.offset("step_modes")

_F_FLAGS = FORM.offset("flags")
_F_STATUS_OUT = FORM.offset("status_out")
_F_VARIANTS = FORM.offset("variants")
_F_STATUSES = FORM.offset("statuses")
_FORM_SIZE = FORM.size
_P_FORM = PATTERN.offset("form")
_P_LENGTH = PATTERN.offset("length")
_P_DISP_AT = PATTERN.offset("disp_at")
_P_DISP_SIZE = PATTERN.offset("disp_size")
_P_IMM_AT = PATTERN.offset("imm_at")
_P_IMM_SIZE = PATTERN.offset("imm_size")
_P_IMM2_AT = PATTERN.offset("imm2_at")
_P_IMM2_SIZE = PATTERN.offset("imm2_size")
_P_FLAGS = PATTERN.offset("flags")
_P_REGS = PATTERN.offset("regs")
_PATTERN_SIZE = PATTERN.size
_T_BYTES = STENCIL.offset("bytes")
_T_HOT_SIZE = STENCIL.offset("hot_size")
_T_COLD_SIZE = STENCIL.offset("cold_size")
_T_RELOCS = STENCIL.offset("relocs")
_T_HOT_RELOCS = STENCIL.offset("hot_relocs")
_T_COLD_RELOCS = STENCIL.offset("cold_relocs")
_T_EXITS = STENCIL.offset("exits")
_T_DIRECT = STENCIL.offset("direct")
_T_DIRECT_AT = STENCIL.offset("direct_at")
_STENCIL_SIZE = STENCIL.size
_R_KIND = RELOC.offset("kind")
_R_VALUE = RELOC.offset("value")
_R_ADDEND = RELOC.offset("addend")
_RELOC_SIZE = RELOC.size
_I_FORM = ASSEMBLED_INSN.offset("form")
_I_BYTES = ASSEMBLED_INSN.offset("bytes")
_I_PC = ASSEMBLED_INSN.offset("pc")
_I_STENCIL = ASSEMBLED_INSN.offset("stencil")
_I_STATUS_IN = ASSEMBLED_INSN.offset("status_in")
_I_STATUS_LIVE = ASSEMBLED_INSN.offset("status_live")
_I_CODE = ASSEMBLED_INSN.offset("code")
_I_COLD = ASSEMBLED_INSN.offset("cold")
_INSN_SIZE = ASSEMBLED_INSN.size
_B_GPA = BLOCK.offset("gpa")
_B_GPA2 = BLOCK.offset("gpa2")
_B_MODE = BLOCK.offset("mode")
_B_SIZE = BLOCK.offset("size")
_B_CODE = BLOCK.offset("code")
_B_CODE_SIZE = BLOCK.offset("code_size")
_B_INSNS = BLOCK.offset("insns")
_B_VALID = BLOCK.offset("valid")
_B_EXITS = BLOCK.offset("exits")
_BLOCK_SIZE = BLOCK.size
_S_PLACE = EXIT_SLOT.offset("place")
_S_STUB = EXIT_SLOT.offset("stub")
_S_TARGET = EXIT_SLOT.offset("target")
_S_PC = EXIT_SLOT.offset("pc")
_SLOT_SIZE = EXIT_SLOT.size
_CODE_TAG = TLB_ENTRY.offset("code")
_ADDEND = TLB_ENTRY.offset("addend")

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
_KEEP = int(StatusOut.KEEP)
_PATTERN_MISS = int(Callback.PATTERN_MISS)
_MMIO_READ = int(Callback.MMIO_READ)
_STENCIL_MISS = int(Callback.STENCIL_MISS)
_HOST_ERROR = int(ExitReason.HOST_ERROR)
_FETCH_ACCESS = 2

BLOCK_LINK = 16
COPY_STEP = 16
LINE = 64  # bytes of a host cache line, within which a patched field lies

# Host encodings (x86-64): a jump with a 32-bit displacement and the padding. A second host adds its own here.
JUMP = 0xE9
JUMP_SIZE = 5
JUMP_FIELD = 1
NOP = 0x90

FULL = -1  # assemble: no room, flush and try again


@native
def host_error(env: int) -> int:
    """Something that must not happen: stop the machine. 0."""
    st32(env + _ENV_EXIT_REASON, _HOST_ERROR)
    st32(env + _ENV_EXCEPTION, 1)
    return 0


# ---- pass 1: patterns


@native
def walk_trie(machine: int, mode: int, code: int, room: int) -> int:
    """hva of the pattern whose head begins at `code`; 0: never seen; -1: `room` bytes were not enough to tell."""
    trie = ld64(machine + _TRIE)
    node = ld32(ld64(machine + _ROOTS) + 4 * mode)
    if node == 0:
        return 0
    for i in range(room):
        node = ld32s(trie + node * 1024 + ld8(code + i) * 4)
        if node <= 0:
            if node == 0:
                return 0
            return ld64(machine + _PATTERNS) - (node + 1) * _PATTERN_SIZE
    return -1


@native
def collect(env: int, pc: int, hva: int, room: int, limit: int) -> int:
    """Fill CPU.insns from pc on, `room` bytes at hva: how many instructions; 0: none fits whole; -1: host error."""
    cpu = ld64(env + _ENV_CPU)
    machine = ld64(cpu + _MACHINE)
    mode = ld32(env + _ENV_MODE)
    count = 0
    insn = cpu + _INSNS
    tries = 0
    while count < limit and room > 0:
        pattern = walk_trie(machine, mode, hva, room)
        if pattern == 0:
            tries += 1
            st64(cpu + _S_PATTERN_MISSES, ld64(cpu + _S_PATTERN_MISSES) + 1)
            answer = ask(env, _PATTERN_MISS, hva, least(room, 512), pc)
            if answer == 0 or tries > 4:
                host_error(env)
                return -1
            if answer == 2:
                return count
            continue
        if pattern == -1:
            return count
        length = ld8(pattern + _P_LENGTH)
        if length > room:
            return count
        tries = 0
        form = ld64(machine + _FORMS) + ld32(pattern + _P_FORM) * _FORM_SIZE
        st64(insn, pattern - ld64(machine + _PATTERNS))
        st64(insn + _I_FORM, form - ld64(machine + _FORMS))
        st64(insn + _I_BYTES, hva)
        st64(insn + _I_PC, pc)
        insn += _INSN_SIZE
        count += 1
        hva += length
        pc += length
        room -= length
        if ld32(form + _F_FLAGS) & FORM_ENDS != 0:
            return count
    return count


# ---- passes 2 and 3: status flags and stencils


@native
def variant_index(machine: int, insn: int) -> int:
    """Where the insn's stencil id is in the variants array."""
    form = ld64(machine + _FORMS) + ld64(insn + _I_FORM)
    index = ld32(form + _F_VARIANTS)
    if ld32(form + _F_STATUSES) > 1:
        index += ld32(insn + _I_STATUS_IN) * 2
    return index + ld32(insn + _I_STATUS_LIVE)


@native
def track_status(machine: int, first: int, count: int) -> None:
    status = 0
    for i in range(count):
        insn = first + i * _INSN_SIZE
        form = ld64(machine + _FORMS) + ld64(insn + _I_FORM)
        st32(insn + _I_STATUS_IN, status)
        out = ld32s(form + _F_STATUS_OUT)
        if out != _KEEP:
            status = out
    live = 1
    for i in range(count):
        insn = first + (count - 1 - i) * _INSN_SIZE
        form = ld64(machine + _FORMS) + ld64(insn + _I_FORM)
        flags = ld32(form + _F_FLAGS)
        st32(insn + _I_STATUS_LIVE, 1 if ld32s(form + _F_STATUS_OUT) == _KEEP else live)
        if flags & FORM_KILLS != 0:
            live = 0
        if flags & (FORM_READS | FORM_FAULTS) != 0:
            live = 1


@native
def choose(env: int, first: int, count: int) -> int:
    """Set every insn's stencil; the bytes they take, or -1: host error."""
    cpu = ld64(env + _ENV_CPU)
    machine = ld64(cpu + _MACHINE)
    for _attempt in range(2):
        missing = 0
        total = 0
        variants = ld64(machine + _VARIANTS)
        stencils = ld64(machine + _STENCILS)
        for i in range(count):
            insn = first + i * _INSN_SIZE
            stencil_id = ld32s(variants + 4 * variant_index(machine, insn))
            if stencil_id < 0:
                at = cpu + _MISSING + 8 * missing
                form = ld64(machine + _FORMS) + ld64(insn + _I_FORM)
                status = ld32(insn + _I_STATUS_IN) if ld32(form + _F_STATUSES) > 1 else 0
                st32(at, ld64(insn + _I_FORM) // _FORM_SIZE)
                st32(at + 4, status * 2 + ld32(insn + _I_STATUS_LIVE))
                missing += 1
            else:
                stencil = stencils + stencil_id * _STENCIL_SIZE
                st64(insn + _I_STENCIL, stencil)
                total += ld32(stencil + _T_HOT_SIZE) + ld32(stencil + _T_COLD_SIZE)
        if missing == 0:
            return total
        st64(cpu + _S_STENCIL_MISSES, ld64(cpu + _S_STENCIL_MISSES) + missing)
        if ask(env, _STENCIL_MISS, cpu + _MISSING, missing, 0) == 0:
            break
    host_error(env)
    return -1


# ---- passes 4 and 5: layout and patching


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


@native
def assemble_locked(env: int, pc: int, limit: int, keep: int) -> int:
    """Translate the block at pc (at most `limit` instructions); its record, FULL, or 0 with env.exception set.

    keep 0: the block is run once: it is in no table and its exits return to the exec loop.
    """
    cpu = ld64(env + _ENV_CPU)
    machine = ld64(cpu + _MACHINE)
    index = ld32(env + _ENV_MMU_INDEX)
    entry = tlb_find(env, pc, _FETCH_ACCESS, index)
    if entry == 0:
        return 0
    gpa = entry_gpa(env, entry, index) | (pc & 4095)
    gpa2 = -1
    hva = pc + ld64(entry + _ADDEND)
    room = 4096 - (pc & 4095)
    if ld64(entry + _CODE_TAG) & TLB_MMIO != 0 or page_of(machine, gpa) == 0:
        keep = 0
    if ld64(entry + _CODE_TAG) & TLB_MMIO != 0:
        # Code outside RAM: read one instruction's worth through the bus, run it alone.
        hva = cpu + _FETCH
        limit = 1
        room = least(room, 16)
        for i in range(room):
            st8(hva + i, ask(env, _MMIO_READ, gpa + i, 1, 0))
    count = collect(env, pc, hva, room, limit)
    if count == 0:
        # The first instruction goes on into the next page (or beyond what the bus gave: then into emptiness).
        fetch = cpu + _FETCH
        if hva != fetch:
            memcpy(fetch, hva, room)
        entry = tlb_find(env, (pc & -4096) + 4096, _FETCH_ACCESS, index)
        if entry == 0:
            return 0
        second = ld64(entry + _ADDEND) + (pc & -4096) + 4096
        gpa2 = entry_gpa(env, entry, index)
        if ld64(entry + _CODE_TAG) & TLB_MMIO != 0:
            keep = 0
            for i in range(_FETCH_BYTES - room):
                st8(fetch + room + i, ask(env, _MMIO_READ, gpa2 + i, 1, 0))
        else:
            memcpy(fetch + room, second, _FETCH_BYTES - room)
        if page_of(machine, gpa2) == 0:
            keep = 0
        count = collect(env, pc, fetch, _FETCH_BYTES, 1)
        if count == 0:
            return host_error(env)
    if count < 0:
        return 0
    first = cpu + _INSNS
    track_status(machine, first, count)
    total = choose(env, first, count)
    if total < 0:
        return 0
    fixed = 3 * LINE + BLOCK_LINK + 16
    for stencil in (ld64(machine + _BLOCK_HEAD), ld64(machine + _EXIT_STUB), ld64(machine + _FAR_EXIT)):
        fixed += 2 * (ld32(stencil + _T_HOT_SIZE) + ld32(stencil + _T_COLD_SIZE))
    block = ld64(machine + _BLOCK_TOP)
    if ld64(machine + _CODE_TOP) + total + fixed > ld64(machine + _CODE_END):
        return FULL
    if block + _BLOCK_SIZE > ld64(machine + _BLOCK_END):
        return FULL
    last = first + (count - 1) * _INSN_SIZE
    memset(block, 0, _BLOCK_SIZE)
    st64(block, pc)
    st64(block + _B_GPA, gpa if keep != 0 else -1)
    st64(block + _B_GPA2, gpa2)
    st32(block + _B_MODE, ld32(env + _ENV_MODE))
    size = ld64(last + _I_PC) - pc + ld8(ld64(machine + _PATTERNS) + ld64(last) + _P_LENGTH)
    st32(block + _B_SIZE, size)
    st32(block + _B_INSNS, count)
    lay(env, block, first, count, keep)
    st64(machine + _BLOCK_TOP, block + _BLOCK_SIZE)
    if keep != 0:
        st32(block + _B_VALID, 1)
        register_locked(machine, block)
        qht_add_locked(machine, block)
    st64(cpu + _S_BLOCKS, ld64(cpu + _S_BLOCKS) + 1)
    st64(cpu + _S_INSNS, ld64(cpu + _S_INSNS) + count)
    st64(cpu + _S_GUEST, ld64(cpu + _S_GUEST) + size)
    st64(cpu + _S_HOST, ld64(cpu + _S_HOST) + ld32(block + _B_CODE_SIZE))
    return block
