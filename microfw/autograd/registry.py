"""The ops, by name and by the NumPy function that each implements."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from microfw.autograd.types import Op

OPS: dict[str, Op] = {}
"""Every op by name, in order of declaration."""

NUMPY: dict[Callable[..., Any], Callable[..., Any]] = {}
"""The op that implements a NumPy function when it is called on a Tensor."""
