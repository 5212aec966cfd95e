"""Declares ops whose value is one ufunc of NumPy."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from microfw.autograd.op import Applicable, op


def ufuncs(module: str) -> Callable[..., Applicable]:
    """Return a function that declares ops of a module, as ``ufunc(np.sin, "Sine.", vjp=..., cost=...)``.

    The op has the name of the ufunc, and the inputs ``x``, or ``a`` and ``b``. The other arguments are those of `op`.
    """
    return partial(_declare, module)


def _declare(module: str, function: Any, doc: str, **declaration: Any) -> Applicable:
    value: Any = (lambda a, b: function(a, b)) if function.nin == 2 else (lambda x: function(x))
    value.__name__ = value.__qualname__ = function.__name__  # pickle finds an op by these
    value.__module__, value.__doc__ = module, doc
    return op(numpy=function, **declaration)(value)
