"""The test that a plan still fits: its arguments, and what else its function depends on."""

from __future__ import annotations

from typing import Any

import numpy as np

from microfw.replay.dependencies import Dependencies


def guard_expression(inputs: list[Any], depends: Dependencies) -> tuple[str, dict[str, Any]]:
    """Write the test that arguments ``a0`` and so on are like those before, and that all else is as it was.

    Returns
    -------
    text, names : str, dict
        The test, and what the names in it stand for.
    """
    names: dict[str, Any] = {"kind": np.ndarray}
    tests = []
    for k, captured in enumerate(inputs):
        names |= {f"d{k}": captured.dtype, f"n{k}": captured.shape, f"e{k}": captured.strides}
        tests.append(f"type(a{k}) is kind and a{k}.dtype is d{k} and a{k}.shape == n{k}")
        single = any(n == 1 for n in captured.shape)  # along such an axis nobody strides
        long = [f"a{k}.strides[{j}] == {captured.strides[j]}" for j, n in enumerate(captured.shape) if n > 1]
        tests += long if single else [f"a{k}.strides == e{k}"]
    return " and ".join([*tests, *depends.tests]) or "True", names | depends.bound
