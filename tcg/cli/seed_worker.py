"""The worker process of a first boot: compiles its share of the seed list (see tcg.exec.seeds) to standard output.

python -m tcg.cli.seed_worker NUMBER COUNT FEATURE,FEATURE,...
"""

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import frontends.x86
from backends.llvm.stencils import StencilCompiler
from frontends.x86.frontend import X86Frontend
from tcg.exec.forms import Form, Stencil, Truncated, Variant
from tcg.exec.hot import send
from tcg.exec.seeds import BATCH, Made, Seed, parse, shares
from tcg.ir.block import Block
from tcg.ir.builder import Builder
from tcg.opt.pipeline import optimize

SEEDS = Path(frontends.x86.__file__).with_name("seeds.txt")
Todo = list[tuple[Form, Variant]]


def decode(frontend: X86Frontend, seeds: list[Seed]) -> list[tuple[Form, list[Variant]]]:
    """The forms of the seeds that still decode, with the variants wanted."""
    found: dict[Form, list[Variant]] = {}
    for seed in seeds:
        with contextlib.suppress(Truncated, ValueError):
            form = frontend.decode(seed.code, 0, seed.mode).form
            found.setdefault(form, []).extend(v for v in seed.variants if form.reads_status or v.status_in == 0)
    return list(found.items())


def batches(todo: Todo) -> Iterator[Todo]:
    """Small ones first: the guest is waiting."""
    at, size = 0, 12
    while at < len(todo):
        yield todo[at : at + size]
        at, size = at + size, min(BATCH, size + 12)


def emit(frontend: X86Frontend, form: Form, variant: Variant) -> Block:
    builder = Builder()
    frontend.emit(form, variant, builder)
    return optimize(builder.block)


def compile_batch(frontend: X86Frontend, compiler: StencilCompiler, batch: Todo) -> list[Stencil | None]:
    """A stencil each; None for one that cannot be compiled (the guest's own process will report it if it needs it)."""
    with contextlib.suppress(Exception):
        return list(compiler.compile([(form.name, emit(frontend, form, variant)) for form, variant in batch]))
    if len(batch) == 1:
        return [None]
    return [stencil for one in batch for stencil in compile_batch(frontend, compiler, [one])]


def main() -> None:
    os.nice(5)  # the guest's own thread goes first
    number, count = int(sys.argv[1]), int(sys.argv[2])
    frontend = X86Frontend(frozenset(filter(None, sys.argv[3].split(","))))
    stdout = sys.stdout.buffer
    forms = decode(frontend, shares(parse(SEEDS.read_text()), count)[number])
    send(stdout, forms)
    compiler = StencilCompiler()
    todo = [(form, variant) for form, variants in forms for variant in variants]
    for batch in batches(todo):
        made: Made = []
        for (form, variant), stencil in zip(batch, compile_batch(frontend, compiler, batch), strict=True):
            if stencil is not None:
                made.append((form, [(variant, stencil)]))
        send(stdout, made)


if __name__ == "__main__":
    main()
