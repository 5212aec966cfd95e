"""The condition under which a plan can be replayed, as a Python expression."""

from __future__ import annotations

from typing import Any

import numpy as np

from microfw.replay.dependencies import Dependencies


def guard_expression(inputs: list[Any], depends: Dependencies) -> tuple[str, dict[str, Any]]:
    """Return an expression that is true if a plan can be replayed with arguments ``a0``, ``a1``, ….

    It compares type, dtype, shape and strides of the arguments, and all that ``depends`` lists.

    Returns
    -------
    expression : str
        Python source.
    names : dict
        Objects by their names in the expression.
    """
    names: dict[str, Any] = {"kind": np.ndarray}
    tests = []
    for k, captured in enumerate(inputs):
        names |= {f"d{k}": captured.dtype, f"n{k}": captured.shape, f"e{k}": captured.strides}
        tests.append(f"type(a{k}) is kind and a{k}.dtype is d{k} and a{k}.shape == n{k}")
        single = any(n == 1 for n in captured.shape)  # NumPy may give an axis of length 1 any stride
        long = [f"a{k}.strides[{j}] == {captured.strides[j]}" for j, n in enumerate(captured.shape) if n > 1]
        tests += long if single else [f"a{k}.strides == e{k}"]
    return " and ".join([*tests, *depends.guards]) or "True", names | depends.objects
