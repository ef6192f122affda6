"""Hot blocks on disk: what worker processes of earlier runs have compiled (tcg.exec.hot).

One file beside the translation tables, of the same key and the same rules: whole and of this key, or ignored and
replaced. A result holds for any guest that has the same bytes at the same pc in the same mode, so nothing about the
guest is in the key. Results stay packed until they are asked for; the oldest go first when the file gets too large.
"""

import hashlib
import io
import pickle
from pathlib import Path

from tcg.exec.forms import Form, Stencil
from tcg.exec.tables import MAGIC, Unpickler, read_file
from tcg.runtime.object import write_atomic

LIMIT = 16 << 20  # bytes of results

Key = tuple[int, int, int, bytes]  # pc, mode, number of instructions, guest bytes
Result = tuple[Stencil, int, Form]  # the stencil, where its last instruction begins, and that one's form


class HotStore:
    """For one thread at a time."""

    def __init__(self, path: Path, key: str) -> None:
        self._path = path
        self._key = f"{key} hot"
        self._packed: dict[Key, bytes] = {}
        self._changed = False

    def __len__(self) -> int:
        return len(self._packed)

    def load(self) -> None:
        """Add what the file holds, if it is one of ours."""
        self._packed = self._read() | self._packed

    def _read(self) -> dict[Key, bytes]:
        found = read_file(self._path)
        if found is None or found[0] != self._key:
            return {}
        try:
            packed = Unpickler(io.BytesIO(found[1])).load()
        except Exception:  # pickle raises whatever the bytes lead it to
            return {}
        return packed if _is_store(packed) else {}

    def find(self, key: Key) -> Result | None:
        packed = self._packed.get(key)
        if packed is None:
            return None
        try:
            stencil, last, form = Unpickler(io.BytesIO(packed)).load()
        except Exception:
            return None
        if type(stencil) is Stencil and type(last) is int and 0 <= last < len(key[3]) and type(form) is Form:
            return stencil, last, form
        return None

    def add(self, key: Key, result: Result) -> None:
        self._packed[key] = pickle.dumps(result, protocol=5)
        self._changed = True

    def save(self) -> bool:
        """Write the file, with what other processes have put there meanwhile; False when the disk does not take it."""
        if not self._changed:
            return True
        merged = self._read() | self._packed
        size = sum(map(len, merged.values()))
        for key in list(merged):
            if size <= LIMIT:
                break
            size -= len(merged.pop(key))
        body = self._key.encode() + b"\n" + pickle.dumps(merged, protocol=5)
        self._changed = False
        return write_atomic(self._path, MAGIC + hashlib.sha256(body).digest() + body)


def _is_store(packed: object) -> bool:
    return type(packed) is dict and all(
        type(key) is tuple and [type(x) for x in key] == [int, int, int, bytes] and type(value) is bytes
        for key, value in packed.items()
    )
