"""The commands: `tessera run|cache|explain|version` and `tessera-system-x86_64`, QEMU's own spelling of `tessera run`.

Heavy imports (LLVM, capstone) happen in the subcommand that needs them: a warm start is mostly this file.
"""

import os
import sys
from collections.abc import Callable, Sequence

from tcg.cli.options import LOG_ITEMS, OptionError, help_text, parse

VERSION = "0.1.0"
_USAGE = """usage: tessera COMMAND [options]

  run [options]           run a guest; options as qemu-system-x86_64's ('tessera run -h' lists them)
  cache info|clear|warm   the caches on disk: run-time object, patterns, stencils
  explain "INSN"          one instruction's way through every stage, e.g. tessera explain "add rax, [rbx+8]"
  bench [options]         ours beside qemu-system-x86_64 ('tessera bench -h')
  version                 print the version
"""


def _fail(message: str) -> int:
    print(f"tessera: {message}", file=sys.stderr)
    return 1


def run(arguments: Sequence[str], program: str = "tessera run") -> int:
    """Run a guest; the exit status is QEMU's (0 after a shutdown, (v << 1) | 1 by isa-debug-exit, 1 for an error)."""
    try:
        config = parse(arguments)
    except OptionError as error:
        return _fail(str(error))
    match config:
        case "help":
            print(help_text(program))
            return 0
        case "version":
            print(f"Tessera emulator version {VERSION}")
            return 0
        case "log-help":
            print("Log items (comma separated):")
            for name, text in LOG_ITEMS.items():
                print(f"{name:<15} {text}")
            return 0
        case "cpu-help":
            from frontends.x86.cpuid import MODELS

            print("Available CPUs:")
            for model in sorted(MODELS):
                print(f"x86 {model}")
            return 0
        case "machine-help":
            print("Supported machines are:\nq35                  Standard PC (Q35 + ICH9, 2009) (default)")
            return 0
        case str():
            raise AssertionError(config)
    from tcg.cli.system import run_system

    return run_system(config)


def _cache(arguments: Sequence[str]) -> int:
    from tcg.cli.cache import cache_command

    return cache_command(arguments)


def _explain(arguments: Sequence[str]) -> int:
    from tcg.cli.explain import explain_command

    return explain_command(arguments)


def _bench(arguments: Sequence[str]) -> int:
    import runpy

    sys.argv = ["tessera bench", *arguments]
    runpy.run_path("benchmarks/run.py", run_name="__main__")
    return 0


_COMMANDS: dict[str, Callable[[Sequence[str]], int]] = {
    "run": run,
    "cache": _cache,
    "explain": _explain,
    "bench": _bench,
}


def main() -> None:
    """Entry point of `tessera`."""
    words = sys.argv[1:]
    if not words or words[0] in ("-h", "--help", "help"):
        print(_USAGE, end="")
        sys.exit(0 if words else 2)
    if words[0] in ("version", "--version", "-version"):
        print(f"Tessera emulator version {VERSION}")
        sys.exit(0)
    command = _COMMANDS.get(words[0])
    if command is None:
        sys.exit(_fail(f"no such command '{words[0]}'; the commands are {', '.join(_COMMANDS)}, version"))
    try:
        status = command(words[1:])
        sys.stdout.flush()
    except BrokenPipeError:  # the reader has seen enough (`| head`)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 0
    sys.exit(status)


def main_system_x86_64() -> None:
    """Entry point of `tessera-system-x86_64`."""
    sys.exit(run(sys.argv[1:], "tessera-system-x86_64"))
