"""What a compiled step takes and returns: its arguments as arrays and as Tensors, and what its function returned."""

from __future__ import annotations

from typing import Any

import numpy as np

from microfw.autograd._tensor_base import refuse_masked
from microfw.autograd.graph import Node
from microfw.autograd.tensor import Tensor
from microfw.errors import ArgumentError, DTypeError, GraphError
from microfw.replay.trace import Array


def array_of(x: Any, dtype: Any) -> Array:
    """Return an argument of a step as an array; floats in a dtype.

    Raises
    ------
    DTypeError
        If the argument is no array of numbers.
    GraphError
        If the argument needs a gradient.
    """
    array: Array = x if type(x) is np.ndarray else _converted(x)
    if array.dtype.kind == "f" and array.dtype != dtype:
        array = array.astype(dtype)
    if array.dtype.kind not in "fiub":
        raise DTypeError("compiled step", "arrays of numbers", array.dtype)
    return array if array.flags.c_contiguous else array.copy("K")


def _converted(x: Any) -> Array:
    if not isinstance(x, Tensor):
        refuse_masked(x, "compiled step")
        return np.asarray(x)
    if x._node is not None:
        fix = "compute it in the function, let the function name a parameter, or pass x.detach()"
        raise GraphError("compiled step", "arguments that need no gradient", "one whose gradient would be lost", fix)
    return x._array


def constant(array: Array) -> Tensor:
    """Return an argument of a step's function: a Tensor with a read-only array."""
    tensor = Tensor(array)
    tensor._array.setflags(write=False)  # data, not a parameter
    return tensor


def returned_tensors(returned: Any) -> tuple[Tensor, ...]:
    """Return the Tensors that a step's function returned, the loss first.

    Raises
    ------
    ArgumentError
        If the function returned something else.
    GraphError
        If the function ran the backward pass of the loss.
    """
    tensors = returned if isinstance(returned, tuple) else (returned,)
    for tensor in tensors or (returned,):
        if not isinstance(tensor, Tensor):
            expected = "the function to return the loss, or a tuple of Tensors with the loss first"
            raise ArgumentError("compiled step", expected, f"{type(tensor).__name__}")
    node = tensors[0]._node
    if isinstance(node, Node) and node.parents is None:
        fix = "leave zero_grad, backward and the optimizer's step to the compiled step"
        raise GraphError("compiled step", "a loss with its graph", "one whose graph backward has freed", fix)
    return tensors
