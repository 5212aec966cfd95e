"""Nested values as JSON and a dict of arrays, and back. Data only, without class names.

JSON values are unchanged. A value that JSON lacks is an object with one key that begins with ``$``::

    {"$array": "optimizer/velocity"}   an array, by its name in the file
    {"$scalar": "optimizer/count"}     a NumPy number, as an array without axes
    {"$tuple": [1, 2]}
    {"$float": "nan"}                  or "inf", "-inf"
    {"$dict": [[3, "three"]]}          a dict whose keys are not all plain text
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from microfw.serialization.strict import FormatError, listed, short

FLOATS = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}

Special = Callable[[Any, str], Any]


def pack(value: Any, name: str, arrays: dict[str, Any], special: Special | None = None) -> Any:
    """Return a value as JSON types, and put its arrays into a dict.

    Parameters
    ----------
    value : object
        None, bool, number, text, array, or list, tuple or dict of these.
    name : str
        Name of the value, for errors and as the first part of array names.
    arrays : dict
        Receives the arrays.
    special : callable, optional
        ``special(value, name)`` returns JSON for another type of value, or None.

    Raises
    ------
    FormatError
        If a value has another type.
    """
    made = special(value, name) if special is not None else None
    if made is not None:
        return made
    if value is None or type(value) in (bool, int, str):  # type(): a subclass would come back as its base
        return value
    if type(value) is float:
        # JSON keeps all digits of a float: Python writes the shortest text that reads back as the same
        return value if math.isfinite(value) else {"$float": repr(value)}
    if isinstance(value, np.ndarray | np.generic):
        arrays[name] = np.asarray(value)
        return {"$array" if isinstance(value, np.ndarray) else "$scalar": name}
    if type(value) is tuple:
        return {"$tuple": _packed(value, name, arrays, special)}
    if isinstance(value, list):
        return _packed(value, name, arrays, special)
    if isinstance(value, dict):
        if all(type(key) is str and not key.startswith("$") for key in value):
            return {key: pack(item, f"{name}/{key}", arrays, special) for key, item in value.items()}
        pairs = [(key, item) for key, item in value.items()]
        return {"$dict": [_packed(pair, f"{name}/{k}", arrays, special) for k, pair in enumerate(pairs)]}
    raise FormatError(f"{name} to be a number, text, an array, or a list or dict of them", type(value).__name__)


def _packed(values: Any, name: str, arrays: dict[str, Any], special: Special | None) -> list[Any]:
    return [pack(item, f"{name}/{k}", arrays, special) for k, item in enumerate(values)]


def unpack(value: Any, array: Callable[[str], Any], special: Special | None = None) -> Any:
    """Return the value that `pack` packed.

    Parameters
    ----------
    value : object
        Parsed JSON.
    array : callable
        Returns an array by its name in the file.
    special : callable, optional
        ``special(content, tag)`` returns the value of another tag.

    Raises
    ------
    FormatError
        If the value is not from `pack`.
    """
    if isinstance(value, list):
        return [unpack(item, array, special) for item in value]
    if not isinstance(value, dict):
        return value
    if not any(key.startswith("$") for key in value):
        return {key: unpack(item, array, special) for key, item in value.items()}
    tag, content = next(iter(value.items()))
    if len(value) == 1:
        if tag in ("$array", "$scalar") and isinstance(content, str):
            found = array(content)
            if tag == "$array":
                return found
            if not found.ndim:
                return found[()]
        if tag == "$tuple":
            return tuple(unpack(item, array, special) for item in listed(content))
        if tag == "$float" and isinstance(content, str) and content in FLOATS:
            return FLOATS[content]
        if tag == "$dict":
            return _pairs(content, array, special)
        if special is not None:
            return special(content, tag)
    raise FormatError("an entry of a known kind", short(value))


def _pairs(content: Any, array: Callable[[str], Any], special: Special | None) -> dict[Any, Any]:
    pairs = [unpack(pair, array, special) for pair in listed(content, list)]
    try:
        return dict(pairs)
    except (TypeError, ValueError):
        raise FormatError("pairs of a key and a value", short(content)) from None
