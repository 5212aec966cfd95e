"""Values into parameters and buffers by name: all of them, or none if anything is wrong."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from microfw.autograd.tensor import Tensor, values_of
from microfw.errors import ArgumentError, DataError, DTypeError, ShapeError

FIX = "for weights of PyTorch call mf.import_torch(model, state_dict)"


class IncompatibleKeys(NamedTuple):
    """What a load with ``strict=False`` has left."""

    missing_keys: list[str]
    """Names of parameters and buffers that keep their values."""
    unexpected_keys: list[str]
    """Names of values without a parameter or buffer."""


def load_values(own: dict[str, Tensor], state: Mapping[str, Any], where: str, strict: bool) -> IncompatibleKeys | None:
    """Copy values into Tensors of the same names; see `Module.load_state_dict`."""
    if not isinstance(strict, bool | np.bool_):
        raise ArgumentError(where, "strict to be True or False", repr(strict))
    if not isinstance(state, Mapping):
        raise ArgumentError(where, "a dict of values by name", type(state).__name__, "pass what state_dict() returned")
    missing, unknown = [n for n in own if n not in state], [n for n in state if n not in own]
    if strict and (missing or unknown):
        wrong = [f"missing {missing}"] * bool(missing) + [f"unknown {unknown}"] * bool(unknown)
        saved = "microfw.json" in unknown  # the name of the description in files of mf.save
        fix = "load into a model of the same structure, or pass strict=False"
        fix = "this is the content of a file of mf.save: read it with mf.load(path)" if saved else fix
        raise ArgumentError(where, f"the names {list(own)}", " and ".join(wrong), fix)
    values = {}  # all are checked before the first is written: a failed load changes nothing
    for name, t in own.items():
        if name not in state:
            continue
        value = as_values(state[name], f"{where}: {name}", FIX)
        if value.shape != t.shape:
            raise ShapeError(f"{where}: {name}", f"shape {t.shape}", value.shape)
        if not np.can_cast(value.dtype, t.dtype, "same_kind"):
            raise DTypeError(f"{where}: {name}", f"dtype {t.dtype}", value.dtype)
        with np.errstate(over="ignore"):  # found by the next test
            values[name] = value.astype(t.dtype)  # a copy: it may be the array of another parameter, written first
        lost = np.isfinite(value) & ~np.isfinite(values[name]) if value.dtype != t.dtype else np.zeros(0, bool)
        if lost.any():
            fix = f"{t.dtype} cannot hold it; cast the model with .astype({value.dtype.name!r})"
            raise DataError(f"{where}: {name}", f"finite values of {t.dtype}", value[lost][0], fix)
    for name, value in values.items():
        own[name].data = value
    return None if strict else IncompatibleKeys(missing, unknown)


def as_values(value: Any, where: str, fix: str) -> np.ndarray[Any, Any]:
    """Return an entry of a state as an array; raise an error that names it if it is none."""
    with named_errors(where, fix):
        array = np.asarray(values_of(value))
    if np.ma.is_masked(value):
        raise DataError(where, "values without a mask", "a masked array", "fill it with .filled(number)")
    return array


@contextlib.contextmanager
def named_errors(where: str, fix: str) -> Iterator[None]:
    """Turn errors of a conversion, as of ragged lists, into one that names the entry."""
    try:
        yield
    except (TypeError, ValueError, RuntimeError) as error:
        raise DTypeError(where, "an array of numbers", " ".join(str(error).split())[:160], fix) from None
