"""What goes into the run-time object: native modules by name, a guest's among them, and LLVM text from a backend.

    RUNTIMES["x86"] = Recipe(("frontends.x86.helpers.paging", ...), {"guest_translate": "x86_translate"},
    "backends.llvm.gates")

`tcg` imports no guest and no backend: a recipe names modules, and they are imported only where the object is built.
"""

from dataclasses import dataclass, field

CORE_MODULES = (
    "tcg.runtime.memory",
    "tcg.runtime.lock",
    "tcg.runtime.hooks",
    "tcg.runtime.tlb",
    "tcg.runtime.qht",
    "tcg.runtime.blocks",
    "tcg.runtime.access",
    "tcg.runtime.match",
    "tcg.runtime.place",
    "tcg.runtime.assemble",
    "tcg.runtime.hot",
    "tcg.runtime.loop",
    "tcg.runtime.requests",
)


@dataclass(frozen=True, slots=True)
class Recipe:
    """guest_modules: native modules imported after the core ones. hooks: external symbol -> exported function.

    gates: a module with runtime_modules(), LLVM texts that define the C symbols GATE_SYMBOLS (enter, leave, callout);
    or "".
    sources: further modules whose text the object depends on (constants, state layout).
    """

    guest_modules: tuple[str, ...] = ()
    hooks: dict[str, str] = field(default_factory=dict)
    gates: str = ""
    sources: tuple[str, ...] = ()


RUNTIMES: dict[str, Recipe] = {}


def register_runtime(name: str, recipe: Recipe) -> None:
    RUNTIMES[name] = recipe
