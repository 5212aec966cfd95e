"""Whole Jacobians and Hessians, and products with a Hessian."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

import numpy as np

from microfw import ops
from microfw.autograd.functional import LinearizedCall, grad
from microfw.autograd.tangents import check_tangents, read_argnums, require_sequence
from microfw.autograd.tensor import Tensor
from microfw.errors import ArgumentError

Mode = Literal["auto", "forward", "reverse"]


def jacobian(f: Callable[..., Any], argnums: int | Sequence[int] = 0, mode: Mode = "auto") -> Callable[..., Any]:
    """Return a function that computes the Jacobian of ``f``: each entry of its output by each of its arguments.

    ``J[i, j] = d f(x)[i] / d x[j]``, of shape ``f(x).shape + x.shape``.

    Parameters
    ----------
    f : callable
        Returns Tensors, also nested.
    argnums : int or sequence of int
        What to differentiate by, as for `grad`: arrays, nested containers of arrays, Modules.
    mode : {"auto", "forward", "reverse"}
        ``f`` runs once. Then "forward" carries a tangent through its graph for each entry of the arguments,
        "reverse" a gradient for each entry of the output; the cost of one is about the same. "auto" takes
        the fewer, but "reverse" if ``f`` registers hooks on gradients, since "forward" calls none.

    Returns
    -------
    callable
        With the arguments of ``f``, keywords as constants; returns an array for each pair of an output and an
        argument, nested like the output, and in each place of it like the arguments. Inside another derivative,
        Tensors.

    Raises
    ------
    ArgumentError
        If the mode is not one of the three.
    GraphError
        If ``f`` does not return Tensors.

    Examples
    --------
    >>> import numpy as np, microfw as mf
    >>> mf.jacobian(lambda x: x[::-1] * x[0])([2.0, 3.0])
    array([[3., 2.],
           [4., 0.]])
    """
    if mode not in ("auto", "forward", "reverse"):
        raise ArgumentError("jacobian", "mode to be 'auto', 'forward' or 'reverse'", repr(mode))
    positions, single = read_argnums(argnums, "jacobian")

    def call(*args: Any, **constants: Any) -> Any:
        linearized = LinearizedCall(functools.partial(f, **constants), args, positions, "jacobian")
        fewer = sum(x.size for x in linearized.variables) < sum(y.size for y in linearized.outputs)
        forward = mode == "forward" or (mode == "auto" and fewer and not linearized.hooked)
        rows = [linearized.rebuild(row) for row in _blocks(linearized, forward)]
        return linearized.rebuild_output([row[0] if single else tuple(row) for row in rows])

    return call


def _units(tensors: Sequence[Tensor]) -> Iterator[tuple[int, list[Any]]]:
    """Yield ``(k, seeds)`` for each entry of each Tensor: ``seeds[k]`` is 1 at the entry and 0 elsewhere."""
    for k, t in enumerate(tensors):
        for index in np.ndindex(t.shape):
            unit = np.zeros(t.shape, t.dtype)
            unit[index] = 1
            yield k, [unit if j == k else None for j in range(len(tensors))]


def _blocks(linearized: LinearizedCall, forward: bool) -> list[list[Any]]:
    """Return the blocks of a Jacobian, from a column of it at a time if ``forward``, else from a row at a time."""
    inputs, outputs = linearized.variables, linearized.outputs
    sources, run = (inputs, linearized.jvp) if forward else (outputs, linearized.vjp)
    found: list[list[Any]] = [[] for _ in sources]
    for k, seeds in _units(sources):
        found[k].append(run(seeds))

    def block(i: int, y: Tensor, j: int, x: Tensor) -> Any:
        if forward:
            return _stack([column[i] for column in found[j]], y).T
        return _stack([row[j] for row in found[i]], x)

    return [[block(i, y, j, x).reshape(y.shape + x.shape) for j, x in enumerate(inputs)] for i, y in enumerate(outputs)]


def _stack(parts: list[Any], like: Tensor) -> Any:
    """Return arrays, or Tensors, of one shape as the rows of a matrix."""
    if parts and isinstance(parts[0], Tensor):
        return ops.concatenate(*(p.reshape((1, p.size)) for p in parts), axis=0)
    return np.array(parts, like.dtype).reshape(len(parts), like.size)


def hessian(f: Callable[..., Any], argnums: int | Sequence[int] = 0) -> Callable[..., Any]:
    """Return a function that computes the Hessian of ``f``, the second derivatives of its one scalar output.

    ``H[i, j] = d² f(x) / d x[i] d x[j]``, of shape ``x.shape + x.shape``.

    Parameters
    ----------
    f : callable
        Returns one scalar Tensor.
    argnums : int or sequence of int
        What to differentiate by, as for `grad`: arrays, nested containers of arrays, Modules.

    Returns
    -------
    callable
        With the arguments of ``f``; returns an array for each pair of arguments, nested like the arguments,
        and in each place of them like the arguments again.

    Raises
    ------
    GraphError
        If ``f`` does not return one scalar Tensor.

    Notes
    -----
    The Hessian is the Jacobian of the gradient. The graph of the gradient is recorded once, and one backward pass
    runs through it for each entry of the arguments. For the product with a few directions, use `hvp`.

    Examples
    --------
    >>> import numpy as np, microfw as mf
    >>> mf.hessian(lambda x: x[0] ** 2 * x[1])([1.0, 3.0])
    array([[6., 2.],
           [2., 0.]])
    """
    # reverse over reverse takes up to a third less time than forward over reverse
    return jacobian(grad(f, argnums), argnums, "reverse")


def hvp(f: Callable[..., Any], args: Sequence[Any], directions: Sequence[Any]) -> tuple[Any, ...]:
    """Compute the product of the Hessian of ``f`` and a direction, without the Hessian.

    ``H v``, at the cost of about three gradients for any number of entries.

    Parameters
    ----------
    f : callable
        Returns one scalar Tensor.
    args : sequence
        Where to compute it: arrays, nested containers of arrays, Modules.
    directions : sequence
        The direction, nested like ``args``; dicts and Modules by name.

    Returns
    -------
    tuple
        One product for each argument, nested like it.

    Raises
    ------
    GraphError
        If ``f`` does not return one scalar Tensor.
    ShapeError
        If a direction does not have its argument's shape or names.

    Notes
    -----
    One backward pass with seed ``v`` runs through the graph of the gradient: reverse over reverse. A Hessian is
    symmetric, so the result is ``H v``, as with forward over reverse, in no more time.

    Examples
    --------
    >>> import numpy as np, microfw as mf
    >>> mf.hvp(lambda x: np.sum(x**3), ([1.0, 2.0],), ([1.0, 1.0],))
    (array([ 6., 12.]),)
    """
    require_sequence("hvp", args=args, directions=directions)
    positions = range(len(args))
    linearized = LinearizedCall(grad(f, tuple(positions)), tuple(args), positions, "hvp")
    seeds = check_tangents(directions, linearized.arguments, linearized.variables, "hvp", "argument")
    return tuple(linearized.rebuild(linearized.vjp(seeds)))
