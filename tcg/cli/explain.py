"""`tessera explain "add rax, [rbx+8]"`: one guest instruction's way through every stage.

Guest bytes (keystone, or hexadecimal given directly), form and pattern (capstone and the frontend), IR, optimized IR,
stencil (LLVM) with its holes, disassembled. `--status-in`, `--dead` choose the variant.
"""

import argparse
from collections.abc import Sequence

import capstone

from tcg.exec.forms import Form, Pattern, Reloc, Stencil, SymbolKind, Variant
from tcg.ir.block import Block
from tcg.ir.builder import Builder
from tcg.ir.text import show


def assemble(text: str, bits: int) -> bytes:
    """Machine code of one instruction in Intel syntax, or of hexadecimal bytes; ValueError says what is wrong."""
    try:
        return bytes.fromhex(text)
    except ValueError:
        pass
    import keystone

    ks = keystone.Ks(keystone.KS_ARCH_X86, keystone.KS_MODE_64 if bits == 64 else keystone.KS_MODE_32)
    try:
        code, _count = ks.asm(text)
    except keystone.KsError as error:
        raise ValueError(f"'{text}': {error}") from None
    if not code:
        raise ValueError(f"'{text}': keystone gives no code for it")
    return bytes(code)


def explain_command(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="tessera explain", description=__doc__.splitlines()[0])
    parser.add_argument(
        "instruction", help='Intel syntax or hexadecimal bytes, such as "add rax, [rbx+8]" or "48 03 43 08"'
    )
    parser.add_argument("--bits", type=int, choices=(32, 64), default=64, help="code size (default 64)")
    parser.add_argument("--dead", action="store_true", help="the variant whose flags nobody reads")
    parser.add_argument("--status-in", type=int, default=0, metavar="N", help="the known CcOp of the incoming flags")
    parser.add_argument("--parallel", action="store_true", help="several vCPUs: host atomics, barriers")
    options = parser.parse_args(list(arguments))
    try:
        code = assemble(options.instruction, options.bits)
    except ValueError as error:
        parser.error(str(error))
    print(
        "\n".join(explain(code, options.bits, Variant(not options.dead, options.status_in), parallel=options.parallel))
    )
    return 0


def explain(code: bytes, bits: int, variant: Variant, *, parallel: bool = False) -> list[str]:
    """The lines that `tessera explain` prints."""
    from backends.llvm.stencils import StencilCompiler
    from frontends.x86.frontend import X86Frontend
    from frontends.x86.state import Mode
    from tcg.opt.pipeline import optimize

    mode = (
        Mode.PROTECTED
        | (Mode.CODE64 if bits == 64 else Mode.CODE32 | Mode.STACK32)
        | (Mode.PARALLEL if parallel else 0)
    )
    frontend = X86Frontend()
    pattern = frontend.decode(code.ljust(15, b"\x90"), 0x1000, int(mode))
    texts = [text for _, _, text in frontend.decoder.disassemble(code, 0x1000, int(mode))]
    lines = ["guest", f"  {code[: pattern.length].hex(' ')}    {texts[0] if texts else '(undefined)'}"]
    lines += _form_lines(pattern.form) + _pattern_lines(pattern)
    builder = Builder()
    frontend.emit(pattern.form, variant, builder)
    lines += ["IR", *_indent(show(builder.block))]
    block: Block = optimize(builder.block)
    lines += ["optimized", *_indent(show(block))]
    (stencil,) = StencilCompiler(parallel=parallel).compile([(pattern.form.name, block)])
    return lines + _stencil_lines(stencil)


def _indent(text: str) -> list[str]:
    return ["  " + line for line in text.splitlines()]


def _form_lines(form: Form) -> list[str]:
    traits = [
        name
        for name in ("reads_status", "kills_status", "ends_block", "may_fault")
        if getattr(form, name)
    ]  # fmt: skip
    return ["form", f"  {form.name}", f"  {', '.join(traits) or 'no traits'}; status_out {form.status_out}"]


def _pattern_lines(pattern: Pattern) -> list[str]:
    lines = ["pattern", f"  head {pattern.head.hex(' ')}, {pattern.length} bytes in all"]
    for name in ("disp", "imm", "imm2"):
        offset, size = getattr(pattern, name)
        if size:
            lines.append(f"  {name}: {size} bytes at {offset}")
    if pattern.regs:
        lines.append("  registers at env + " + ", ".join(f"{r:#x}" for r in pattern.regs))
    return lines


def _stencil_lines(stencil: Stencil) -> list[str]:
    handle = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
    cold_size = len(stencil.code) - stencil.hot_size
    lines = [f"stencil: {stencil.hot_size} bytes in line, {cold_size} out of line, {len(stencil.relocs)} holes"]
    relocs = {r.offset: r for r in stencil.relocs}
    for title, low, high in (("in line", 0, stencil.hot_size), ("out of line", stencil.hot_size, len(stencil.code))):
        if low == high:
            continue
        lines.append(f"  {title}")
        for insn in handle.disasm(stencil.code[low:high], low):
            notes = [_reloc_note(relocs[at]) for at in range(insn.address, insn.address + insn.size) if at in relocs]
            line = f"    {insn.address:04x}  {bytes(insn.bytes).hex(' '):<30} {insn.mnemonic} {insn.op_str}".rstrip()
            lines.append(line + (f"    ; {', '.join(notes)}" if notes else ""))
    return lines


def _reloc_note(reloc: Reloc) -> str:
    from tcg.exec.forms import HoleSlot

    match reloc.symbol:
        case SymbolKind.HOLE:
            name = HoleSlot(reloc.index).name.lower()
        case SymbolKind.HELPER:
            name = reloc.name
        case SymbolKind.EXIT:
            name = f"exit{reloc.index}"
        case _:
            name = reloc.symbol.name.lower()
    return f"{reloc.kind.name} {name}" + (f"{reloc.addend:+d}" if reloc.addend else "")
