"""The worker process of hot blocks: jobs on standard input, answers on standard output (see tcg.exec.hot).

python -m tcg.cli.hot_worker FEATURE,FEATURE,...
"""

import sys

from backends.llvm.stencils import StencilCompiler
from frontends.x86.frontend import X86Frontend
from frontends.x86.region import decode_block, emit_block
from tcg.exec.hot import Answer, Job, receive, send
from tcg.opt.pipeline import optimize


def work(frontend: X86Frontend, compiler: StencilCompiler, job: Job) -> Answer:
    """Compile one block; an encoding that this frontend does not know, or code LLVM refuses, gives no stencil."""
    try:
        insns = decode_block(frontend, job.code, job.pc, job.mode, job.count)
        block = optimize(emit_block(frontend, job.code, job.pc, job.mode, job.count))
        (stencil,) = compiler.compile([(f"block {job.pc:#x}", block)])
    except Exception as error:  # a block that cannot be compiled goes on as it is
        print(f"{job.pc:#x}: {error!r}", file=sys.stderr)
        return Answer(job.record, None, 0, None)
    last, pattern = insns[-1]
    return Answer(job.record, stencil, last - job.pc, pattern.form)


def main() -> None:
    features = frozenset(filter(None, sys.argv[1].split(","))) if len(sys.argv) > 1 else None
    frontend, compiler = X86Frontend(features), StencilCompiler(whole_blocks=True)
    stdin, stdout = sys.stdin.buffer, sys.stdout.buffer
    while True:
        try:
            job = receive(stdin)
        except EOFError:
            return
        send(stdout, work(frontend, compiler, job))


if __name__ == "__main__":
    main()
