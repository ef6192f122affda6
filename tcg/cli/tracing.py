"""`-d`: what is logged when. Made only where log items are set; without it native code makes none of these callbacks.

Native code calls back for a new block (in_asm, op, op_opt, out_asm), before it enters one (exec, cpu) and at each
exception and interrupt (int): see tcg.runtime.layout.Trace. All of it runs on the vCPU's thread, outside JIT code or in
a helper, so that env is the guest's state. `exec` and `cpu` see a chained block only at its first entry; `nochain`
shows every one, as in QEMU.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import capstone

from frontends.x86.state import Mode, Seg
from tcg.cli.disassemble import disassemble
from tcg.cli.options import OptionError
from tcg.cli.stats import unimplemented
from tcg.cli.x86_dump import dump
from tcg.exec.forms import Form, Variant
from tcg.exec.log import Line, Log
from tcg.ir.builder import Builder
from tcg.ir.text import show
from tcg.runtime.layout import ASSEMBLED_INSN, BLOCK, CPU, FORM, PATTERN, STENCIL, Callback, Trace
from tcg.runtime.struct import View

if TYPE_CHECKING:
    from tcg.cli.engine import Engine
    from tcg.cli.options import RunConfig

_SOFT, _BENIGN, _AGAIN = 1, 16, 32  # frontends.x86.helpers.exceptions.EVENT_*
_PF, _NMI = 14, 2
_M64 = (1 << 64) - 1
_UNDEFINED = "(undefined)"


@dataclass(frozen=True, slots=True)
class Insn:
    """One instruction of a block as it was assembled: guest side, form and variant, host addresses and sizes."""

    pc: int
    code: bytes
    form_id: int
    variant: Variant
    hot: int
    hot_size: int
    cold: int
    cold_size: int


class Tracing:
    """See the module. A log file that cannot be written is an OptionError."""

    def __init__(self, engine: Engine, config: RunConfig) -> None:
        self._engine = engine
        self._vcpu = engine.vcpu
        try:
            self.log = Log(config.log_items, config.log_file, config.dfilter)
        except OSError as error:
            raise OptionError(f"-D {config.log_file}: {error.strerror}") from None
        self._host = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
        self._host.syntax = capstone.CS_OPT_SYNTAX_ATT
        self._guests: dict[int, capstone.Cs] = {}
        self._ir: dict[tuple[int, Variant], tuple[str, str]] = {}
        self._events = 0
        self._last_vector = 0
        self._unimplemented = 0
        items = config.log_items
        bits = 0
        if items & {"in_asm", "op", "op_opt", "out_asm", "unimp"}:
            bits |= Trace.BLOCKS
        if items & {"exec", "cpu"}:
            bits |= Trace.ENTRIES
        if "nochain" in items:
            bits |= Trace.UNCHAINED
        if items & {"int", "in_asm", "unimp"}:
            bits |= Trace.EVENTS
        engine.vcpu.handlers.update(
            {
                Callback.TRACE_BLOCK: self._block,
                Callback.TRACE_ENTRY: self._entry,
                Callback.TRACE_STOP: self._stopped,
                Callback.TRACE_EVENT: self._event,
            }
        )
        engine.vcpu.cpu.set("trace", bits)
        engine.log.listener = self._device

    def close(self) -> None:
        self.log.close()

    # --- devices

    def _device(self, kind: str, text: str) -> None:
        if kind in self.log.items:
            self.log.write(f"{text}\n")

    # --- translation

    def _block(self, hva: int, _b: int, _c: int) -> int:
        block = View(BLOCK, hva)
        pc = block.get("pc")
        if not self.log.in_range(pc):
            return 0
        insns = list(self._insns(block.get("insns")))
        mode = block.get("mode")
        if "in_asm" in self.log.items:
            self.log.in_asm(line for insn in insns for line in self._guest(insn.code, insn.pc, mode))
        if "unimp" in self.log.items:
            self._undefined(insns)
        if self.log.items & {"op", "op_opt"}:
            self._ops(insns)
        if "out_asm" in self.log.items:
            size = block.get("code_size")
            self.log.out_asm(size, self._parts(block.get("code"), size, insns))
        return 0

    def _insns(self, count: int) -> Iterator[Insn]:
        """What the block assembler noted of the block that it has just made."""
        machine, cpu = self._engine.machine.view, self._vcpu.cpu
        for n in range(count):
            note = View(ASSEMBLED_INSN, cpu.address + CPU.offset("insns", n))
            pattern = View(PATTERN, machine.get("patterns") + note.get("pattern"))
            stencil = View(STENCIL, note.get("stencil"))
            yield Insn(
                note.get("pc"),
                ctypes.string_at(note.get("bytes"), pattern.get("length")),
                note.get("form") // FORM.size,
                Variant(bool(note.get("status_live")), note.get("status_in")),
                note.get("code"),
                stencil.get("hot_size"),
                note.get("cold"),
                stencil.get("cold_size"),
            )

    def _guest(self, code: bytes, pc: int, mode: int) -> list[Line]:
        bits = mode & (Mode.CODE64 | Mode.CODE32)
        handle = self._guests.get(bits)
        if handle is None:
            size = capstone.CS_MODE_64 if bits & Mode.CODE64 else capstone.CS_MODE_32 if bits else capstone.CS_MODE_16
            handle = self._guests[bits] = capstone.Cs(capstone.CS_ARCH_X86, size)
            handle.syntax = capstone.CS_OPT_SYNTAX_ATT
        return disassemble(handle, code, pc)

    def _undefined(self, insns: list[Insn]) -> None:
        for insn in insns:
            if self._form(insn).name.startswith(_UNDEFINED):
                self.log.write(f"ILLOPC: {insn.pc:016x}: {insn.code.hex(' ')}\n")

    def _form(self, insn: Insn) -> Form:
        return self._engine.machine.tables.form(insn.form_id)

    def _ops(self, insns: list[Insn]) -> None:
        texts = [(i.pc, i.variant.status_in, *self._ir_of(i)) for i in insns]
        if "op" in self.log.items:
            self.log.ops("OP", ((pc, status, ir) for pc, status, ir, _ in texts))
        if "op_opt" in self.log.items:
            self.log.ops("OP after optimization and liveness analysis", ((pc, s, ir) for pc, s, _, ir in texts))

    def _ir_of(self, insn: Insn) -> tuple[str, str]:
        """The form's IR before and after optimization, in the variant that the assembler has chosen."""
        form = self._form(insn)
        variant = insn.variant if form.reads_status else Variant(insn.variant.status_live)
        known = self._ir.get((insn.form_id, variant))
        if known is None:
            from tcg.opt.pipeline import optimize

            builder = Builder()
            self._engine.translator.frontend.emit(form, variant, builder)
            before = show(builder.block)
            known = self._ir[insn.form_id, variant] = (before, show(optimize(builder.block)))
        return known

    def _parts(self, start: int, size: int, insns: list[Insn]) -> Iterator[tuple[str, list[Line]]]:
        """The block's host code: the head with the first instruction, then each one, then what is out of line."""
        marks = {start: f"guest addr 0x{insns[0].pc:016x} + tb prologue"}
        for insn in insns[1:]:
            if insn.hot_size:
                marks[insn.hot] = f"guest addr 0x{insn.pc:016x}"
        last = insns[-1]
        marks[last.hot + last.hot_size] = "tb slow paths + alignment"
        for insn in insns:
            if insn.cold_size:
                marks.setdefault(insn.cold + insn.cold_size, "tb slow paths + alignment")
                marks[insn.cold] = f"guest addr 0x{insn.pc:016x} (out of line)"
        bounds = [*sorted(marks), start + size]
        for low, high in pairwise(bounds):
            if low < high <= start + size:
                yield marks[low], disassemble(self._host, self._engine.machine.code.read(low, high - low), low)

    # --- execution

    def _entry(self, hva: int, _b: int, _c: int) -> int:
        block = View(BLOCK, hva)
        pc = block.get("pc")
        if self.log.in_range(pc):
            mode = block.get("mode")
            if "exec" in self.log.items:
                cs_base = self._vcpu.env.get("seg_base", Seg.CS) if mode & Mode.SEGMENTED else 0
                self.log.trace(self._vcpu.index, block.get("code"), cs_base, pc, mode)
            if "cpu" in self.log.items:
                self.log.write(dump(self._vcpu, lazy_flags=True, fpu=False) + "\n")
        return 0

    def _stopped(self, hva: int, _b: int, _c: int) -> int:
        """A request was seen at a block's head; the block entered need not be the one, if it was chained to others."""
        block = View(BLOCK, hva)
        pc = self._vcpu.env.get("pc")
        if "exec" in self.log.items and block.get("pc") == pc and self.log.in_range(pc):
            self.log.write(f"Stopped execution of TB chain before {block.get('code'):#x} [{pc:016x}] \n")
        return 0

    def _event(self, vector: int, error: int, event: int) -> int:
        """An exception, an interrupt or INT n is about to be delivered."""
        env = self._vcpu.env
        if "unimp" in self.log.items and env.get("unimplemented") != self._unimplemented:
            self._unimplemented = env.get("unimplemented")
            self.log.write(f"{unimplemented(env.get('unimplemented_what'))} is not implemented\n")
        if event & _BENIGN and vector != _NMI and "in_asm" in self.log.items:
            self.log.write(f"Servicing hardware INT=0x{vector:02x}\n")
        if "int" not in self.log.items:
            return 0
        if not event & (_SOFT | _BENIGN):
            old = self._last_vector if event & _AGAIN else 0xFFFFFFFF
            new = env.get("exception_index") if event & _AGAIN else vector
            self.log.write(f"check_exception old: {old:#x} new {new:#x}\n")
        self._last_vector = vector
        if env.get("mode") & Mode.PROTECTED:
            pc, rsp, rax = env.get("pc"), env.get("regs", 4), env.get("regs", 0)
            last = f"CR2={env.get('cr2'):016x}" if vector == _PF else f"env->regs[R_EAX]={rax:016x}"
            self.log.write(
                f"{self._events:6}: v={vector:02x} e={error & 0xFFFFFFFF:04x} i={event & _SOFT} cpl={env.get('cpl')} "
                f"IP={env.get('seg_selector', Seg.CS):04x}:{pc:016x} "
                f"pc={(env.get('seg_base', Seg.CS) + pc) & _M64:016x} "
                f"SP={env.get('seg_selector', Seg.SS):04x}:{rsp:016x} {last}\n"
                f"{dump(self._vcpu, lazy_flags=True, fpu=False)}\n"
            )
            self._events += 1
        return 0
