"""`--stats` and `info jit`: what the translator did and where the time went. See docs/using.md for every line.

Counters come from native code (layout.STATS), from the block records that exist now, and from the translator's clocks.
What JIT code does in line is not counted: a counter there would cost as much as what it counts.
"""

from __future__ import annotations

import ctypes
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tcg.runtime.layout import BLOCK, CPU, EXIT_SLOT, STATS, STATS_NAMES, ExitReason
from tcg.runtime.struct import View

if TYPE_CHECKING:
    from tcg.cli.engine import Engine

_NAMES_SHOWN = 20
_NO_PAGE = (1 << 64) - 1
# frontends.x86.helpers.env.UNIMPLEMENTED_*
_UNIMPLEMENTED = {1: "RDMSR of MSR {:#x}", 2: "WRMSR to MSR {:#x}", 3: "task gate, vector {:#x}"}


@dataclass(frozen=True, slots=True)
class Blocks:
    """What the records of the translated blocks say: valid ones, those of two pages, exits that are chained now."""

    valid: int = 0
    two_pages: int = 0
    one_jump: int = 0
    two_jumps: int = 0
    longest: int = 0


def counters(engine: Engine) -> dict[str, int]:
    """Every counter of the vCPU's STATS struct by name."""
    view = View(STATS, engine.vcpu.cpu.address + CPU.offset("stats"))
    return {name: view.get(name) for name in STATS_NAMES} | {
        f"exit_{reason.name.lower()}": view.get("exits", reason) for reason in ExitReason
    }


def look_at_blocks(engine: Engine) -> Blocks:
    """Count over the records in the arena. A running vCPU may change them meanwhile: the counts are of about now."""
    machine = engine.machine.view
    start, end = machine.get("block_start"), machine.get("block_top")
    words = memoryview(ctypes.string_at(start, end - start)).cast("Q")
    step = BLOCK.size // 8

    def column(offset: int) -> list[int]:
        return words[offset // 8 :: step].tolist() if words else []

    def half(name: str) -> list[int]:
        shift = 8 * (BLOCK.offset(name) & 7)
        return [value >> shift & 0xFFFFFFFF for value in column(BLOCK.offset(name) & ~7)]

    exits = BLOCK.offset("exits") + EXIT_SLOT.offset("target")
    valid, second, sizes = half("valid"), column(BLOCK.offset("gpa2")), half("size")
    jumps = [bool(a) + bool(b) for a, b in zip(column(exits), column(exits + EXIT_SLOT.size), strict=True)]
    alive = [n for n, flag in enumerate(valid) if flag]
    return Blocks(
        valid=len(alive),
        two_pages=sum(second[n] != _NO_PAGE for n in alive),
        one_jump=sum(jumps[n] >= 1 for n in alive),
        two_jumps=sum(jumps[n] == 2 for n in alive),
        longest=max((sizes[n] for n in alive), default=0),
    )


def report(engine: Engine) -> str:
    """The table that the user sees."""
    c = counters(engine)
    lines = [*_translation(engine, c), "", *_execution(c), "", *_times(engine, c), *_lacking(engine)]
    return "\n".join(lines)


def _translation(engine: Engine, c: dict[str, int]) -> Iterator[str]:
    view, tables = engine.machine.view, engine.machine.tables
    used, size = view.get("code_top") - view.get("code_start"), view.get("code_end") - view.get("code_start")
    made, now = max(c["blocks"], 1), look_at_blocks(engine)
    alive = max(now.valid, 1)
    yield "Translation buffer state:"
    yield f"gen code size       {used}/{size}"
    yield f"TB count            {now.valid} ({c['blocks']} translated in all)"
    average, insns = c["guest_bytes"] // made, c["insns"] / made
    yield f"TB avg target size  {average} max={now.longest} bytes ({insns:.1f} instructions)"
    ratio = c["host_bytes"] / max(c["guest_bytes"], 1)
    yield f"TB avg host size    {c['host_bytes'] // made} bytes (expansion ratio: {ratio:.1f})"
    yield f"cross page TB count {now.two_pages} ({100 * now.two_pages // alive}%)"
    yield (
        f"direct jump count   {now.one_jump} ({100 * now.one_jump // alive}%) "
        f"(2 jumps={now.two_jumps} {100 * now.two_jumps // alive}%)"
    )
    yield f"patterns            {tables.pattern_count()}"
    yield f"forms               {tables.form_count()}; {tables.stencil_count()} stencils"
    yield f"not in the caches   {c['pattern_misses']} look-ups of encodings, {c['stencil_misses']} of stencils"
    yield f"hot blocks          {c['hot_blocks']} compiled whole and installed ({c['samples']} samples)"
    yield f"TB flush count      {c['flushes']}"
    yield f"TB invalidate count {c['invalidations']}"


def _execution(c: dict[str, int]) -> Iterator[str]:
    left = sum(c[f"exit_{reason.name.lower()}"] for reason in ExitReason)
    yield "Statistics (what JIT code does in line is not counted: TLB hits, chained jumps, jump cache hits):"
    yield f"TLB misses          {c['tlb_misses']}: {c['victim_hits']} found in the victim TLB, {c['walks']} walks"
    yield f"TLB flushes         {c['tlb_flushes']} full, {c['tlb_page_flushes']} of a page; {c['tlb_resizes']} resizes"
    yield f"slow accesses       {c['slow_loads']} loads, {c['slow_stores']} stores; {c['page_crossings']} cross pages"
    yield f"stores near code    {c['code_stores']}; {c['reflows']} into the running block"
    yield f"MMIO accesses       {c['mmio']}; {c['callbacks']} callbacks into Python"
    yield (
        f"block look-ups      {c['lookups']}: {c['jc_hits']} in the jump cache, {c['qht_hits']} in the hash table; "
        f"{c['chained']} chained thereafter"
    )
    causes = ", ".join(
        f"{reason.name.lower()} {c[f'exit_{reason.name.lower()}']}"
        for reason in ExitReason
        if c[f"exit_{reason.name.lower()}"]
    )
    yield f"exits of JIT code   {left}" + (f": {causes}" if causes else "")
    yield f"exceptions          {c['deliveries']} delivered; {c['interrupts']} interrupts taken"


def _times(engine: Engine, c: dict[str, int]) -> Iterator[str]:
    """Seconds of the vCPU's thread, callbacks into Python apart from the native stage that makes them."""
    hz = engine.rate.hz()
    stages: dict[str, float] = {}
    translator = engine.translator_if_used
    if translator is not None:
        stages |= translator.times.seconds
    stages["assemble"] = (c["assemble_cycles"] - c["install_cycles"]) / hz
    stages["install"] = (c["install_cycles"] + c["chain_cycles"]) / hz
    stages["run"] = c["exec_cycles"] / hz
    stages["devices"] = max(c["callback_cycles"] / hz - engine.translation_seconds, 0.0)
    stages["halted"] = engine.vcpu.halted_seconds
    notes = {
        "install": "page lists, hash table, chaining",
        "run": "JIT code and native helpers",
        "devices": "callbacks into Python other than translation",
    }
    yield "Time by stage (s):"
    for name, seconds in stages.items():
        yield f"  {name:<22}{seconds:9.3f}  {notes.get(name, '')}".rstrip()


def unimplemented(what: int) -> str:
    """The guest's request that env.unimplemented_what tells of."""
    return _UNIMPLEMENTED.get(what >> 32, "request {:#x}").format(what & 0xFFFFFFFF)


def _lacking(engine: Engine) -> Iterator[str]:
    """What the guest asked for in vain."""
    translator = engine.translator_if_used
    undefined = getattr(translator.frontend, "undefined", {}) if translator is not None else {}
    found = (
        ("undefined encodings met", Counter(undefined)),
        ("unimplemented accesses", engine.log.unimplemented),
        ("guest errors", engine.log.guest_errors),
    )
    for title, counts in found:
        if counts:
            shown = ", ".join(f"{name} ({count})" for name, count in counts.most_common(_NAMES_SHOWN))
            rest = len(counts) - _NAMES_SHOWN
            yield f"{title}: {shown}" + (f" and {rest} more" if rest > 0 else "")
    if refused := engine.vcpu.env.get("unimplemented"):
        what = engine.vcpu.env.get("unimplemented_what")
        yield f"answered by #GP as not implemented: {refused}, the last a {unimplemented(what)}"
