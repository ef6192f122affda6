"""Python's side of the translation tables that native code reads: forms, patterns with their trie, stencils.

Arrays grow by doubling; the MACHINE struct is pointed to the new one, and the old one is kept as long as this object
lives (native code reloads its pointers after each callback, but need not have done so yet). Filled under tb_lock: from
the callbacks of the assembler, or before a vCPU runs.

    add_form(form) -> id                     find_pattern(mode, code) -> id or -1
    add_pattern(mode, pattern) -> id         set_stencil(form id, variant, stencil)
    set_fixed("block_head" ..., stencil)     save(path, key), load(path, key)
"""

import ctypes
import hashlib
import io
import pickle
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, is_dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from tcg.exec.arrays import NativeArray
from tcg.exec.forms import Form, Pattern, Reloc, RelocKind, Stencil, SymbolKind, Variant
from tcg.runtime.layout import (
    FORM,
    FORM_ENDS,
    FORM_FAULTS,
    FORM_KILLS,
    FORM_READS,
    MODE_LIMIT,
    N_HOLES,
    PATTERN,
    PATTERN_DISP_PC,
    PATTERN_IMM_PC,
    PATTERN_WRAP,
    RELOC,
    STATUS_LIMIT,
    STENCIL,
    VALUE_COLD,
    VALUE_EXIT0,
    VALUE_HOT,
    VALUE_LEAVE,
    VALUE_NEXT,
    VALUE_ZERO,
)
from tcg.runtime.object import write_atomic
from tcg.runtime.struct import View

_LENGTH_AT = PATTERN.offset("length")
FIXED = ("block_head", "exit_stub", "far_exit")
MAGIC = b"tessera-tables-1\n"
SCRATCH_BYTES, SCRATCH_RELOCS = 1 << 15, 2048
NODE = 256  # int32 entries: 0 none, > 0 the next node, < 0 pattern id -value - 1
_FORM = struct.Struct("<IiII")
_PATTERN = struct.Struct("<I8B6iII4x")
_STENCIL = struct.Struct("<qIIIII2H2H2H8x")
_RELOC = struct.Struct("<IHHq")
for _packed, _declared in ((_FORM, FORM), (_PATTERN, PATTERN), (_STENCIL, STENCIL), (_RELOC, RELOC)):
    assert _packed.size == _declared.size, _declared.name


class TablesError(ValueError):
    """A pattern or stencil that the native tables cannot hold: a frontend's or backend's mistake."""


def _pattern_flags(p: Pattern) -> int:
    return PATTERN_DISP_PC * p.disp_pc_relative | PATTERN_IMM_PC * p.imm_pc_relative | PATTERN_WRAP * p.wrap


def _form_flags(f: Form) -> int:
    return (
        FORM_READS * f.reads_status | FORM_KILLS * f.kills_status | FORM_ENDS * f.ends_block | FORM_FAULTS * f.may_fault
    )


class Tables:
    """See the module. helper_address: host address of a helper's symbol (tcg.runtime.object.Runtime.address)."""

    def __init__(self, machine: View, helper_address: Callable[[str], int]) -> None:
        self._machine = machine
        self._helper_address = helper_address
        self._forms = NativeArray(FORM.size, 1024)
        self._patterns = NativeArray(PATTERN.size, 16384)
        self._variants = NativeArray(4, 16384)
        self._stencils = NativeArray(STENCIL.size, 2048)
        self._bytes = NativeArray(1, 1 << 18)
        self._relocs = NativeArray(RELOC.size, 16384)
        self._trie = NativeArray(4 * NODE, 1024)
        self._trie.extend(1)  # node 0 means "none"
        self._roots = NativeArray(4, MODE_LIMIT)
        self._roots.extend(MODE_LIMIT)
        self._stencils.extend(1)  # stencil 0: scratch
        self._bytes.extend(SCRATCH_BYTES)
        self._relocs.extend(SCRATCH_RELOCS)
        self._form_list: list[Form] = []
        self._form_ids: dict[Any, int] = {}
        self._newest_form: tuple[Form, int] | None = None
        self._helper_relocs: list[tuple[int, str]] = []  # (reloc index, symbol), to link again after a load
        self._fixed: dict[str, int] = {}
        self._arrays = {
            "forms": self._forms,
            "patterns": self._patterns,
            "variants": self._variants,
            "stencils": self._stencils,
            "stencil_bytes": self._bytes,
            "relocs": self._relocs,
            "trie": self._trie,
            "roots": self._roots,
        }
        for name, array in self._arrays.items():
            array.attach(self._publish_stencils if name == "stencils" else self._publisher(name))

    def _publisher(self, name: str) -> Callable[[int], None]:
        return lambda address: self._machine.set(name, address)

    # ---- forms

    def add_form(self, form: Form) -> int:
        newest = self._newest_form
        if newest is not None and newest[0] is form:  # spares the hash of a key: a pattern's form is asked for twice
            return newest[1]
        index = self._add_form(form)
        self._newest_form = form, index
        return index

    def _add_form(self, form: Form) -> int:
        known = self._form_ids.get(form.key)
        if known is not None:
            return known
        if not -1 <= form.status_out < STATUS_LIMIT:
            raise TablesError(f"{form.name}: status id {form.status_out}")
        index = self._forms.extend(1)
        statuses = STATUS_LIMIT if form.reads_status else 1
        first = self._variants.extend(2 * statuses)
        for n in range(2 * statuses):
            self._variants.words[first + n] = -1
        _FORM.pack_into(self._forms.data, index * FORM.size, _form_flags(form), int(form.status_out), first, statuses)
        self._form_list.append(form)
        self._form_ids[form.key] = index
        return index

    def form(self, form_id: int) -> Form:
        return self._form_list[form_id]

    def form_count(self) -> int:
        return self._forms.count

    # ---- patterns

    def _walk(self, mode: int, code: bytes) -> int:
        """Pattern id, or -1 (nothing begins so)."""
        node = self._roots.words[mode]
        if node == 0:
            return -1
        trie = self._trie.words
        for byte in code:
            node = trie[NODE * node + byte]
            if node < 0:
                return -node - 1
            if node == 0:
                return -1
        return -1

    def find_pattern(self, mode: int, code: bytes) -> int:
        """The id of the pattern whose head begins `code` and whose whole length `code` has, or -1."""
        found = self._walk(mode, code)
        return found if found >= 0 and self._patterns.data[found * PATTERN.size + _LENGTH_AT] <= len(code) else -1

    def add_pattern(self, mode: int, pattern: Pattern) -> int:
        """Add one (again: the same id). Heads of a mode are prefix-free, or TablesError."""
        if not 0 <= mode < MODE_LIMIT or not 0 < len(pattern.head) <= pattern.length <= 15 or len(pattern.regs) > 6:
            raise TablesError(f"pattern {pattern.head.hex()} of {pattern.form.name} in mode {mode:#x}")
        form_id = self.add_form(pattern.form)
        node = self._roots.words[mode]
        if node == 0:
            node = self._trie.extend(1)
            self._roots.words[mode] = node
        for byte in pattern.head[:-1]:
            following = self._trie.words[NODE * node + byte]
            if following < 0:
                raise TablesError(f"pattern {pattern.head.hex()}: a shorter head is there already")
            if following == 0:
                following = self._trie.extend(1)
                self._trie.words[NODE * node + byte] = following
            node = following
        old = self._trie.words[NODE * node + pattern.head[-1]]
        if old > 0:
            raise TablesError(f"pattern {pattern.head.hex()}: a longer head is there already")
        index = -old - 1 if old < 0 else self._patterns.extend(1)
        regs = (*pattern.regs, *(0,) * (6 - len(pattern.regs)))
        fields = (*pattern.disp, *pattern.imm, *pattern.imm2, _pattern_flags(pattern))
        _PATTERN.pack_into(self._patterns.data, index * PATTERN.size, form_id, pattern.length, *fields, *regs, 0, 0)
        self._trie.words[NODE * node + pattern.head[-1]] = -index - 1
        return index

    def pattern_offset(self, mode: int, code: bytes) -> int:
        """Offset of the record of the pattern that begins `code`, in the native array, or -1."""
        found = self.find_pattern(mode, code)
        return found * PATTERN.size if found >= 0 else -1

    def form_offset(self, form: Form) -> int:
        """The same of a form's record."""
        found = self._form_ids.get(form.key)
        return found * FORM.size if found is not None else -1

    def pattern_count(self) -> int:
        return self._patterns.count

    # ---- stencils

    def _publish_stencils(self, address: int) -> None:
        self._machine.set("stencils", address)
        for name, index in self._fixed.items():
            self._machine.set(name, address + index * STENCIL.size)

    def _reloc_value(self, reloc: Reloc) -> int:
        match reloc.symbol:
            case SymbolKind.HOLE:
                if not 0 <= reloc.index < N_HOLES:
                    raise TablesError(f"hole {reloc.index}")
                return reloc.index
            case SymbolKind.EXIT:
                return VALUE_EXIT0 + reloc.index
            case SymbolKind.NEXT:
                return VALUE_NEXT
            case SymbolKind.LEAVE:
                return VALUE_LEAVE
            case SymbolKind.COLD:
                return VALUE_COLD
            case SymbolKind.HOT:
                return VALUE_HOT
        return VALUE_ZERO

    def _add_stencil(self, stencil: Stencil) -> int:
        at = self._bytes.extend((len(stencil.code) + 15) & -16)  # native code copies 16 bytes at a time
        first = self._relocs.extend(len(stencil.relocs))
        index = self._stencils.extend(1)
        helpers = self._write_stencil(stencil, index, at, first)
        self._helper_relocs += helpers
        return index

    def set_scratch(self, stencil: Stencil) -> int:
        """Make the one scratch stencil this one (it is not kept in the cache); its index. TablesError: too large.

        For one writer at a time, who has it laid before the next comes.
        """
        if len(stencil.code) > SCRATCH_BYTES - 16 or len(stencil.relocs) > SCRATCH_RELOCS:
            raise TablesError(f"a stencil of {len(stencil.code)} bytes")
        self._write_stencil(stencil, 0, 0, 0)
        return 0

    def _write_stencil(self, stencil: Stencil, index: int, at: int, first: int) -> list[tuple[int, str]]:
        """Write record `index`, bytes from `at`, relocations from `first` on; those of them that name helpers."""
        size = len(stencil.code)
        helpers: list[tuple[int, str]] = []
        self._bytes.data[at : at + size] = stencil.code
        hot = sorted((r for r in stencil.relocs if r.offset < stencil.hot_size), key=lambda r: r.offset)
        cold = sorted((r for r in stencil.relocs if r.offset >= stencil.hot_size), key=lambda r: r.offset)
        exits: tuple[list[Reloc], list[Reloc]] = ([], [])
        for n, reloc in enumerate((*hot, *cold)):
            value, addend = self._reloc_value(reloc), reloc.addend
            offset = reloc.offset if n < len(hot) else reloc.offset - stencil.hot_size
            if reloc.symbol is SymbolKind.HELPER:
                helpers.append((first + n, reloc.name))
                addend += self._helper_address(reloc.name)
            _RELOC.pack_into(self._relocs.data, (first + n) * RELOC.size, offset, reloc.kind, value, addend)
            if reloc.symbol is SymbolKind.EXIT:
                exits[reloc.index].append(reloc)
        direct = [
            len(found) == 1
            and found[0].kind is RelocKind.REL32
            and found[0].offset < stencil.hot_size
            and found[0].addend == -4
            for found in exits
        ]
        places = [found[0].offset if is_direct else 0 for found, is_direct in zip(exits, direct, strict=True)]
        cold_size = size - stencil.hot_size
        counts = (len(exits[0]), len(exits[1]))
        fixed = (at, stencil.hot_size, cold_size, first, len(hot), len(cold))
        _STENCIL.pack_into(self._stencils.data, index * STENCIL.size, *fixed, *counts, *direct, *places)
        return helpers

    def _variant_at(self, form_id: int, variant: Variant) -> int:
        _, _, first, statuses = _FORM.unpack_from(self._forms.data, form_id * FORM.size)
        status = variant.status_in if statuses > 1 else 0
        if not 0 <= status < STATUS_LIMIT:
            raise TablesError(f"status id {status}")
        return int(first + 2 * status + int(variant.status_live))

    def set_stencil(self, form_id: int, variant: Variant, stencil: Stencil) -> None:
        at = self._variant_at(form_id, variant)
        self._variants.words[at] = self._add_stencil(stencil)

    def has_stencil(self, form_id: int, variant: Variant) -> bool:
        return self._variants.words[self._variant_at(form_id, variant)] >= 0

    def stencil_count(self) -> int:
        return self._stencils.count - 1

    def set_fixed(self, name: str, stencil: Stencil) -> None:
        """Set one of FIXED, the stencils that belong to no form."""
        if name not in FIXED:
            raise TablesError(f"no fixed stencil {name}")
        self._fixed[name] = self._add_stencil(stencil)
        self._publish_stencils(self._stencils.address)

    def has_fixed(self) -> bool:
        """Whether all of FIXED are set."""
        return len(self._fixed) == len(FIXED)

    def missing(self, hva: int, count: int) -> list[tuple[int, Variant]]:
        """What a STENCIL_MISS callback asks for."""
        pairs = struct.unpack(f"<{2 * count}i", ctypes.string_at(hva, 8 * count))
        wanted = {(f, Variant(bool(v & 1), v >> 1)): None for f, v in zip(pairs[::2], pairs[1::2], strict=True)}
        return list(wanted)

    def forms_without_stencil(self) -> Iterator[tuple[int, Variant]]:
        """(form id, default variant) of the forms that have no stencil at all: for warming a cache."""
        for form_id in range(self._forms.count):
            _, _, first, statuses = _FORM.unpack_from(self._forms.data, form_id * FORM.size)
            if all(self._variants.words[first + n] < 0 for n in range(2 * statuses)):
                yield form_id, Variant()

    def stencil_variants(self, form_id: int) -> list[tuple[int, Variant]]:
        """(stencil id, variant) of the stencils that the form has, the oldest first."""
        _, _, first, statuses = _FORM.unpack_from(self._forms.data, form_id * FORM.size)
        ids = self._variants.words[first : first + 2 * statuses].tolist()
        found = [(stencil_id, n) for n, stencil_id in enumerate(ids) if stencil_id >= 0]
        return [(stencil_id, Variant(bool(n & 1), n >> 1)) for stencil_id, n in sorted(found)]

    def encodings(self) -> Iterator[tuple[int, bytes, int]]:
        """(mode, an encoding, form id) of every pattern; what its head leaves open is 0."""
        for mode in range(MODE_LIMIT):
            if self._roots.words[mode]:
                yield from self._encodings(mode, self._roots.words[mode], b"")

    def _encodings(self, mode: int, node: int, head: bytes) -> Iterator[tuple[int, bytes, int]]:
        for byte, following in enumerate(self._trie.words[NODE * node : NODE * (node + 1)].tolist()):
            code = head + bytes((byte,))
            if following > 0:
                yield from self._encodings(mode, following, code)
            elif following < 0:
                form_id, length, *_ = _PATTERN.unpack_from(self._patterns.data, (-following - 1) * PATTERN.size)
                yield mode, code.ljust(length, b"\0"), form_id

    # ---- the cache on disk

    def dump(self) -> bytes:
        """Everything as bytes; helper addresses are left out."""
        contents = {name: bytes(array.used()) for name, array in self._arrays.items()}
        relocs = bytearray(contents["relocs"])
        for index, symbol in self._helper_relocs:
            self._add_to_reloc(relocs, index, -self._helper_address(symbol))
        contents["relocs"] = bytes(relocs)
        sizes = [(name, len(content)) for name, content in contents.items()]
        out = io.BytesIO()
        pickle.dump((sizes, self._form_list, self._helper_relocs, self._fixed), out, protocol=5)
        meta = out.getvalue()
        return b"".join((len(meta).to_bytes(8, "little"), meta, *contents.values()))

    @staticmethod
    def _add_to_reloc(relocs: bytearray, index: int, delta: int) -> None:
        offset, kind, value, addend = _RELOC.unpack_from(relocs, index * RELOC.size)
        _RELOC.pack_into(relocs, index * RELOC.size, offset, kind, value, addend + delta)

    def save(self, path: Path, key: str) -> bool:
        """Write the cache file; False when the disk does not take it."""
        body = key.encode() + b"\n" + self.dump()
        return write_atomic(path, MAGIC + hashlib.sha256(body).digest() + body)

    def load(self, path: Path, key: str) -> bool:
        """Take everything from a cache file of the same key; False (and nothing changed) if it is not one, whole."""
        found = read_file(path)
        if found is None or found[0] != key:
            return False
        try:
            content = parse(found[1])
            # A helper that this run-time lacks is found out before any change.
            addresses = {symbol: self._helper_address(symbol) for _, symbol in content.helpers}
        except (TablesError, KeyError):
            return False
        self._fixed = {}
        for name, array in self._arrays.items():
            array.replace(content.arrays[name])
        for index, symbol in content.helpers:
            self._add_to_reloc(self._relocs.data, index, addresses[symbol])
        self._form_list = content.forms
        self._form_ids = {form.key: n for n, form in enumerate(content.forms)}
        self._newest_form = None
        self._helper_relocs = content.helpers
        self._fixed = content.fixed
        self._publish_stencils(self._stencils.address)
        return True


# ---- reading a cache file without trusting it

_RECORD_SIZES = {
    "forms": FORM.size, "patterns": PATTERN.size, "variants": 4, "stencils": STENCIL.size, "stencil_bytes": 1,
    "relocs": RELOC.size, "trie": 4 * NODE, "roots": 4,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Content:
    """A cache file's tables: what native code reads by array name, what Python keeps beside it."""

    arrays: dict[str, memoryview]
    forms: list[Form]
    helpers: list[tuple[int, str]]
    fixed: dict[str, int]

    def count(self, name: str) -> int:
        return len(self.arrays[name]) // _RECORD_SIZES[name]


def read_file(path: Path) -> tuple[str, memoryview] | None:
    """(key, the rest) of a cache file; None if the bytes are not one, whole and unharmed."""
    try:
        data = path.read_bytes()
    except OSError:
        return None
    body = memoryview(data)[len(MAGIC) + 32 :]
    if data[: len(MAGIC)] != MAGIC or data[len(MAGIC) : len(MAGIC) + 32] != hashlib.sha256(body).digest():
        return None
    end = data.find(b"\n", len(MAGIC) + 32) - len(MAGIC) - 32
    if end < 0:
        return None
    return bytes(body[:end]).decode(errors="replace"), body[end + 1 :]


def parse(packed: memoryview) -> Content:
    """What `Tables.dump` wrote; TablesError if it is anything else. Runs nothing that the file names."""
    try:
        at = 8 + int.from_bytes(packed[:8], "little")
        sizes, forms, helpers, fixed = Unpickler(io.BytesIO(packed[8:at])).load()
        arrays = {}
        for name, size in sizes:
            arrays[name] = packed[at : at + size]
            at += size
        fits = (
            list(arrays) == list(_RECORD_SIZES)
            and at == len(packed)
            and all(len(arrays[name]) % size == 0 for name, size in _RECORD_SIZES.items())
            and all(type(form) is Form for form in forms)
            and len({form.key for form in forms}) == len(forms) == len(arrays["forms"]) // FORM.size
            and all(
                0 <= index < len(arrays["relocs"]) // RELOC.size and type(symbol) is str for index, symbol in helpers
            )
            and all(name in FIXED and 0 <= n < len(arrays["stencils"]) // STENCIL.size for name, n in fixed.items())
        )
    except Exception as error:  # pickle raises whatever the bytes lead it to
        raise TablesError(f"no tables: {error}") from None
    if not fits:
        raise TablesError("other tables")
    return Content(arrays, list(forms), list(helpers), dict(fixed))


class Unpickler(pickle.Unpickler):
    """Forms and their keys are plain data: dataclasses and enums of our own packages, each named where it is defined.

    No function can be named, nor anything that one of our modules imports, so that a file can build values only.
    """

    def find_class(self, module: str, name: str) -> Any:
        if module.split(".")[0] in ("tcg", "frontends") and "." not in name:
            found = super().find_class(module, name)
            if (
                isinstance(found, type)
                and found.__module__ == module
                and (is_dataclass(found) or issubclass(found, Enum))
            ):
                return found
        raise pickle.UnpicklingError(f"{module}.{name}")
