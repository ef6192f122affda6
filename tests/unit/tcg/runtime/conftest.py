"""One run-time object of the toy guest for all tests here; the cache keeps it until a source changes."""

import pytest
from toy_guest import RECIPE, Toy

from backends.llvm.stencils import StencilCompiler
from tcg.runtime.object import Runtime, load
from tcg.runtime.registry import register_runtime


@pytest.fixture(scope="session")
def toy_runtime() -> Runtime:
    register_runtime("toy", RECIPE)
    return load("toy")


@pytest.fixture(scope="session")
def toy_compiler() -> StencilCompiler:
    return StencilCompiler()


@pytest.fixture
def toy(toy_runtime: Runtime, toy_compiler: StencilCompiler) -> Toy:
    return Toy(toy_runtime, toy_compiler)
