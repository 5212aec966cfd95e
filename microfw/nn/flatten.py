"""Flatten: all axes but the first become one."""

from __future__ import annotations

from typing import Any

import numpy as np

from microfw.nn.module import Module
from microfw.tensor import Tensor


class Flatten(Module):
    """Turn ``(N, ...)`` into ``(N, features)``."""

    def forward(self, x: Any) -> Tensor:
        """Flatten all axes but the first."""
        return np.reshape(x, (len(x), int(np.prod(x.shape[1:]))))  # type: ignore[return-value]
