"""Batch normalization: each channel brought to mean 0 and variance 1 over a batch."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from microfw.autograd.op import Written
from microfw.autograd.tensor import Tensor
from microfw.errors import ShapeError
from microfw.nn.checks import as_layer_input, as_number, positive, wrong_shape
from microfw.nn.initializers import constant
from microfw.nn.normalization import Normalization
from microfw.ops.elementwise import subtract
from microfw.ops.normalization import normalize


class _BatchNorm(Normalization):
    running_mean: Tensor  # (C,)
    running_var: Tensor  # (C,)
    _shapes: ClassVar[dict[int, str]]

    def __init__(self, features: int, eps: float = 1e-5, momentum: float = 0.1, affine: bool = True) -> None:
        positive(type(self).__name__, features=features)
        self.features = int(features)
        self.momentum = as_number(momentum, lambda m: 0 <= m <= 1, type(self).__name__, "momentum from 0 to 1")
        super().__init__((self.features,), eps, affine)
        self.running_mean = Tensor(constant((self.features,), 0.0))
        self.running_var = Tensor(constant((self.features,), 1.0))

    def forward(self, x: Any) -> Tensor:
        """Normalise each channel."""
        # the dtype of the buffers, which a layer without weight has too
        x = as_layer_input(x, self.running_mean.dtype, self, self._check_shape)
        along = (self.features,) + (1,) * (x.ndim - 2)
        weight, bias = self._scale_and_shift(along)
        if not self.training:
            rstd = 1 / np.sqrt(self.running_var + self.eps)
            centred = subtract(x, self.running_mean.reshape(along))
            return centred * (weight * rstd.reshape(along)) + bias  # type: ignore[no-any-return]
        if x.size // self.features < 2:
            fix = "pass a larger batch, or call eval() to use the running statistics"
            raise ShapeError(self.where, "more than one value per channel in training", f"shape {x.shape}", fix)
        axes = (0, *range(2, x.ndim))
        running = Written((self.running_mean._array, self.running_var._array))
        made: Tensor = normalize(x, weight, bias, axes=axes, eps=self.eps, running=running, momentum=self.momentum)
        for buffer in (self.running_mean, self.running_var):
            buffer._leaf.version += 1  # type: ignore[union-attr]
        return made

    def _check_shape(self, x: Any) -> None:
        if x.ndim not in self._shapes or x.shape[1] != self.features:
            expected = " or ".join(s.replace("C", str(self.features)) for s in self._shapes.values())
            raise wrong_shape(self, expected, x, "pass that many channels on the second axis")

    def extra_repr(self) -> str:
        """Return the number of channels."""
        return f"{self.features}{super().extra_repr()}"


class BatchNorm1D(_BatchNorm):
    """Normalise each feature over a batch `(N, C)`, or each channel over sequences `(N, C, L)`.

    ``y = (x - mean) / sqrt(variance + eps) * weight + bias``, in training with the batch's own mean and
    variance, in evaluation with running averages of them.

    Parameters
    ----------
    features : int
        Length C of the second axis.
    eps : float
        Added to the variance.
    momentum : float
        How far a batch moves the running statistics, from 0 to 1: ``running += momentum * (batch - running)``.
    affine : bool
        Whether to learn ``weight`` and ``bias``; they start at 1 and 0.

    Attributes
    ----------
    running_mean, running_var : Tensor
        The averages, of shape (C,): buffers, which are saved with the parameters and not trained. The
        variance that is averaged is the unbiased one, divided by n - 1.

    Raises
    ------
    ArgumentError
        If a setting is out of range.
    ShapeError
        When called, if ``x`` has other axes, or, in training, a single value per channel, whose variance
        would be 0.

    Notes
    -----
    Source: Ioffe and Szegedy, "Batch Normalization", 2015, algorithms 1 and 2.

    Examples
    --------
    >>> import numpy as np
    >>> from microfw import nn
    >>> layer = nn.BatchNorm1D(2)
    >>> layer(np.array([[1.0, 10.0], [3.0, 30.0]])).numpy().round(3)
    array([[-1., -1.],
           [ 1.,  1.]], dtype=float32)
    >>> layer.running_mean
    tensor([0.2, 2. ], dtype=float32)
    """

    _shapes: ClassVar[dict[int, str]] = {2: "(N, C)", 3: "(N, C, L)"}


class BatchNorm2D(_BatchNorm):
    """Normalise each channel over a batch of images `(N, C, H, W)`; see `BatchNorm1D`.

    Parameters
    ----------
    features : int
        Number C of channels.
    eps, momentum, affine
        As for `BatchNorm1D`.
    """

    _shapes: ClassVar[dict[int, str]] = {4: "(N, C, H, W)"}
