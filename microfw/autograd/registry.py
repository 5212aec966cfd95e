"""What ops there are: by name, and by the function of NumPy that each stands for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from microfw.autograd.types import Op

OPS: dict[str, Op] = {}
"""Every op by name, in order of declaration."""

NUMPY: dict[Callable[..., Any], Callable[..., Any]] = {}
"""The op that NumPy's function stands for when it is called on a Tensor."""
