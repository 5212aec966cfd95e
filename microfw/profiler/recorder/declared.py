"""The declared cost of an op, checked: the profiler counts with it in every step, and writes the counts into files."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from microfw.autograd.op import Cost
from microfw.errors import ArgumentError

MAX_COST = 1 << 53
"""Costs are below this: a count of a profile is a sum of many."""


def declared_cost(op: Any, shape: Any, shapes: Any, params: dict[str, Any], needed: Iterable[int]) -> Cost:
    """Return what an op's cost rule gives for some shapes.

    Parameters
    ----------
    op : Op
        An op with a cost rule.
    shape, shapes : tuple, sequence of tuple
        Of the output and of the inputs.
    params : dict
        Keyword arguments of the op.
    needed : iterable of int
        Inputs whose derivatives run.

    Raises
    ------
    ArgumentError
        If the result is no `Cost`, a number is no whole number from 0, or one of a derivative is missing.
    """
    where, fix = f"the cost of {op.name}", "mf.testing.check_op checks an op"
    try:
        cost = op.cost(shape, *shapes, **params)
    except Exception as error:
        error.add_note(f"in {where}, called as cost({shape}, {', '.join(map(str, shapes))}) for the profiler; {fix}")
        raise
    if not isinstance(cost, Cost):
        raise ArgumentError(where, "a Cost", type(cost).__name__, fix)
    numbers = (cost.forward, *cost.derivatives, cost.products_forward, *cost.products_derivatives)
    if not all(0 <= n < MAX_COST and n == int(n) for n in numbers):
        raise ArgumentError(where, f"whole numbers from 0 to {MAX_COST - 1}", cost, fix)
    count = min(len(cost.derivatives), len(cost.products_derivatives or cost.derivatives))
    if missing := [k for k in needed if k >= count]:
        raise ArgumentError(where, f"a number for the derivative of input {missing[0]}", cost, fix)
    return cost
