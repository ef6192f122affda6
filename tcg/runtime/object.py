"""The cached run-time object: built once for a host and a set of sources, loaded in milliseconds ever after.

    runtime = load("x86")              # builds where no cached file fits
    runtime.address("cpu_exec")
    runtime.call("qht_find", machine, gpa, pc, mode)

The file is <cache>/runtime-<name>-<key>.o: a header (magic, SHA-256 of the rest), the exported symbols, the object.
The key hashes the sources of all modules of the recipe, the LLVM version and the host CPU with its features. A file
that is damaged, truncated or of another key is ignored and rebuilt, never trusted; it is written to a temporary name
and renamed; a disk that takes no file costs the next start a rebuild, nothing else.
"""

import contextlib
import ctypes
import hashlib
import os
import tempfile
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path

import llvmlite.binding as llvm

from tcg.runtime.registry import CORE_MODULES, RUNTIMES, Recipe

MAGIC = b"tessera-runtime-1\n"
LIBC = ("aligned_alloc", "free", "sched_yield", "memcmp", "bcmp", "memcpy", "memmove", "memset")  # all objects may need
SUPPORT_MODULES = ("tcg.runtime.build", "tcg.runtime.native", "tcg.runtime.layout", "tcg.runtime.struct")


def cache_directory() -> Path:
    """$XDG_CACHE_HOME/tessera, by default ~/.cache/tessera."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return Path(base) / "tessera"


def source_key(recipe: Recipe) -> str:
    """Hash of everything that the object depends on."""
    digest = hashlib.sha256(MAGIC)
    modules = [*SUPPORT_MODULES, *CORE_MODULES, *recipe.guest_modules, *recipe.sources]
    if recipe.gates:
        modules.append(recipe.gates)
    for name in modules:
        spec = find_spec(name)
        assert spec is not None and spec.origin is not None, f"no module {name}"
        digest.update(name.encode() + b"\0" + Path(spec.origin).read_bytes())
    digest.update(repr(sorted(recipe.hooks.items())).encode())
    features = llvm.get_host_cpu_features().flatten()
    digest.update(f"{llvm.llvm_version_info}{llvm.get_host_cpu_name()}{features}".encode())
    return digest.hexdigest()[:32]


class Runtime:
    """A loaded object. Calls release the GIL; arguments and results are signed 64-bit."""

    def __init__(self, code: bytes, exports: Sequence[str]) -> None:
        llvm.initialize_native_target()
        llvm.initialize_native_asmprinter()
        libc = ctypes.CDLL(None)
        for name in LIBC:
            llvm.add_symbol(name, ctypes.cast(getattr(libc, name), ctypes.c_void_p).value)
        machine = llvm.Target.from_default_triple().create_target_machine(reloc="pic", codemodel="small")
        self._engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), machine)
        self._engine.add_object_file(llvm.ObjectFileRef.from_data(code))
        self._engine.finalize_object()
        self.exports = frozenset(exports)
        self._functions: dict[str, Callable[..., int]] = {}

    def address(self, symbol: str) -> int:
        """Host address of an exported symbol; KeyError if there is none."""
        if symbol not in self.exports:
            raise KeyError(symbol)
        address: int = self._engine.get_function_address(symbol)
        return address

    def function(self, symbol: str, arguments: int) -> Callable[..., int]:
        """The exported function as a callable of `arguments` ints."""
        made = self._functions.get(symbol)
        if made is None:
            kind = ctypes.CFUNCTYPE(ctypes.c_int64, *[ctypes.c_int64] * arguments)
            made = self._functions[symbol] = kind(self.address(symbol))
        return made

    def call(self, symbol: str, *args: int) -> int:
        """Call an exported function of int arguments; what a `-> None` one gives means nothing."""
        return self.function(symbol, len(args))(*(ctypes.c_int64(a).value for a in args))


def pack(code: bytes, exports: Sequence[str]) -> bytes:
    body = " ".join(exports).encode() + b"\n" + code
    return MAGIC + hashlib.sha256(body).hexdigest().encode() + b"\n" + body


def unpack(data: bytes) -> tuple[bytes, list[str]] | None:
    """(object, exported symbols), or None if the bytes are not one of our files, whole and unharmed."""
    end = len(MAGIC) + 65
    body = data[end:]
    if data[: len(MAGIC)] != MAGIC or data[len(MAGIC) : end] != hashlib.sha256(body).hexdigest().encode() + b"\n":
        return None
    names, _, code = body.partition(b"\n")
    return code, names.decode().split()


def write_atomic(path: Path, data: bytes) -> bool:
    """Write through a temporary name; False (and no file left) when the disk or the directory does not take it."""
    name = ""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=path.name, suffix=".tmp", dir=path.parent)
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        os.replace(name, path)
        return True
    except OSError:
        if name:
            with contextlib.suppress(OSError):
                os.unlink(name)
        return False


def build(recipe: Recipe, progress: Callable[[str], None] | None = None) -> bytes:
    """The packed file of a fresh build."""
    from tcg.runtime import build as builder  # numba is imported only where something is built

    code = builder.compile_object(recipe, progress)
    return pack(code, builder.exported_symbols(recipe))


def load(name: str, progress: Callable[[str], None] | None = None, directory: Path | None = None) -> Runtime:
    """The run-time `name` of the registry, from the cache or built now (`progress` gets lines of text meanwhile)."""
    recipe = RUNTIMES[name]
    path = (directory or cache_directory()) / f"runtime-{name}-{source_key(recipe)}.o"
    found: tuple[bytes, list[str]] | None = None
    with contextlib.suppress(OSError):
        found = unpack(path.read_bytes())
    if found is None:
        data = build(recipe, progress)
        for old in path.parent.glob(f"runtime-{name}-*.o"):
            with contextlib.suppress(OSError):
                old.unlink()
        write_atomic(path, data)
        found = unpack(data)
        assert found is not None
    code, exports = found
    return Runtime(code, exports)


def runtime_from(recipe: Recipe, roots: Sequence[str], modules: Sequence[str] = CORE_MODULES) -> Runtime:
    """An uncached run-time of only `roots` and what they need, out of `modules`: for tests of a few functions."""
    from tcg.runtime import build as builder

    return Runtime(builder.compile_object(recipe, None, 1, roots, modules), roots)
