"""Packages that import what they hold when it is first used."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any


def attach(package: str, homes: dict[str, str]) -> Callable[[str], Any]:
    """Return a package's ``__getattr__``.

    Parameters
    ----------
    package : str
        The package's name.
    homes : dict
        For each of its modules the names, with spaces between, that the package has from it. The modules themselves
        are found by their names, too. A name that begins with "microfw." is that of a module elsewhere.

    Returns
    -------
    callable
        ``__getattr__(name)``, which imports the module, and leaves the name in the package for the next time.

    Notes
    -----
    A package that imports its modules when it is itself imported can leave two threads waiting for each other: one is
    in the package, on its way to a module, which the other has begun to import, and which is to wait for the package.

    Examples
    --------
    >>> attach("microfw.nn", {"dense": "Dense", "initializers": ""})("Dense")
    <class 'microfw.nn.dense.Dense'>
    """
    home = {module: module for module in homes}
    home |= {name: module for module, names in homes.items() for name in names.split()}

    public = [name for module, names in homes.items() for name in names.split() or [module]]

    def __getattr__(name: str) -> Any:
        if name not in home:
            end = ""
            if not name.startswith("_"):  # for which Python itself looks now and then
                end = import_module("microfw._other_names").hint(package, name, public)
            raise AttributeError(f"module {package!r} has no attribute {name!r}{end}", name=name)
        inside = not home[name].startswith("microfw.")
        module = import_module(f"{package}.{home[name]}" if inside else home[name])
        value = module if name == home[name] else getattr(module, name)
        setattr(sys.modules[package], name, value)
        return value

    return __getattr__
