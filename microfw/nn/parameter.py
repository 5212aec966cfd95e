"""Parameter: a Tensor that a Module trains."""

from __future__ import annotations

from typing import Any

import numpy as np

from microfw.autograd._tensor_base import warn_of_detaching
from microfw.autograd.tensor import Tensor, values_of
from microfw.errors import DTypeError


class Parameter(Tensor):
    """A Tensor that a Module trains.

    Parameters
    ----------
    data : array_like
        The initial values; copied. Floats become float32 unless a dtype is given.
    dtype : dtype
        float32 or float64.

    Examples
    --------
    >>> from microfw import nn
    >>> nn.Parameter([0.0, 1.0])
    Parameter([0., 1.], dtype=float32, requires_grad=True)
    """

    __slots__ = ()

    def __init__(self, data: Any, dtype: Any = np.float32) -> None:
        if isinstance(data, Tensor) and data._node is not None and data._leaf is None:
            warn_of_detaching("making a Parameter of the result of an op", "t.detach()")
        if (array := np.asarray(values_of(data))).dtype.kind not in "fiub":
            raise DTypeError("Parameter", "real numbers", f"{type(data).__name__} of dtype {array.dtype}")
        super().__init__(array.astype(dtype, copy=False), requires_grad=True)

    def __repr__(self) -> str:
        return "Parameter" + super().__repr__().removeprefix("tensor")
