"""Every declared helper exists natively with the declared shape."""

import importlib

import pytest

from frontends.x86.helpers import HOOKS, MODULES
from frontends.x86.helpers.decls import ENDS, HELPERS, STATUS, TRANSFERS
from tcg.ir.types import Effect
from tcg.runtime.native import NATIVE

for _name in MODULES:
    importlib.import_module(_name)


@pytest.mark.parametrize("name", sorted(HELPERS))
def test_declared_helper_is_exported(name: str) -> None:
    function, decl = NATIVE[f"helper_{name}"], HELPERS[name]
    assert function.kind == "exported"
    assert len(function.args) == 1 + len(decl.args)
    assert (function.returns == "ptr") == (decl.ret is None)


def test_sets_name_declared_helpers() -> None:
    assert HELPERS.keys() >= STATUS | TRANSFERS | ENDS
    assert not TRANSFERS & ENDS
    assert all(HELPERS[name].effects & Effect.MAY_FAULT for name in TRANSFERS | ENDS)


def test_hooks_exist() -> None:
    assert all(NATIVE[target].kind == "exported" for target in HOOKS.values())
