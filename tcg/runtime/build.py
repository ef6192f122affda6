"""Compile all native functions to one object: Numba for each function, then LLVM once over the whole.

Needs numba; only tcg.runtime.object imports this, and only when no cached object fits. Each function is compiled by
Numba alone and unoptimised (calls are external symbols), so the cost is linear: some 20 ms a function. The texts are
linked, the uninteresting symbols made internal, and one O2 pipeline inlines and optimises. Two processes share Numba's
part.
"""

import importlib
import os
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

import llvmlite.binding as llvm

from tcg.runtime.native import EXTERNAL, HOOKS, NATIVE, NativeFunction
from tcg.runtime.object import LIBC
from tcg.runtime.registry import CORE_MODULES, Recipe

INTRINSICS = """
declare i64 @llvm.ctlz.i64(i64, i1)
declare i64 @llvm.cttz.i64(i64, i1)
declare i64 @llvm.ctpop.i64(i64)
declare i16 @llvm.bswap.i16(i16)
declare i32 @llvm.bswap.i32(i32)
declare i64 @llvm.bswap.i64(i64)
declare i64 @llvm.readcyclecounter()
declare void @llvm.memcpy.p0.p0.i64(ptr, ptr, i64, i1)
declare void @llvm.memmove.p0.p0.i64(ptr, ptr, i64, i1)
declare void @llvm.memset.p0.i64(ptr, i8, i64, i1)
declare i32 @memcmp(ptr, ptr, i64)
declare i32 @sched_yield()
declare ptr @aligned_alloc(i64, i64)
declare void @free(ptr)
"""


class BuildError(Exception):
    """The run-time cannot be compiled; the message names the function."""


def target_machine(opt: int = 2) -> llvm.TargetMachine:
    """The host's own: same flags for building and loading."""
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    llvm.initialize_native_asmparser()
    return llvm.Target.from_default_triple().create_target_machine(
        cpu=llvm.get_host_cpu_name(),
        features=llvm.get_host_cpu_features().flatten(),
        opt=opt,
        reloc="pic",
        codemodel="small",
    )


def import_modules(recipe: Recipe, core: Sequence[str]) -> None:
    """Fill NATIVE and HOOKS."""
    for name in (*core, *recipe.guest_modules):
        importlib.import_module(name)
    HOOKS.update(recipe.hooks)


def primitive_text(f: NativeFunction) -> str:
    args = ", ".join(f"{t} %{n}" for t, n in zip(f.args, f.names, strict=True))
    return f"define {f.returns} @{f.symbol}({args}) alwaysinline nounwind {{\n{f.text}\n}}\n"


def hook_text(symbol: str, target: NativeFunction) -> str:
    """An external's symbol as a call of the function that answers it."""
    args = ", ".join(f"{t} %a{n}" for n, t in enumerate(target.args))
    return (
        f"define {target.returns} @{symbol}({args}) alwaysinline nounwind {{\n"
        f"%r = call {target.returns} @{target.symbol}({args})\nret {target.returns} %r\n}}\n"
        f"declare {target.returns} @{target.symbol}({', '.join(target.args)})\n"
    )


def numba_texts(symbols: Sequence[str]) -> list[str]:
    """The unoptimised LLVM text of each function: Numba's, and a C-convention wrapper of the registered symbol."""
    os.environ["NUMBA_OPT"] = "0"
    import numba.core.ccallback
    from numba.core import compiler, config, registry, types
    from numba.core.errors import NumbaError
    from numba.extending import typeof_impl

    settings: Any = config
    settings.OPT = settings._OptLevel(0)
    ccallback: Any = numba.core.ccallback
    kinds = {"i64": types.int64, "double": types.float64, "ptr": types.void}

    @typeof_impl.register(NativeFunction)
    def _(value: NativeFunction, _context: object) -> object:
        return types.ExternalFunction(value.symbol, kinds[value.returns](*(kinds[a] for a in value.args)))

    options = {"nogil": True, "error_model": "numpy", "nopython": True, "boundscheck": False}
    texts: list[str] = []
    extra: dict[str, None] = {}
    for symbol in symbols:
        f = NATIVE[symbol]
        work = ccallback._CFuncCompiler(f.function, registry.cpu_target, options, {}, compiler.Compiler)
        customize = work._customize_flags

        def without_wrapper(flags: object, customize: Callable[[object], object] = customize) -> object:
            flags = customize(flags)
            flags.no_cfunc_wrapper = True  # type: ignore[attr-defined]
            return flags

        work._customize_flags = without_wrapper
        try:
            result = work.compile(tuple(kinds[a] for a in f.args), kinds[f.returns])
        except NumbaError as e:
            raise BuildError(f"{f.function.__module__}.{f.name}: {e}") from e
        extra.update((text, None) for text in linked_texts(result.library))
        inner = result.fndesc.llvm_func_name
        text = result.library.get_llvm_str()
        args = ", ".join(f"{t} %a{n}" for n, t in enumerate(f.args))
        passed = "".join(f", {t} %a{n}" for n, t in enumerate(f.args))
        text = text.replace(f"define i32 @{inner}(", f"define internal i32 @{inner}(", 1)
        texts.append(
            text
            + f"\ndefine {f.returns} @{symbol}({args}) nounwind {{\n%r = alloca {f.returns}\n%e = alloca ptr\n"
            + f"%s = call i32 @{inner}(ptr %r, ptr %e{passed})\n%v = load {f.returns}, ptr %r\nret {f.returns} %v\n}}\n"
        )
    return texts + list(extra)


def linked_texts(library: Any) -> list[str]:
    """The texts of what Numba put into libraries of its own (`min`, `x in (a, b)`)."""
    found: list[str] = []
    for other in library._linking_libraries:
        found += [other.get_llvm_str(), *linked_texts(other)]
    return found


def reachable(roots: Iterable[str]) -> list[str]:
    """The symbols of the functions that `roots` need, themselves included, by the globals that their code names."""
    found: dict[str, None] = {}
    work = list(roots)
    while work:
        symbol = work.pop()
        symbol = HOOKS.get(symbol, symbol)
        if symbol in found or symbol not in NATIVE or NATIVE[symbol].kind == "primitive":
            continue
        found[symbol] = None
        function = NATIVE[symbol].function
        named = (function.__globals__.get(name) for name in function.__code__.co_names)
        work.extend(value.symbol for value in named if isinstance(value, NativeFunction))
    return list(found)


def compile_object(
    recipe: Recipe,
    progress: Callable[[str], None] | None = None,
    processes: int = 2,
    roots: Sequence[str] | None = None,
    modules: Sequence[str] = CORE_MODULES,
) -> bytes:
    """The object file: all native functions of `modules` and the guest (or `roots` and what they need), the gates."""
    say = progress or (lambda _text: None)
    start = time.perf_counter()
    say("building the native run-time (once for a host and a set of sources)")
    import_modules(recipe, modules)
    everything = [f.symbol for f in NATIVE.values() if f.kind != "primitive"]
    symbols = everything if roots is None else reachable(roots)
    texts = compile_parts(symbols, processes)
    say(f"compiled {len(symbols)} functions in {time.perf_counter() - start:.1f} s")
    module = link(texts, *gates(recipe))
    say(f"linked after {time.perf_counter() - start:.1f} s")
    machine = target_machine()
    passes = llvm.create_pass_builder(machine, llvm.create_pipeline_tuning_options(speed_level=2))
    passes.getModulePassManager().run(module, passes)
    say(f"optimised after {time.perf_counter() - start:.1f} s")
    strange = [f.name for f in module.functions if f.is_declaration and f.name not in LIBC and f.name[:5] != "llvm."]
    if strange:
        raise BuildError(f"the object would need {', '.join(strange)}: a function uses more than ints and native calls")
    code: bytes = machine.emit_object(module)
    say(f"done after {time.perf_counter() - start:.1f} s, {len(code)} bytes")
    return code


def compile_parts(symbols: Sequence[str], processes: int) -> list[str]:
    if processes <= 1 or len(symbols) < 40:
        return numba_texts(symbols)
    with ProcessPoolExecutor(processes, mp_context=get_context("fork")) as pool:
        parts = pool.map(numba_texts, [symbols[n::processes] for n in range(processes)])
        return [text for part in parts for text in part]


def gates(recipe: Recipe) -> tuple[list[str], tuple[str, ...]]:
    """The backend's LLVM texts and the C symbols they define."""
    if not recipe.gates:
        return [], ()
    module = importlib.import_module(recipe.gates)
    return list(module.runtime_modules()), tuple(module.GATE_SYMBOLS)


def exported_symbols(recipe: Recipe) -> list[str]:
    """The C symbols of the object: exported functions and what the gates define."""
    found = {f.symbol for f in NATIVE.values() if f.kind == "exported"}
    return sorted(found.union(gates(recipe)[1]))


def link(texts: Sequence[str], gate_texts: Sequence[str], gate_symbols: Sequence[str]) -> llvm.ModuleRef:
    """One module of all texts, primitives and hooks; everything internal but exported symbols and the gates'."""
    primitives = [f for f in NATIVE.values() if f.kind == "primitive"]
    keep = {f.symbol for f in NATIVE.values() if f.kind == "exported"}.union(gate_symbols)
    module = llvm.parse_assembly(INTRINSICS + "".join(primitive_text(f) for f in primitives))
    seen: set[str] = set()
    for text in texts:
        other = llvm.parse_assembly(text)
        defined = {f.name for f in other.functions if not f.is_declaration}
        if not defined & seen:  # both processes may have brought one of Numba's
            seen |= defined
            module.link_in(other)
    for text in gate_texts:
        module.link_in(llvm.parse_assembly(text))
    for symbol, target in HOOKS.items():
        if symbol in EXTERNAL and target in NATIVE:
            module.link_in(llvm.parse_assembly(hook_text(symbol, NATIVE[target])))
    missing = [f.name for f in module.functions if f.is_declaration and f.name in EXTERNAL]
    missing += [f.name for f in module.functions if f.is_declaration and f.name.startswith("_Z")]
    if missing:
        raise BuildError(f"nobody defines {', '.join(missing)}")
    for f in module.functions:
        if not f.is_declaration and f.name not in keep:
            f.linkage = "internal"
    for g in module.global_variables:
        if g.linkage == llvm.Linkage.common:
            g.linkage = "internal"
    module.verify()
    return module
