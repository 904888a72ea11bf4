"""The exact names that a file may refer to, and how: generated from real fits by `tools/generate_allowlist.py`.

A name is `module:qualified.name`. Its uses are `new` (constructed without arguments), `new_args`, `call` (called with
arguments), `build` (given a state), `append` and `items` (filled), `value` (merely referred to). What was only ever referred
to may not be called.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from importlib.resources import files

FORMER_MODULES = {"copy_reg": "copyreg", "__builtin__": "builtins"}
"""How protocols 0 to 2 write two modules of the standard library."""
FORMER_NAMES = {"builtins:long": "int", "builtins:unicode": "str"}
"""And two of its names."""


@cache
def allowed_uses() -> Mapping[str, frozenset[str]]:
    """The allowed uses by name."""
    text = files("holdfast.artifacts").joinpath("data/allowlist.json").read_text(encoding="utf-8")
    return {name: frozenset(uses) for name, uses in json.loads(text)["names"].items()}


def current(module: str, name: str) -> tuple[str, str]:
    """Module and name as the running Python has them."""
    module = FORMER_MODULES.get(module, module)
    return module, FORMER_NAMES.get(f"{module}:{name}", name)


def key_of(module: str, name: str) -> str:
    """The name under which the list has a global."""
    return ":".join(current(module, name))
