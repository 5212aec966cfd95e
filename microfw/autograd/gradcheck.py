"""Checks of derivatives against differences."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from microfw.autograd.functional import jvp, vjp
from microfw.autograd.mode import no_grad
from microfw.autograd.pytree import as_arrays, flatten
from microfw.autograd.tensor import Tensor
from microfw.errors import ArgumentError, DTypeError, GradientError


def gradcheck(
    f: Callable[..., Any], *args: Any, rtol: float = 1e-6, step: float = 1e-5, projections: int = 3, rng: Any = 0
) -> float:
    """Compare ``f``'s derivatives with central differences along random directions.

    For each of some random directions ``v`` in the arguments and ``u`` in the outputs it compares
    ``u . J v`` from the backward pass, from forward mode, and from a four-point central difference.

    Parameters
    ----------
    f : callable
        Of float64 arrays or nested containers of them; returns Tensors.
    *args
        Where to check: away from kinks.
    rtol : float
        Largest relative error to allow.
    step : float
        Step of the differences, relative to the direction, whose entries are about 1.
    projections : int
        How many pairs of directions.
    rng : int or numpy.random.Generator
        Where they come from.

    Returns
    -------
    float
        The largest relative error seen.

    Raises
    ------
    GradientError
        If an error is larger: says in which argument, and by how much.
    DTypeError
        If an argument is not float64.

    Examples
    --------
    >>> import numpy as np, microfw as mf
    >>> mf.gradcheck(lambda x: np.sum(np.tanh(x)), np.array([0.1, 0.2])) < 1e-6
    True
    """
    with no_grad():
        return _check("gradcheck", f, args, rtol, step, projections, rng)


def gradgradcheck(
    f: Callable[..., Any], *args: Any, rtol: float = 1e-6, step: float = 1e-5, projections: int = 3, rng: Any = 0
) -> float:
    """Compare ``f``'s second derivatives with central differences of its first ones.

    Applies `gradcheck` to the function that maps ``args`` and an output gradient to the gradient with respect to
    ``args``, so derivatives with respect to both are checked.

    Parameters
    ----------
    f, *args, rtol, step, projections, rng
        As for `gradcheck`.

    Returns
    -------
    float
        The largest relative error seen.

    Raises
    ------
    GradientError
        If an error is larger. The argument after the last of ``args`` is the gradient with respect to the output.
    DTypeError
        If an argument is not float64.

    Examples
    --------
    >>> import numpy as np, microfw as mf
    >>> mf.gradgradcheck(np.tanh, np.array([0.1, 0.2])) < 1e-6
    True
    """
    rng = np.random.default_rng(rng)
    with no_grad():
        outputs, rebuild = flatten(vjp(f, *args)[0])
    gradient = rebuild([rng.standard_normal(np.shape(y)) for y in outputs])

    def slopes(*args_and_gradient: Any) -> Any:
        *inner, g = args_and_gradient
        return vjp(f, *inner)[1](g)

    with no_grad():
        return _check("gradgradcheck", slopes, (*args, gradient), rtol, step, projections, rng)


def _check(where: str, f: Callable[..., Any], args: Any, rtol: float, step: float, projections: int, rng: Any) -> float:
    if not projections >= 1:
        raise ArgumentError(f"{where}: expected projections to be at least 1, got {projections}")
    rng = np.random.default_rng(rng)
    leaves, rebuild = flatten([as_arrays(a) for a in args])
    arrays = [np.asarray(a.data if isinstance(a, Tensor) else a) for a in leaves]
    for k, a in enumerate(arrays):
        if a.dtype != np.float64:
            raise DTypeError(f"{where}: expected argument {k} to be float64, got {a.dtype}; cast it with .astype")
    value, vjp_fn = vjp(f, *rebuild(arrays))
    outputs, rebuild_output = flatten(value)
    worst = 0.0
    for _ in range(projections):
        u = [rng.standard_normal(np.shape(y)) for y in outputs]
        gradients = flatten(list(vjp_fn(rebuild_output(u))))[0]
        for k in range(len(arrays)):
            v = [rng.standard_normal(a.shape) * (j == k) for j, a in enumerate(arrays)]

            def along(h: float, v: list[Any] = v, u: list[Any] = u) -> float:
                y = f(*rebuild([Tensor(a + h * d) for a, d in zip(arrays, v, strict=True)]))
                return sum(float(np.sum(np.asarray(t) * w)) for t, w in zip(flatten(y)[0], u, strict=True))

            slope = (8 * (along(step) - along(-step)) - (along(2 * step) - along(-2 * step))) / (12 * step)
            backward = float(np.sum(gradients[k] * v[k]))
            pushed = flatten(jvp(f, rebuild(arrays), rebuild(v))[1])[0]
            forward = sum(float(np.sum(t * w)) for t, w in zip(pushed, u, strict=True))
            size = max(1.0, abs(slope), float(np.abs(gradients[k] * v[k]).sum()))
            for name, got in (("backward", backward), ("forward mode", forward)):
                error = abs(got - slope) / size
                worst = max(worst, error)
                if not error <= rtol:
                    raise GradientError(
                        f"{where}: argument {k}: expected the {name} derivative to be {slope:.10g} as central "
                        f"differences give, got {got:.10g}, a relative error of {error:.1e}"
                    )
    return worst
