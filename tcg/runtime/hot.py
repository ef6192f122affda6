"""Hot blocks: which blocks a sampler found running, and the exchange of one for a better compiled one.

A sampler sets env.exit_request without any request bit; the vCPU leaves at the next block head, and the exec loop notes
the block it is about to enter again in a ring (CPU.samples). `hot_install` lays a stencil of the whole block and puts a
new Block record in the old one's place, under tb_lock, from any thread: the vCPU may be running the old code, whose
bytes stay until the next flush.
"""

from tcg.runtime.blocks import invalidate_locked, register_locked
from tcg.runtime.layout import ASSEMBLED_INSN, BLOCK, CPU, ENV, MACHINE, SAMPLE_RING, STATS, STENCIL
from tcg.runtime.lock import tb_lock, tb_unlock
from tcg.runtime.memory import exported, ld32, ld64, memset, native, st32, st64, store64_release, xchg32
from tcg.runtime.place import BLOCK_LINK, lay
from tcg.runtime.qht import qht_add_locked

_EXIT_REQUEST = ENV.offset("exit_request")
_ENV_CPU = ENV.offset("cpu")
_MACHINE = CPU.offset("machine")
_INSNS = CPU.offset("insns")
_SAMPLES = CPU.offset("samples")
_SAMPLE_COUNT = CPU.offset("sample_count")
_IN_BLOCK = CPU.offset("in_block")
_HOT_BLOCKS = CPU.offset("stats") + STATS.offset("hot_blocks")
_STAT_SAMPLES = CPU.offset("stats") + STATS.offset("samples")
_GENERATION = MACHINE.offset("generation")
_STENCILS = MACHINE.offset("stencils")
_CODE_TOP = MACHINE.offset("code_top")
_CODE_END = MACHINE.offset("code_end")
_BLOCK_TOP = MACHINE.offset("block_top")
_BLOCK_END = MACHINE.offset("block_end")
_B_PC = BLOCK.offset("pc")
_B_GPA = BLOCK.offset("gpa")
_B_GPA2 = BLOCK.offset("gpa2")
_B_MODE = BLOCK.offset("mode")
_B_SIZE = BLOCK.offset("size")
_B_INSNS = BLOCK.offset("insns")
_B_VALID = BLOCK.offset("valid")
_B_HOT = BLOCK.offset("hot")
_BLOCK_SIZE = BLOCK.size
_I_PATTERN = ASSEMBLED_INSN.offset("pattern")
_I_FORM = ASSEMBLED_INSN.offset("form")
_I_BYTES = ASSEMBLED_INSN.offset("bytes")
_I_PC = ASSEMBLED_INSN.offset("pc")
_I_STENCIL = ASSEMBLED_INSN.offset("stencil")
_T_HOT_SIZE = STENCIL.offset("hot_size")
_T_COLD_SIZE = STENCIL.offset("cold_size")
_STENCIL_SIZE = STENCIL.size
_MARGIN = 1024


@exported
def hot_request(env: int) -> int:
    """Ask the vCPU for a sample; 0 (and nothing asked) while it is not in JIT code."""
    if ld32(ld64(env + _ENV_CPU) + _IN_BLOCK) == 0:
        return 0
    xchg32(env + _EXIT_REQUEST, 1)
    return 1


@native
def hot_note(cpu: int, block: int) -> None:
    """Enter a block into the ring; the vCPU's own thread."""
    n = ld64(cpu + _SAMPLE_COUNT)
    st64(cpu + _SAMPLES + 8 * (n & (SAMPLE_RING - 1)), block)
    store64_release(cpu + _SAMPLE_COUNT, n + 1)
    st64(cpu + _STAT_SAMPLES, n + 1)


@exported
def hot_install(env: int, old: int, generation: int, stencil: int, last: int, hva: int, pattern: int, form: int) -> int:
    """Replace `old` by a block made of stencil number `stencil`; 1, or 0 when the old one is not valid any more.

    last: offset of the last instruction's bytes in the block, at hva; pattern, form: where its records are in their
    tables.
    """
    cpu = ld64(env + _ENV_CPU)
    machine = ld64(cpu + _MACHINE)
    tb_lock(machine)
    done = 0
    if ld32(machine + _GENERATION) == generation and ld32(old + _B_VALID) != 0 and ld64(old + _B_GPA2) == -1:
        record = ld64(machine + _STENCILS) + stencil * _STENCIL_SIZE
        room = ld64(machine + _CODE_END) - ld64(machine + _CODE_TOP)
        block = ld64(machine + _BLOCK_TOP)
        need = ld32(record + _T_HOT_SIZE) + ld32(record + _T_COLD_SIZE) + BLOCK_LINK + _MARGIN
        if need < room and block + _BLOCK_SIZE <= ld64(machine + _BLOCK_END):
            memset(block, 0, _BLOCK_SIZE)
            pc = ld64(old + _B_PC)
            st64(block + _B_PC, pc)
            st64(block + _B_GPA, ld64(old + _B_GPA))
            st64(block + _B_GPA2, -1)
            st32(block + _B_MODE, ld32(old + _B_MODE))
            st32(block + _B_SIZE, ld32(old + _B_SIZE))
            st32(block + _B_INSNS, ld32(old + _B_INSNS))
            insn = cpu + _INSNS
            st64(insn + _I_PATTERN, pattern)
            st64(insn + _I_FORM, form)
            st64(insn + _I_BYTES, hva)
            st64(insn + _I_PC, pc + last)
            st64(insn + _I_STENCIL, record)
            st32(block + _B_HOT, 1)
            lay(env, block, insn, 1, 1)
            st64(machine + _BLOCK_TOP, block + _BLOCK_SIZE)
            invalidate_locked(machine, old)
            st32(block + _B_VALID, 1)
            register_locked(machine, block)
            qht_add_locked(machine, block)
            st64(cpu + _HOT_BLOCKS, ld64(cpu + _HOT_BLOCKS) + 1)
            done = 1
    tb_unlock(machine)
    return done
