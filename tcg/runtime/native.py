"""The registry of native code: functions that are written in Python here and run as one Numba-compiled object.

    @native                      seen by other native code only, inlined where LLVM likes
    @exported                    also a C symbol under its plain name: stencils, gates and Python call it
    @primitive("LLVM text")      an LLVM function body: what Python cannot say (raw loads, atomics, unsigned division)
    @external("symbol")          defined elsewhere: by the gates or as a guest's hook (`bind_hook`)

THE int64 RULE: every argument, result and local is int64 (addresses, registers, flags, counts); `-> None` where
nothing is returned, `float` (a double) where floating point is meant. Numba turns uint64 + int64 into float64, so
unsigned meanings are functions (`lsr`, `ult`, `udiv`). Comparisons are signed; arithmetic wraps; `//` and `%` are
Python's floor versions and slow; shifting by 64 or more is undefined except through `lsr`. No exceptions, no strings,
no objects, no globals but ints and other native functions. A module constant is frozen at build: write `CHAIN =
int(ExitReason.CHAIN)`.

Each function is compiled alone, calls go by symbol (recursion and cycles between modules are fine), and one LLVM run
over the whole then inlines. Called from Python, a native function runs its Python body on wrapped ints: for debugging
and unit tests, not for speed.
"""

import inspect
from collections.abc import Callable
from typing import Any, TypeVar, cast

F = TypeVar("F", bound=Callable[..., Any])

NATIVE: dict[str, "NativeFunction"] = {}  # by symbol, in order of registration
EXTERNAL: dict[str, "NativeFunction"] = {}
HOOKS: dict[str, str] = {}  # symbol of an @external -> symbol of the exported function that answers it

_LLVM_TYPES = {int: "i64", float: "double", None: "ptr"}


def wrap(value: int) -> int:
    """`value` as a signed 64-bit integer."""
    value &= (1 << 64) - 1
    return value - (1 << 64) if value >> 63 else value


class NativeFunction:
    """One function of the run-time object. kind: native, exported, primitive (its LLVM body is `text`) or external."""

    __slots__ = ("args", "function", "kind", "name", "names", "returns", "symbol", "text")

    def __init__(self, function: Callable[..., Any], kind: str, symbol: str, text: str = "") -> None:
        signature = inspect.signature(function)
        self.function = function
        self.name = function.__name__
        self.kind = kind
        self.symbol = symbol
        self.text = text
        self.names = tuple(signature.parameters)
        self.args = tuple(_LLVM_TYPES[p.annotation] for p in signature.parameters.values())
        self.returns = _LLVM_TYPES[signature.return_annotation]
        if kind == "external":
            EXTERNAL[symbol] = self
            return
        other = NATIVE.get(symbol)
        assert other is None or other.function.__module__ == function.__module__, f"{symbol} is defined twice"
        NATIVE[symbol] = self

    def __call__(self, *args: Any) -> Any:
        if self.kind == "external":
            target = NATIVE.get(HOOKS.get(self.symbol, self.symbol))
            if target is not None:
                return target(*args)
        result = self.function(*(wrap(a) if isinstance(a, int) else a for a in args))
        return wrap(int(result)) if isinstance(result, int) else result

    def __repr__(self) -> str:
        return f"<{self.kind} {self.name}>"


def native(function: F) -> F:
    """Register `function` for the run-time object: native functions of any module call it, nobody else."""
    return cast(F, NativeFunction(function, "native", f"native_{function.__name__}"))


def exported(function: F) -> F:
    """Register `function` under its plain name as a C symbol of the run-time object."""
    return cast(F, NativeFunction(function, "exported", function.__name__))


def primitive(text: str) -> Callable[[F], F]:
    """A function whose native meaning is the LLVM body `text` (its arguments have their Python names)."""

    def register(function: F) -> F:
        return cast(F, NativeFunction(function, "primitive", f"primitive_{function.__name__}", text))

    return register


def external(symbol: str) -> Callable[[F], F]:
    """A function that another module of the object defines under `symbol`; the body is the fallback for tests."""

    def register(function: F) -> F:
        return cast(F, NativeFunction(function, "external", symbol))

    return register


def bind_hook(symbol: str, target: str) -> None:
    """Let the external `symbol` be answered by the exported function `target` (a guest's hook)."""
    HOOKS[symbol] = target
