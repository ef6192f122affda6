"""Host code of one stencil, laid anew: a hot part that falls through to the next instruction, and a cold part.

LLVM's function is cut into basic blocks. Blocks that call helpers or go back to the exec loop are cold as far as there
is another way from the entry to an exit. What is hot is laid in chains along the fall-through; the chain that goes to
@next comes last and loses that jump, so that blocks of guest instructions lie end to end. Everything else is the cold
part. Jumps are short inside a part and 32 bits where they cross (against COLD or HOT) or leave the stencil. Constants
follow the cold code, at a multiple of 16 from the cold part's beginning.
"""

from dataclasses import dataclass, field

from tcg.exec.forms import Reloc, RelocKind, SymbolKind

Boundary = tuple[int, int, str, str]  # offset, size, mnemonic, operands of a host instruction, as capstone lists them
POOL = "pool"  # name of a COLD fixup that counts from the start of the constants
_MEMORY_HELPERS = ("helper_ld", "helper_st", "helper_atomic_")


@dataclass(frozen=True, slots=True)
class Fixup:
    """A relocation as the object file has it; `offset` counts from the function's start, then the instruction's.

    short: the value fits a signed 32-bit field whatever `kind` says.
    """

    offset: int
    kind: RelocKind
    symbol: SymbolKind
    index: int = 0
    name: str = ""
    addend: int = 0
    short: bool = False

    def moved(self, offset: int, kind: RelocKind) -> "Fixup":
        return Fixup(offset, kind, self.symbol, self.index, self.name, self.addend, self.short)


@dataclass(frozen=True, slots=True)
class Insn:
    """A host instruction that is no direct jump."""

    code: bytes
    fixups: tuple[Fixup, ...] = ()


Target = int | Fixup  # a basic block, by its offset in LLVM's function, or something outside


@dataclass(slots=True, eq=False)
class BasicBlock:
    """Instructions, then: to `target` if condition code `cc` holds (cc < 0: no such jump), else to `end`.

    end is None when the last instruction itself goes away for good (ret, indirect jump).
    """

    at: int
    body: list[Insn] = field(default_factory=list)
    cc: int = -1
    target: Target = 0
    end: Target | None = None

    def leaves_to(self) -> list[Target]:
        ways = [self.target] if self.cc >= 0 else []
        return ways if self.end is None else [*ways, self.end]

    def calls(self) -> list[str]:
        return [f.name for insn in self.body for f in insn.fixups if f.symbol is SymbolKind.HELPER]


def _is(target: Target | None, symbol: SymbolKind) -> bool:
    return isinstance(target, Fixup) and target.symbol is symbol


def basic_blocks(code: bytes, boundaries: list[Boundary], fixups: list[Fixup]) -> dict[int, BasicBlock]:
    """LLVM's function as basic blocks by offset, jumps to mere jumps shortened."""
    leaders = {0}
    for offset, size, mnemonic, operands in boundaries:
        if mnemonic[0] == "j" or mnemonic in ("ret", "ud2"):
            leaders.add(offset + size)
            if operands[:1].isdigit():
                leaders.add(int(operands, 0))
    pending = sorted(fixups, key=lambda f: f.offset, reverse=True)
    blocks: dict[int, BasicBlock] = {}
    block = BasicBlock(0)
    at, falls = 0, False
    for offset, size, mnemonic, operands in boundaries:
        assert offset == at, f"host code not understood at {at:#x}: {code[at : at + 16].hex()}"
        if at in leaders:
            if falls:
                block.end = at
            block = blocks[at] = BasicBlock(at)
        at += size
        mine: list[Fixup] = []
        while pending and pending[-1].offset < at:
            f = pending.pop()
            mine.append(f.moved(f.offset - offset, f.kind))
        falls = mnemonic not in ("jmp", "ret", "ud2")
        direct = mnemonic[0] == "j" and (bool(mine) or operands[:1].isdigit())
        if not direct:
            block.body.append(_shortened(code[offset:at], mine))
            continue
        target: Target = mine[0] if mine else int(operands, 0)
        if mnemonic == "jmp":
            block.end = target
        else:
            opcode = code[offset + 1] if code[offset] == 0x0F else code[offset]
            block.cc, block.target = opcode & 15, target
    assert at == len(code) and not pending, f"host code not understood at {at:#x}: {code[at : at + 16].hex()}"
    for block in blocks.values():
        block.target = _threaded(blocks, block.target) if block.cc >= 0 else 0
        block.end = None if block.end is None else _threaded(blocks, block.end)
    return blocks


def _shortened(code: bytes, fixups: list[Fixup]) -> Insn:
    """`movabs reg, hole` of a hole that fits 32 bits (REX B8+r) as `mov reg, simm32` (REX C7 /0)."""
    if len(code) == 10 and fixups and fixups[0].short and not fixups[0].addend and code[1] & 0xF8 == 0xB8:
        return Insn(bytes((code[0], 0xC7, 0xC0 | code[1] & 7)) + bytes(4), (fixups[0].moved(3, RelocKind.ABS32),))
    return Insn(code, tuple(fixups))


def _threaded(blocks: dict[int, BasicBlock], target: Target) -> Target:
    """Where a jump to `target` ends up, past blocks that only jump on."""
    for _ in range(8):
        block = blocks.get(target) if isinstance(target, int) else None
        if block is None or block.body or block.cc >= 0 or block.end is None:
            break
        target = block.end
    return target


def _reachable(blocks: dict[int, BasicBlock], avoid: set[int]) -> list[int]:
    """Offsets of the blocks that the entry leads to without entering one of `avoid`, depth first."""
    seen: dict[int, None] = {}
    work = [0]
    while work:
        at = work.pop()
        if at in seen or at in avoid:
            continue
        seen[at] = None
        work += [t for t in blocks[at].leaves_to() if isinstance(t, int)]
    return list(seen)


def _hot(blocks: dict[int, BasicBlock]) -> set[int]:
    """The blocks of the usual way through."""
    slow = {b.at for b in blocks.values() if any(name.startswith(_MEMORY_HELPERS) for name in b.calls())}
    rare = slow | {b.at for b in blocks.values() if b.calls() or _is(b.end, SymbolKind.LEAVE)}
    for avoid in (rare, slow):
        found = _reachable(blocks, avoid)
        exits = (b for b in map(blocks.__getitem__, found) if b.end is None or isinstance(b.end, Fixup) or b.cc >= 0)
        if any(b.end is None or any(isinstance(t, Fixup) for t in b.leaves_to()) for b in exits):
            return set(found)
    return set(_reachable(blocks, set()))


def _chains(blocks: dict[int, BasicBlock], chosen: list[int]) -> list[list[BasicBlock]]:
    """`chosen` blocks in chains, each falling from block to block as far as it goes."""
    left = dict.fromkeys(chosen)
    chains: list[list[BasicBlock]] = []
    while left:
        chain: list[BasicBlock] = []
        at: int | None = next(iter(left))
        while at is not None:
            del left[at]
            block = blocks[at]
            chain.append(block)
            ways = [block.end, block.target if block.cc >= 0 else None]
            if _is(block.end, SymbolKind.NEXT):
                ways = [None]  # nothing can follow more cheaply than the next instruction
            at = next((t for t in ways if isinstance(t, int) and t in left), None)
        chains.append(chain)
    return chains


def _order(blocks: dict[int, BasicBlock]) -> tuple[list[BasicBlock], list[BasicBlock]]:
    """(hot, cold) blocks in the order they are laid."""
    hot_set = _hot(blocks)
    everything = _reachable(blocks, set())
    first, *rest = _chains(blocks, [at for at in sorted(everything) if at in hot_set])
    out: list[list[BasicBlock]] = []
    if _falls(first):
        out, rest = rest, []
    else:
        rest.sort(key=_falls)
    hot = first + [b for chain in rest for b in chain]
    cold_set = [at for at in sorted(everything) if at not in hot_set]
    cold = [b for chain in out + _chains(blocks, cold_set) for b in chain]
    return hot, cold


def _falls(chain: list[BasicBlock]) -> bool:
    """Whether the chain's last block can fall through to the next instruction."""
    last = chain[-1]
    return _is(last.end, SymbolKind.NEXT) or (last.cc >= 0 and _is(last.target, SymbolKind.NEXT))


# --- emission ---------------------------------------------------------------------------------------------------------


@dataclass(slots=True, eq=False)
class _Jump:
    cc: int  # -1: always
    target: Target
    long: bool = False

    @property
    def size(self) -> int:
        return 2 if not self.long else 5 if self.cc < 0 else 6

    def opcode(self) -> bytes:
        if self.cc < 0:
            return b"\xe9" if self.long else b"\xeb"
        return bytes((0x0F, 0x80 | self.cc)) if self.long else bytes((0x70 | self.cc,))


_Row = tuple[BasicBlock, list[_Jump]]


def _jumps(block: BasicBlock, following: Target | None) -> list[_Jump]:
    """The jumps at the end of a block that `following` comes after."""
    same = (
        (lambda t: _is(t, SymbolKind.NEXT)) if _is(following, SymbolKind.NEXT) else (lambda t: t == following)
    )  # one jump to @next is like another
    jumps: list[_Jump] = []
    if block.cc >= 0:
        assert block.end is not None
        if following is not None and same(block.target) and not same(block.end):
            return [_Jump(block.cc ^ 1, block.end)]
        jumps.append(_Jump(block.cc, block.target))
    if block.end is not None and not (following is not None and same(block.end)):
        jumps.append(_Jump(-1, block.end))
    return jumps


_NEXT = Fixup(0, RelocKind.REL32, SymbolKind.NEXT, addend=-4)


def _rows(part: list[BasicBlock], at_end: Target | None) -> list[_Row]:
    follow: list[Target | None] = [*(b.at for b in part[1:]), at_end]
    return [(b, _jumps(b, f)) for b, f in zip(part, follow, strict=False)]


def _measure(rows: list[_Row], places: dict[int, int]) -> bool:
    """Give every block its place in its part and lengthen jumps that do not reach; True when one was."""
    at = 0
    ends: list[tuple[_Jump, int]] = []
    for block, jumps in rows:
        places[block.at] = at
        at += sum(len(insn.code) for insn in block.body)
        for jump in jumps:
            at += jump.size
            ends.append((jump, at))
    changed = False
    for jump, end in ends:
        if not jump.long and isinstance(jump.target, int) and not -128 <= places[jump.target] - end <= 127:
            jump.long = changed = True
    return changed


def split(blocks: dict[int, BasicBlock], constants: bytes) -> tuple[bytes, int, tuple[Reloc, ...]]:
    """(code, hot size, relocations) of a stencil. `constants`: see POOL."""
    hot, cold = _order(blocks)
    parts = (_rows(hot, _NEXT), _rows(cold, None))
    hot_set = {b.at for b in hot}
    for rows, inside in zip(parts, (True, False), strict=True):
        for _, jumps in rows:
            for jump in jumps:
                jump.long = isinstance(jump.target, Fixup) or (jump.target in hot_set) != inside
    places: dict[int, int] = {}
    for rows in parts:
        while _measure(rows, places):
            pass
    code = bytearray()
    relocs: list[Reloc] = []
    _emit(parts[0], True, hot_set, places, code, relocs, 0)
    hot_size = len(code)
    cold_size = sum(len(i.code) for b, _ in parts[1] for i in b.body) + sum(j.size for _, js in parts[1] for j in js)
    pool = -(-cold_size // 16) * 16 if constants else cold_size
    _emit(parts[1], False, hot_set, places, code, relocs, hot_size)
    code += bytes(pool - cold_size) + constants
    return bytes(code), hot_size, tuple(_in_pool(r, pool) for r in relocs)


def _in_pool(reloc: Reloc, pool: int) -> Reloc:
    """Relocations against constants carry the name POOL until the pool's place in the cold part is known."""
    if reloc.name != POOL:
        return reloc
    return Reloc(reloc.offset, reloc.kind, reloc.symbol, addend=reloc.addend + pool)


def _emit(
    rows: list[_Row],
    inside: bool,
    hot_set: set[int],
    places: dict[int, int],
    code: bytearray,
    relocs: list[Reloc],
    base: int,
) -> None:
    for block, jumps in rows:
        assert len(code) == base + places[block.at]
        for insn in block.body:
            at = len(code)
            code += insn.code
            relocs += [Reloc(at + f.offset, f.kind, f.symbol, f.index, f.name, f.addend) for f in insn.fixups]
        for jump in jumps:
            code += jump.opcode()
            target = jump.target
            if isinstance(target, Fixup):
                relocs.append(Reloc(len(code), target.kind, target.symbol, target.index, target.name, target.addend))
                code += bytes(4)
            elif (target in hot_set) != inside:
                symbol = SymbolKind.COLD if inside else SymbolKind.HOT
                relocs.append(Reloc(len(code), RelocKind.REL32, symbol, addend=places[target] - 4))
                code += bytes(4)
            else:
                size = 4 if jump.long else 1
                code += (base + places[target] - len(code) - size).to_bytes(size, "little", signed=True)
