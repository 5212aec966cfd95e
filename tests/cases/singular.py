"""The points where a derivative is not one number, or hard to compute: what it is here, in PyTorch and in JAX.

A row's function takes a module of functions of arrays as its first argument: NumPy, ``torch`` or ``jax.numpy``;
where their names differ it has one of its own for each.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from microfw.ops.elementwise import relu, sigmoid, softplus
from microfw.ops.loss import bce_with_logits, cross_entropy
from microfw.ops.reduction import log_softmax, logsumexp, softmax

INF, NAN = np.inf, np.nan


@dataclass(frozen=True)
class Point:
    """A point, with the value and the slope there; or the name of the error that is raised."""

    name: str
    function: Callable[..., Any]
    x: list[Any]
    value: Any
    slope: Any
    torch: Callable[..., Any] | bool | None = None
    jax: Callable[..., Any] | None = None
    note: str = ""


def like(x, values):
    """Return a constant array in the library and dtype of ``x``."""
    if type(x).__module__.startswith("torch"):
        return x.new_tensor(values)
    if type(x).__module__.startswith("jax"):
        import jax

        return jax.numpy.asarray(values, x.dtype)
    return np.asarray(values, x.dtype)


def entropy(label):
    return {
        "function": lambda xp, x: cross_entropy(x, np.array([label])),
        "torch": lambda torch, x: torch.nn.functional.cross_entropy(x, torch.tensor([label])),
        "jax": lambda jax, x: -jax.nn.log_softmax(x)[0, label],
    }


def bce(y):
    return {
        "function": lambda xp, x: bce_with_logits(x, like(x, [y])),
        "torch": lambda torch, x: torch.nn.functional.binary_cross_entropy_with_logits(
            x, like(x, [y]), reduction="none"
        ),
        "jax": lambda jax, x: jax.nn.relu(x) - x * y + jax.numpy.log1p(jax.numpy.exp(-abs(x))),
    }


def norm(order):
    return {
        "function": lambda xp, x: np.linalg.norm(x, order),
        "torch": lambda torch, x: torch.linalg.norm(x, order),
        "jax": lambda jax, x: jax.numpy.linalg.norm(x, order),
    }


def activation(own, name):
    return {
        "function": lambda xp, x: own(x),
        "torch": lambda torch, x: getattr(torch.nn.functional, name)(x),
        "jax": lambda jax, x: getattr(jax.nn, name)(x),
    }


def along(own, name):
    return {
        "function": lambda xp, x: own(x),
        "torch": lambda torch, x: getattr(torch, name)(x, 0),
        "jax": lambda jax, x: getattr(jax.nn, name)(x),
    }


def deviation(name, ddof):
    return {
        "function": lambda xp, x: getattr(np, name)(x, ddof=ddof),
        "torch": lambda torch, x: getattr(torch, name)(x, correction=ddof),
        "jax": lambda jax, x: getattr(jax.numpy, name)(x, ddof=ddof),
    }


TAIL = float(np.exp(-60.0))

GROUPS = {
    "Exponentials and losses": [
        Point("logsumexp of [1000, 1000]", x=[1000, 1000], value=1000 + np.log(2), slope=[0.5, 0.5], **along(logsumexp, "logsumexp")),
        Point("logsumexp of [-inf, -inf]", x=[-INF, -INF], value=-INF, slope=[0, 0], **along(logsumexp, "logsumexp")),
        Point("logsumexp of [inf, 0]", x=[INF, 0], value=INF, slope=[NAN, 0], note="IEEE value", **along(logsumexp, "logsumexp")),
        Point("logaddexp of -inf and -inf", lambda xp, x: xp.logaddexp(x, like(x, [-INF])), [-INF], [-INF], [0]),
        Point("softmax of [-inf, -inf]", x=[-INF, -INF], value=[NAN, NAN], slope=[NAN, NAN], note="IEEE value", **along(softmax, "softmax")),
        Point("cross-entropy of [1e4, -1e4], the second right", x=[[1e4, -1e4]], value=2e4, slope=[[1, -1]], **entropy(1)),
        Point("cross-entropy of [inf, 0], the first right", x=[[INF, 0]], value=NAN, slope=[[NAN, NAN]], note="IEEE value", **entropy(0)),
        Point("cross-entropy of [-inf, 0], the second right", x=[[-INF, 0]], value=0, slope=[[0, 0]], **entropy(1)),
        Point("log(softmax(x))[1] at [1e4, 0]", lambda xp, x: np.log(softmax(x))[1], [1e4, 0], -INF, [NAN, NAN],
              torch=lambda torch, x: torch.log(torch.softmax(x, 0))[1], jax=lambda jax, x: jax.numpy.log(jax.nn.softmax(x))[1],
              note="IEEE value; use `log_softmax`"),
        Point("log_softmax(x)[1] at [1e4, 0]", lambda xp, x: log_softmax(x)[1], [1e4, 0], -1e4, [-1, 1],
              torch=lambda torch, x: torch.log_softmax(x, 0)[1], jax=lambda jax, x: jax.nn.log_softmax(x)[1]),
        Point("binary cross-entropy of the logit 1e4 for no", x=[1e4], value=[1e4], slope=[1], **bce(0.0)),
        Point("binary cross-entropy of the logit inf for yes", x=[INF], value=[0], slope=[0], **bce(1.0)),
        Point("exp at 1000", lambda xp, x: xp.exp(x), [1000], [INF], [INF], note="IEEE value"),
        Point("sigmoid at 60 and 1000", x=[60, 1000, -1000], value=[1, 1, 0], slope=[TAIL, 0, 0], **activation(sigmoid, "sigmoid")),
        Point("tanh at 30 and 1000", lambda xp, x: xp.tanh(x), [30, 1000, -1000], [1, 1, -1], [4 * TAIL, 0, 0]),
        Point("softplus at 1000 and -1000", x=[1000, -1000], value=[1000, 0], slope=[1, 0], **activation(softplus, "softplus")),
    ],
    "Roots, logarithms and inverse functions": [
        Point("sqrt at 0", lambda xp, x: xp.sqrt(x), [0], [0], [INF], note="IEEE value"),
        Point("cbrt at 0", lambda xp, x: xp.cbrt(x), [0], [0], [INF], torch=False, note="IEEE value"),
        Point("log at 0 and -1", lambda xp, x: xp.log(x), [0, -1], [-INF, NAN], [INF, NAN], note="a slope where there is no value is NaN"),
        Point("log2 at 0 and -1", lambda xp, x: xp.log2(x), [0, -1], [-INF, NAN], [INF, NAN]),
        Point("log10 at 0 and -1", lambda xp, x: xp.log10(x), [0, -1], [-INF, NAN], [INF, NAN]),
        Point("log1p at -1 and -2", lambda xp, x: xp.log1p(x), [-1, -2], [-INF, NAN], [INF, NAN]),
        Point("arcsin at 1, -1 and 2", lambda xp, x: xp.arcsin(x), [1, -1, 2], [np.pi / 2, -np.pi / 2, NAN], [INF, INF, NAN]),
        Point("arccos at 1, -1 and 2", lambda xp, x: xp.arccos(x), [1, -1, 2], [0, np.pi, NAN], [-INF, -INF, NAN]),
        Point("arccosh at 1, 0 and -2", lambda xp, x: xp.arccosh(x), [1, 0, -2], [0, NAN, NAN], [INF, NAN, NAN]),
        Point("arctanh at 1, -1 and 2", lambda xp, x: xp.arctanh(x), [1, -1, 2], [INF, -INF, NAN], [INF, INF, NAN]),
        Point("arctan2(x, 0) at 0", lambda xp, x: xp.arctan2(x, like(x, [0])), [0], [0], [NAN], note="IEEE value"),
    ],
    "Powers and quotients": [
        Point("x ** 0.0 at 0", lambda xp, x: x**0.0, [0], [1], [0]),
        Point("x ** 0.5 at 0", lambda xp, x: x**0.5, [0], [0], [INF], note="IEEE value"),
        Point("x ** -1 at 0", lambda xp, x: x**-1, [0], [INF], [-INF], note="IEEE value"),
        Point("0 ** x at 2 and 0", lambda xp, x: like(x, [0, 0]) ** x, [2, 0], [0, 1], [0, 0]),
        Point("(-2) ** x at 2", lambda xp, x: like(x, [-2]) ** x, [2], [4], [NAN], note="IEEE value"),
        Point("1 / x at 0", lambda xp, x: 1 / x, [0], [INF], [-INF], note="IEEE value"),
        Point("x / x at 0", lambda xp, x: x / x, [0], [NAN], [NAN], note="IEEE value"),
        Point("remainder(x, 2) at 4", lambda xp, x: xp.remainder(x, like(x, [2])), [4], [0], [1]),
        Point("remainder(4, x) at 2", lambda xp, x: xp.remainder(like(x, [4]), x), [2], [0], [-2]),
    ],
    "Choices and steps": [
        Point("where(x != 0, 1 / x, 0) at 0", lambda xp, x: xp.where(x != 0, 1 / x, like(x, [0])), [0], [0], [NAN],
              note="IEEE value; see below"),
        Point("where(x != 0, 1 / where(x != 0, x, 1), 0) at 0",
              lambda xp, x: xp.where(x != 0, 1 / xp.where(x != 0, x, like(x, [1])), like(x, [0])), [0], [0], [0]),
        Point("max of [3, 3, 1]", lambda xp, x: xp.max(x), [3, 3, 1], 3, [0.5, 0.5, 0]),
        Point("max along an axis of [3, 3, 1]", lambda xp, x: np.max(x, axis=0), [3, 3, 1], 3, [0.5, 0.5, 0],
              torch=lambda torch, x: torch.max(x, 0)[0], jax=lambda jax, x: jax.numpy.max(x, axis=0)),
        Point("min of [3, 1, 1]", lambda xp, x: xp.min(x), [3, 1, 1], 1, [0, 0.5, 0.5]),
        Point("max of [nan, 1]", lambda xp, x: xp.max(x), [NAN, 1], NAN, [NAN, NAN], note="IEEE value"),
        Point("maximum(x, 0) at 0 and NaN", lambda xp, x: xp.maximum(x, like(x, [0, 0])), [0, NAN], [0, NAN], [0.5, 0]),
        Point("minimum(x, 0) at 0 and NaN", lambda xp, x: xp.minimum(x, like(x, [0, 0])), [0, NAN], [0, NAN], [0.5, 0]),
        Point("relu at 0, -0 and NaN", x=[0, -0.0, NAN], value=[0, 0, NAN], slope=[0, 0, 0], **activation(relu, "relu")),
        Point("abs at 0 and -0", lambda xp, x: xp.abs(x), [0, -0.0], [0, 0], [0, 0]),
        Point("clip to [-1, 1] at -1, 1, 2 and NaN", lambda xp, x: xp.clip(x, -1, 1), [-1, 1, 2, NAN], [-1, 1, 1, NAN], [1, 1, 0, 0], note="PyTorch to 2.13: as here"),
        Point("sign at 0", lambda xp, x: xp.sign(x), [0], [0], [0]),
        Point("floor at 1", lambda xp, x: xp.floor(x), [1], [1], [0]),
        Point("round at 0.5 and 1.5", lambda xp, x: xp.round(x), [0.5, 1.5], [0, 2], [0, 0]),
    ],
    "Reductions": [
        Point("2-norm of [0, 0]", x=[0, 0], value=0, slope=[0, 0], **norm(2)),
        Point("1-norm of [0, 0]", x=[0, 0], value=0, slope=[0, 0], **norm(1)),
        Point("largest-entry norm of [0, 0]", x=[0, 0], value=0, slope=[0, 0], **norm(INF)),
        Point("largest-entry norm of [3, -3, 1]", x=[3, -3, 1], value=3, slope=[0.5, -0.5, 0], **norm(INF)),
        Point("hypot(x, 0) at 0", lambda xp, x: xp.hypot(x, like(x, [0])), [0], [0], [0]),
        Point("sqrt(sum(x * x)) at [0, 0]", lambda xp, x: xp.sqrt((x * x).sum()), [0, 0], 0, [NAN, NAN], note="IEEE value; use `norm`"),
        Point("std of [0.1, 0.1, 0.1]", x=[0.1, 0.1, 0.1], value=0, slope=[0, 0, 0], **deviation("std", 0)),
        Point("var, ddof=1, of one entry", x=[2], value="ShapeError", slope=None, **deviation("var", 1)),
        Point("var of 1e6 + {0, 1, 2}", x=[1e6, 1e6 + 1, 1e6 + 2], value=2 / 3, slope=[-2 / 3, 0, 2 / 3], **deviation("var", 0)),
        Point("mean of nothing", lambda xp, x: xp.mean(x), [], "ShapeError", None),
        Point("prod of [2, 0, 3]", lambda xp, x: xp.prod(x), [2, 0, 3], 0, [0, 6, 0]),
        Point("prod of [0, 0, 3]", lambda xp, x: xp.prod(x), [0, 0, 3], 0, [0, 0, 0]),
        Point("cumprod of [2, 0, 3]", lambda xp, x: xp.cumprod(x, 0), [2, 0, 3], [2, 0, 0], [1, 8, 0]),
    ],
}  # fmt: skip

SECOND = {
    "logsumexp of [1000, 1000]": [0.25, 0.25],
    "logsumexp of [-inf, -inf]": [NAN, NAN],
    "logsumexp of [inf, 0]": [NAN, NAN],
    "logaddexp of -inf and -inf": [NAN],
    "softmax of [-inf, -inf]": [NAN, NAN],
    "cross-entropy of [1e4, -1e4], the second right": [0, 0],
    "cross-entropy of [inf, 0], the first right": [NAN, NAN],
    "cross-entropy of [-inf, 0], the second right": [0, 0],
    "log(softmax(x))[1] at [1e4, 0]": [NAN, NAN],
    "log_softmax(x)[1] at [1e4, 0]": [0, 0],
    "binary cross-entropy of the logit 1e4 for no": [0],
    "binary cross-entropy of the logit inf for yes": [0],
    "exp at 1000": [INF],
    "sigmoid at 60 and 1000": [-TAIL, 0, 0],
    "tanh at 30 and 1000": [-8 * TAIL, 0, 0],
    "softplus at 1000 and -1000": [0, 0],
    "sqrt at 0": [-INF],
    "cbrt at 0": [NAN],
    "log at 0 and -1": [-INF, NAN],
    "log2 at 0 and -1": [-INF, NAN],
    "log10 at 0 and -1": [-INF, NAN],
    "log1p at -1 and -2": [-INF, NAN],
    "arcsin at 1, -1 and 2": [NAN, NAN, NAN],
    "arccos at 1, -1 and 2": [NAN, NAN, NAN],
    "arccosh at 1, 0 and -2": [NAN, NAN, NAN],
    "arctanh at 1, -1 and 2": [NAN, NAN, NAN],
    "arctan2(x, 0) at 0": [NAN],
    "x ** 0.0 at 0": [0],
    "x ** 0.5 at 0": [-INF],
    "x ** -1 at 0": [INF],
    "0 ** x at 2 and 0": [0, NAN],
    "(-2) ** x at 2": [NAN],
    "1 / x at 0": [INF],
    "x / x at 0": [NAN],
    "remainder(x, 2) at 4": [0],
    "remainder(4, x) at 2": [0],
    "where(x != 0, 1 / x, 0) at 0": [NAN],
    "where(x != 0, 1 / where(x != 0, x, 1), 0) at 0": [0],
    "max of [3, 3, 1]": [0, 0, 0],
    "max along an axis of [3, 3, 1]": [0, 0, 0],
    "min of [3, 1, 1]": [0, 0, 0],
    "max of [nan, 1]": [NAN, NAN],
    "maximum(x, 0) at 0 and NaN": [0, 0],
    "minimum(x, 0) at 0 and NaN": [0, 0],
    "relu at 0, -0 and NaN": [0, 0, 0],
    "abs at 0 and -0": [0, 0],
    "clip to [-1, 1] at -1, 1, 2 and NaN": [0, 0, 0, 0],
    "sign at 0": [0],
    "floor at 1": [0],
    "round at 0.5 and 1.5": [0, 0],
    "2-norm of [0, 0]": [NAN, NAN],
    "1-norm of [0, 0]": [0, 0],
    "largest-entry norm of [0, 0]": [0, 0],
    "largest-entry norm of [3, -3, 1]": [0, 0, 0],
    "hypot(x, 0) at 0": [NAN],
    "sqrt(sum(x * x)) at [0, 0]": [NAN, NAN],
    "std of [0.1, 0.1, 0.1]": [NAN, NAN, NAN],
    "var of 1e6 + {0, 1, 2}": [4 / 9, 4 / 9, 4 / 9],
    "prod of [2, 0, 3]": [0, 0, 0],
    "prod of [0, 0, 3]": [0, 0, 0],
    "cumprod of [2, 0, 3]": [0, 0, 0],
}
"""The second derivatives of the sum of a point's results, by each entry: the diagonal of the Hessian."""
