"""Functions of libraries whose results depend on more than their arguments: on files, clocks, settings.

Library code is not inspected, so a step that uses such a function runs eagerly every time. A function that is not
listed here as pure counts as such.
"""

from __future__ import annotations

import sys
from pathlib import Path
from types import BuiltinFunctionType, FunctionType
from typing import Any

import numpy as np

PURE = frozenset((
    "_abc", "_bisect", "_collections", "_collections_abc", "_functools", "_heapq", "_json", "_operator",
    "_random", "_sre", "_statistics", "_struct", "_thread", "_warnings", "_weakref", "abc", "array",
    "base64", "binascii", "bisect", "builtins", "cmath", "collections", "colorsys", "contextlib",
    "contextvars", "copy", "copyreg", "dataclasses", "difflib", "enum", "fractions", "functools",
    "heapq", "itertools", "json", "keyword", "logging", "math", "microfw", "numbers", "numpy",
    "operator", "pandas", "pprint", "random", "re", "reprlib", "scipy", "sklearn", "statistics",
    "string", "struct", "textwrap", "traceback", "types", "typing", "unicodedata", "warnings",
    "weakref", "zlib",
))  # fmt: skip
"""Packages whose functions depend only on their arguments, those in `READS` apart.

Random generators are compared separately, see `verification`. Logging and warnings have effects, but no results.
"""

READS = {
    "builtins": frozenset({"open", "input", "eval", "exec", "globals", "compile", "__import__", "breakpoint"}),
    "numpy": frozenset({
        "load", "loadtxt", "genfromtxt", "fromfile", "fromregex", "memmap", "geterr", "geterrcall", "getbufsize",
        "get_printoptions", "default_rng", "SeedSequence",
    }),
    "pandas": frozenset({"read_csv", "read_table", "read_parquet", "read_json", "read_pickle", "read_excel"}),
    "scipy": frozenset({"loadmat", "readsav", "mmread", "load_npz"}),
    "json": frozenset({"load"}),
    "random": frozenset({"Random", "SystemRandom"}),
    "weakref": frozenset({"getweakrefcount", "getweakrefs"}),
    "microfw": frozenset({"load", "load_state_dict"}),
}  # fmt: skip
"""Functions of those packages that read files, settings or other state."""

# Functions of other packages that have an effect, but no result: a replayed step skips them.
NO_RESULT = frozenset({("time", "sleep")})


MAY_READ = (FunctionType, BuiltinFunctionType, type, type(np.sum), np.ufunc, Path)
"""Types of values that `reads_outside` is called for: all others have no results."""


def reads_outside(value: Any) -> bool:
    """Return True if the results of a function, class or file path of a library may depend on more than arguments."""
    if isinstance(value, Path):  # Path.exists, Path.read_text
        return True
    if isinstance(value, np.ufunc):
        return all(kind.replace("->", "").strip("O") == "" for kind in value.types)  # made by np.frompyfunc
    module = getattr(value, "__globals__", {}).get("__name__") or getattr(value, "__module__", None)
    if not isinstance(module, str):  # a method; its object is inspected
        return False
    package = module.partition(".")[0]
    known = package in sys.stdlib_module_names or package in PURE
    if not known or package in ("__main__", "__future__"):
        return isinstance(value, BuiltinFunctionType)
    if (package, value.__name__) in NO_RESULT:
        return False
    return package not in PURE or value.__name__ in READS.get(package, ())
