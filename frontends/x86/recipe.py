"""What the x86 guest puts into the run-time object; importing this registers it."""

from frontends.x86.helpers import HOOKS, MODULES, SOURCES
from tcg.runtime.registry import Recipe, register_runtime

RUNTIME = "x86_64"
register_runtime(RUNTIME, Recipe(MODULES, HOOKS, "backends.llvm.gates", SOURCES))
