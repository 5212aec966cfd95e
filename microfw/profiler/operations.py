"""Scalar operations of an op, counted while its value and its derivatives run on `Entries`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from microfw.autograd.backward import unbroadcast
from microfw.autograd.op import Cost, Op
from microfw.ops.elementwise.choices import where
from microfw.profiler.scalar_tape import TAPE, Array, Entries, Shape, Tape, as_entries, ids
from microfw.profiler.scalars import quiet


class Operations(Tape):
    """Tape that counts operations: all that run, also those whose result is not used.

    A comparison, a product or a function such as ``exp`` of one number is one operation, and so is each addition of a
    sum; a choice by ``np.where`` is none. A product of matrices takes a multiplication and an addition for each pair of
    entries; with a matrix of constants, which is a sum, only the additions.
    """

    def __init__(self) -> None:
        super().__init__(0)
        self.operations = self.products = 0

    def add(self, kind: str, depends: Array, nodes: Any, inputs: Sequence[Array], known: Any = 1.0) -> Entries:
        """Count a call."""
        n = inputs[0].shape[-1] if kind != "each" and inputs[0].ndim else 1
        if kind == "product" and all(x.any() for x in inputs):
            self.products += 2 * n * depends.size
            self.operations += 2 * n * depends.size
        else:
            self.operations += (n if kind == "each" else max(n - 1, 0)) * depends.size
        return super().add(kind, depends, nodes, inputs, known)

    def each(self, op: Any, arrays: Sequence[Any], known: Any = None) -> Entries:
        """Count an elementwise op."""
        before = self.operations
        y = super().each(op, arrays, known)
        if op is where.op:
            self.operations = before
        return y

    def constant(self, function: Callable[..., Any], args: Any, options: dict[str, Any]) -> Any:
        """Count comparisons, and what looks at all entries."""
        args = list(args)
        y = super().constant(function, args, options)
        owner = getattr(function, "__self__", None)
        reduced = function.__name__ == "reduce" or not isinstance(owner, np.ufunc)
        self.operations += max(np.size(args[0]) - np.size(y), 0) if reduced else np.size(y)
        return y

    def nodes(self, shape: Shape) -> Entries:
        """Return an array of new nodes."""
        made = self.numbered(self.size + 1, shape)
        self.size += made.size
        return made


def count_operations(op: Op, inputs: Sequence[Any], params: dict[str, Any]) -> Cost:
    """Count the operations of an op's value, and of each of its derivatives.

    Parameters
    ----------
    op : Op
        The op.
    inputs : sequence of array
        Inputs; of floats only the shapes are used.
    params : dict
        The op's parameters.

    Returns
    -------
    Cost
        As the op's cost rule would declare it; 0 for inputs without a derivative.

    Raises
    ------
    Exception
        If a function of the op does not run on `Entries`, for example because it calls LAPACK.

    Examples
    --------
    >>> import microfw as mf
    >>> count_operations(mf.ops.softmax.op, [np.ones((2, 4))], {"axis": 1})
    Cost(forward=36, derivatives=(30,), products_forward=0, products_derivatives=(0,))
    """
    tape = Operations()
    token = TAPE.set(tape)
    params = {name: quiet(value) for name, value in (op.params | params).items()}
    try:
        with np.errstate(all="ignore"):
            given = [np.asarray(x) for x in inputs]
            if not op.differentiable:
                given = [x.view(Entries) for x in given]  # else integers are indices, and only moved
            given = [tape.nodes(x.shape) if x.dtype.kind == "f" else x for x in given]
            made = op.value(*given, **params)
            y, *aux = made if op.aux else (made,)
            if not np.any(ids(y)) and np.size(y) and op.differentiable:
                raise ValueError("the value has no entries of the inputs")
            forward = tape.operations, tape.products
            shapes = [x.shape for x in given]
            known = params | dict(zip(op.inputs, given, strict=False)) | dict(zip(op.aux, aux, strict=True))
            known |= {"y": as_entries(y), "shapes": shapes}
            found = []
            for k, x in enumerate(given):
                tape.operations = tape.products = 0
                partial = op.partial(k)
                if partial is not None and x.dtype == np.float64:
                    own = known | {"shape": x.shape, "index": k}
                    g = tape.nodes(np.shape(y))
                    made = as_entries(partial.vjp(g, *(own[source] for source in partial.sources)))
                    if made.shape != x.shape and made.size:
                        unbroadcast(made, x.shape)  # the engine's sums count, too
                found.append((tape.operations, tape.products))
    finally:
        TAPE.reset(token)
    derivatives, products = zip(*found, strict=True) if found else ((), ())
    return Cost(forward[0], derivatives, forward[1], products)
