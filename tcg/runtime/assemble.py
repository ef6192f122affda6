"""The block assembler: from guest bytes to host bytes by look-up and copy. The fast half of translation.

`match` finds the instructions and their stencils, `place` copies and patches them; here is what a block may cover and
what becomes of it. Runs under tb_lock, outside JIT code. An instruction that goes on into the next page is a block of
its own, entered in both pages' lists.
"""

from tcg.runtime.blocks import register_locked
from tcg.runtime.hooks import ask
from tcg.runtime.layout import (
    ASSEMBLED_INSN,
    BLOCK,
    CPU,
    ENV,
    MACHINE,
    PATTERN,
    STATS,
    STENCIL,
    TLB_ENTRY,
    TLB_MMIO,
    Callback,
)
from tcg.runtime.match import choose, collect, host_error, track_status
from tcg.runtime.memory import ld8, ld32, ld64, least, memcpy, memset, native, rdtsc, st8, st32, st64
from tcg.runtime.place import BLOCK_LINK, LINE, lay
from tcg.runtime.qht import qht_add_locked
from tcg.runtime.tlb import entry_gpa, page_of, tlb_find

_ENV_CPU = ENV.offset("cpu")
_ENV_MODE = ENV.offset("mode")
_ENV_MMU_INDEX = ENV.offset("mmu_index")
_MACHINE = CPU.offset("machine")
_INSNS = CPU.offset("insns")
_FETCH = CPU.offset("fetch")
_FETCH_BYTES = 32
_S_BLOCKS = CPU.offset("stats") + STATS.offset("blocks")
_S_INSTALL = CPU.offset("stats") + STATS.offset("install_cycles")
_S_INSNS = CPU.offset("stats") + STATS.offset("insns")
_S_GUEST = CPU.offset("stats") + STATS.offset("guest_bytes")
_S_HOST = CPU.offset("stats") + STATS.offset("host_bytes")
_CODE_TOP = MACHINE.offset("code_top")
_CODE_END = MACHINE.offset("code_end")
_BLOCK_TOP = MACHINE.offset("block_top")
_BLOCK_END = MACHINE.offset("block_end")
_PATTERNS = MACHINE.offset("patterns")
_BLOCK_HEAD = MACHINE.offset("block_head")
_EXIT_STUB = MACHINE.offset("exit_stub")
_FAR_EXIT = MACHINE.offset("far_exit")
_P_LENGTH = PATTERN.offset("length")
_T_HOT_SIZE = STENCIL.offset("hot_size")
_T_COLD_SIZE = STENCIL.offset("cold_size")
_I_PC = ASSEMBLED_INSN.offset("pc")
_INSN_SIZE = ASSEMBLED_INSN.size
_B_GPA = BLOCK.offset("gpa")
_B_GPA2 = BLOCK.offset("gpa2")
_B_MODE = BLOCK.offset("mode")
_B_SIZE = BLOCK.offset("size")
_B_CODE_SIZE = BLOCK.offset("code_size")
_B_INSNS = BLOCK.offset("insns")
_B_VALID = BLOCK.offset("valid")
_BLOCK_SIZE = BLOCK.size
_CODE_TAG = TLB_ENTRY.offset("code")
_ADDEND = TLB_ENTRY.offset("addend")
_MMIO_READ = int(Callback.MMIO_READ)
_FETCH_ACCESS = 2

FULL = -1  # assemble: no room, flush and try again


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
        begun = rdtsc()
        register_locked(machine, block)
        qht_add_locked(machine, block)
        st64(cpu + _S_INSTALL, ld64(cpu + _S_INSTALL) + rdtsc() - begun)
    st64(cpu + _S_BLOCKS, ld64(cpu + _S_BLOCKS) + 1)
    st64(cpu + _S_INSNS, ld64(cpu + _S_INSNS) + count)
    st64(cpu + _S_GUEST, ld64(cpu + _S_GUEST) + size)
    st64(cpu + _S_HOST, ld64(cpu + _S_HOST) + ld32(block + _B_CODE_SIZE))
    return block
