"""`--stats` and `info jit`: what the translator did and where the time went."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tcg.runtime.layout import CPU, STATS, STATS_NAMES, ExitReason
from tcg.runtime.struct import View

if TYPE_CHECKING:
    from tcg.cli.engine import Engine


def counters(engine: Engine) -> dict[str, int]:
    """Every counter of the vCPU's STATS struct by name."""
    view = View(STATS, engine.vcpu.cpu.address + CPU.offset("stats"))
    return {name: view.get(name) for name in STATS_NAMES} | {
        f"exit_{reason.name.lower()}": view.get("exits", reason) for reason in ExitReason
    }


def report(engine: Engine) -> str:
    """The table that the user sees."""
    c = counters(engine)
    machine, tables = engine.machine, engine.machine.tables
    view = machine.view
    used, size = view.get("code_top") - view.get("code_start"), view.get("code_end") - view.get("code_start")
    hz = engine.rate.hz()
    blocks = max(c["blocks"], 1)
    exits = c["exit_chain"] + c["exit_lookup"]
    lines = [
        "Translation buffer state:",
        f"gen code size       {used}/{size}",
        f"TB count            {c['blocks']}",
        f"TB avg target size  {c['guest_bytes'] // blocks} ({c['insns'] / blocks:.1f} instructions)",
        f"TB avg host size    {c['host_bytes'] // blocks} bytes (expansion ratio: "
        f"{c['host_bytes'] / max(c['guest_bytes'], 1):.1f})",
        f"TB flush count      {c['flushes']}",
        f"TB invalidate count {c['invalidations']}",
        f"TLB misses          {c['tlb_misses']} (victim hits {c['victim_hits']}, walks {c['walks']})",
        f"TLB flushes         {c['tlb_flushes']} full, {c['tlb_page_flushes']} page; resizes {c['tlb_resizes']}",
        f"slow accesses       {c['slow_loads']} loads, {c['slow_stores']} stores, {c['page_crossings']} page crossings",
        f"stores near code    {c['code_stores']} (reflows {c['reflows']})",
        f"MMIO accesses       {c['mmio']}; callbacks into Python {c['callbacks']}",
        f"patterns            {tables.pattern_count()}, forms {tables.form_count()}, stencils {tables.stencil_count()} "
        f"(misses: {c['pattern_misses']} patterns, {c['stencil_misses']} stencils)",
        f"look-ups            {c['lookups']}: jump cache {c['jc_hits']}, QHT {c['qht_hits']}",
        f"exits               {exits}, of them {c['chained']} chained; "
        + ", ".join(
            f"{r.name.lower()} {c[f'exit_{r.name.lower()}']}" for r in ExitReason if c[f"exit_{r.name.lower()}"]
        ),
        f"hot blocks          {c['hot_blocks']} compiled whole and installed ({c['samples']} samples)",
        f"exceptions          {c['deliveries']} delivered, interrupts {c['interrupts']}",
        "Time by stage (s):",
    ]
    execution = c["exec_cycles"] / hz
    callbacks = c["callback_cycles"] / hz
    assemble = c["assemble_cycles"] / hz
    stages = [("run (JIT code and helpers)", execution), ("assemble and install", assemble), ("callbacks", callbacks)]
    translator = engine.translator_if_used
    if translator is not None:
        stages += translator.times.seconds.items()
    lines += [f"  {name:<28}{seconds:9.3f}" for name, seconds in stages]
    unknown = (
        translator.frontend.undefined if translator is not None and hasattr(translator.frontend, "undefined") else {}
    )
    if unknown:
        lines.append(
            "Undefined encodings met: " + ", ".join(f"{text} ({n})" for text, n in sorted(unknown.items())[:20])
        )
    return "\n".join(lines)
