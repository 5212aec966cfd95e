"""Kinds, settings and modes of the modules of a run: saved as text, compared and restored when the run is resumed."""

from __future__ import annotations

import json
import math
from collections.abc import Collection
from typing import Any

import numpy as np

from microfw.nn import Module
from microfw.nn.module import in_microfw
from microfw.serialization import attributes
from microfw.serialization.architecture import settings_of
from microfw.serialization.attributes import Change
from microfw.serialization.strict import FormatError, document, listed, short, table

MISSING = {"kind": "nothing"}


def describe(root: Any) -> str:
    """Return kind, settings and mode of each module of a model or a loss, and its frozen parameters, as JSON text."""
    about = {path: _about(module) for path, module in _modules(root).items()}
    frozen = [name for name, p in _parameters(root).items() if not p.requires_grad]
    return json.dumps({"modules": about, "frozen": frozen}, separators=(",", ":"))


def changes(root: Any, text: Any, what: str, values: Any = None) -> list[Change]:
    """Return what makes the settings, modes and attributes of a model or a loss those of a file.

    Parameters
    ----------
    root : Module or object
        The model or the loss.
    text : str
        From `describe`.
    what : str
        Name of the root in errors.
    values : dict, optional
        `attributes.plain` of the saved root; None in files of older versions.

    Raises
    ------
    FormatError
        If the file is of other modules, or a setting differs that is no number, such as a kernel's size.
    """
    saved = table(document(text), "modules", "frozen")
    theirs, mine = table(saved["modules"]), _modules(root)
    made: list[Change] = []
    for path in {**mine, **theirs}:
        there = table(theirs[path], "class", "settings", "training") if path in theirs else {"class": "none"}
        here = _about(mine[path]) if path in mine else {"class": "none"}
        where = f"{path} of the {what}" if path else f"the {what}"
        if there["class"] != here["class"]:
            raise _another(where, there["class"], here["class"])
        if isinstance(mine[path], Module):
            if not isinstance(there["training"], bool):
                raise FormatError("a mode of True or False", short(there["training"]))
            made += [(mine[path], "training", there["training"])]
            restored = () if values is None else table(values.get(path, {}))
            made += _set(mine[path], here, table(there["settings"]), where, restored)
    made += _attributes(root, table(values or {}), what)
    parameters, frozen = _parameters(root), listed(saved["frozen"], str)
    if not parameters.keys() >= set(frozen):
        raise FormatError("parameters that are frozen", short(frozen))
    return made + [(p, "requires_grad", name not in frozen) for name, p in parameters.items()]


def _attributes(root: Any, values: dict[str, Any], what: str) -> list[Change]:
    """Return what sets the plain attributes of your own modules, or of the loss, to those of a file."""
    holders = attributes.holders(root)
    made: list[Change] = []
    for path, theirs in values.items():
        item = holders.get(path)
        for name, value in table(theirs).items():
            if item is None or in_microfw(type(item)) or name in (*attributes.APART, "__dict__", "__class__"):
                raise FormatError(f"attributes of your own modules of the {what}", short(f"{path}.{name}"))
            if isinstance(mine := vars(item).get(name), attributes.PARTS):
                raise _another(f"{path}.{name} of the {what}", value, type(mine).__name__)
            made.append((item, name, value))
    return made


def _set(
    module: Module, here: dict[str, Any], there: dict[str, Any], where: str, restored: Collection[str]
) -> list[Change]:
    layer = here["class"].startswith("nn.")
    made = []
    for name in {**here["settings"], **there}:
        mine, theirs = here["settings"].get(name, MISSING), there.get(name, MISSING)
        if mine == theirs or (name in restored and name in vars(module)):
            continue
        # a number that a hook may have changed; of a layer of the library only one such as a rate, no size
        numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in (mine, theirs))
        plain = not (isinstance(mine, dict | list) or isinstance(theirs, dict | list))
        free = plain if not layer else numbers and isinstance(theirs + mine, float)
        if free and name in vars(module):
            made.append((module, name, theirs))
        # the dropout of an attention is the setting of a module inside of it; what init_arguments computes follows from
        # attributes
        elif not (free and (layer or restored)):
            raise _another(f"{name} of {where}", theirs, mine)
    return made


def _another(what: str, theirs: Any, mine: Any) -> FormatError:
    return FormatError(f"{what} as it was saved, {short(theirs)}", short(mine), "build the same model and loss")


def _about(module: Any) -> dict[str, Any]:
    settings: dict[str, Any] = {}
    kind = getattr(module, "__name__", type(module).__name__)
    if isinstance(module, Module):
        try:
            kind, settings = settings_of(module)
        except FormatError:  # a class that a file cannot create; its settings are unknown
            kind = type(module).__name__
    training = getattr(module, "training", True)
    return {"class": kind, "settings": {name: _plain(value) for name, value in settings.items()}, "training": training}


def _plain(value: Any) -> Any:
    value = value.item() if isinstance(value, np.generic) else value
    if isinstance(value, float):
        return value if math.isfinite(value) else {"float": repr(value)}
    if value is None or isinstance(value, int | str):
        return value
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, Module):  # compared itself
        return {"kind": "Module"}
    return {"kind": getattr(value, "__name__", type(value).__name__)}


def _modules(root: Any) -> dict[str, Any]:
    return dict(root.named_modules()) if isinstance(root, Module) else {"": root}


def _parameters(root: Any) -> dict[str, Any]:
    return dict(root.named_parameters()) if isinstance(root, Module) else {}
