"""Packages that import what they export when it is first used."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any

EXPORT = re.compile(r"^from ([\w.]+) import (?:\(([^)]*)\)|(.*))$", re.MULTILINE)
"""A line of a stub, or several lines in parentheses."""


def unknown(package: str, name: str, known: list[str]) -> AttributeError:
    """Return the error for a name that a package does not have."""
    hint = ""
    if not name.startswith("_"):  # Python itself asks for such names
        hint = import_module("microfw._other_names").hint(package, name, known)
    return AttributeError(f"module {package!r} has no attribute {name!r}{hint}", name=name)


def attach(package: str, file: str) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """Return a package's ``__getattr__``, ``__dir__`` and ``__all__``, from the stub next to its ``__init__.py``.

    The stub, ``__init__.pyi``, is the only list of what a package exports, for type checkers and at run time.

    Parameters
    ----------
    package : str
        The package's ``__name__``.
    file : str
        The package's ``__file__``.

    Returns
    -------
    getattr : callable
        ``__getattr__(name)``: imports the name's module, and keeps the name in the package. The package's modules are
        found by their names, too.
    dir : callable
        ``__dir__()``: the exported names.
    all : list of str
        The exported names, sorted.

    Notes
    -----
    If a package imports its modules when it is itself imported, two threads can wait for each other: one is in the
    package, on its way to a module; the other has begun to import the module, and waits for the package.

    Examples
    --------
    >>> import microfw.nn
    >>> find, _, names = attach("microfw.nn", microfw.nn.__file__)
    >>> find("Dense"), "Dense" in names
    (<class 'microfw.nn.dense.Dense'>, True)
    """
    with open(file.removesuffix("c").removesuffix("y").removesuffix(".p") + ".pyi", encoding="utf-8") as stub:
        text = stub.read()
    homes: dict[str, str] = {}
    for module, several, one in EXPORT.findall(text):
        for part in (several or one).split(","):
            if name := part.rpartition(" as ")[2].strip():
                homes[name] = module
    public = sorted(homes)
    inside = {module.rpartition(".")[2]: module for module in homes.values() if module.startswith(f"{package}.")}

    def __getattr__(name: str) -> Any:
        home = homes.get(name) or inside.get(name)
        if home is None:
            raise unknown(package, name, public)
        if name not in homes:
            value = import_module(home)
        elif home == package:
            value = import_module(f"{package}.{name}")
        else:
            value = getattr(import_module(home), name)
        setattr(sys.modules[package], name, value)
        return value

    return __getattr__, lambda: public, public
