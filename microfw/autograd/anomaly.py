"""Finds the op that first gives NaN or infinity, in its value or in a gradient, as an observer."""

from __future__ import annotations

import contextlib
import linecache
import sys
from collections.abc import Iterator
from os.path import dirname
from typing import Any

import numpy as np

from microfw.autograd.graph import Node
from microfw.autograd.mode import MODE, mode
from microfw.autograd.observer import Observer
from microfw.autograd.scope import THREAD_SCOPE, location
from microfw.autograd.tensor import Tensor
from microfw.errors import NonFiniteError

Place = tuple[str, int]
"""A file and a line."""

PACKAGE = dirname(dirname(__file__))
SKIPPED_FILES = (PACKAGE, dirname(np.__file__), "<op ", "<__array_function__", contextlib.__file__)
"""Prefixes of the names of files whose lines are not the user's."""

# Ops whose source lines are kept, at least; twice as many at most.
MAX_PLACES = 1 << 16


class NonFiniteDetector(Observer):
    """An observer that looks at every value and gradient, and remembers the first that is not finite.

    Parameters
    ----------
    observer : Observer, optional
        Another observer that is notified of everything, first.
    nan, inf : bool
        What to look for.
    raises : bool
        Whether to stop there with an error; places of ops are noted only then.

    Attributes
    ----------
    where : str
        The op of the first one, with its layer; empty as long as all is well.
    """

    wants_grad_inputs = True

    def __init__(
        self, observer: Observer | None = None, nan: bool = True, inf: bool = True, raises: bool = False
    ) -> None:
        self.observer = observer
        self.nan = nan
        self.inf = inf
        self.raises = raises
        self.where = ""
        self.places: dict[int, Place] = {}
        self.older: dict[int, Place] = {}

    def alongside(self, observer: Observer) -> NonFiniteDetector:
        """Return a NonFiniteDetector that notifies another observer too, and shares what this one has noted."""
        other = NonFiniteDetector(observer, self.nan, self.inf, self.raises)
        other.places, other.older = self.places, self.older
        return other

    def forward(
        self, op: Any, node: Node | None, inputs: Any, params: dict[str, Any], output: Any, start_ns: int
    ) -> None:
        """Look at an output."""
        if self.observer is not None and self.observer.enabled:
            self.observer.forward(op, node, inputs, params, output, start_ns)
        if self.raises and node is not None:
            self.places[int(node.order)] = user_line()
            if len(self.places) > MAX_PLACES:
                self.older, self.places = self.places, {}
        if (self.where and not self.raises) or not self.bad(output):
            return
        self.where = location(THREAD_SCOPE.scope, op.name)
        if self.raises:
            names = op.inputs if not op.variadic else [f"{op.inputs[0]}[{k}]" for k in range(len(inputs))]
            values = ", ".join(f"{name} {self.describe(x)}" for name, x in zip(names, inputs, strict=True))
            raise NonFiniteError(
                f"{self.where}: expected {self.wanted}, got {self.bad(output)} in the value of shape {output.shape}; "
                f"the inputs: {values}; computed at {format_line(user_line())}"
            )

    def before_backward(self, loss: Any, retain: bool = False) -> None:
        """Notify the other observer."""
        if self.observer is not None and self.observer.enabled:
            self.observer.before_backward(loss, retain)

    def after_backward(self, loss: Any, retain: bool = False) -> None:
        """Notify the other observer."""
        if self.observer is not None and self.observer.enabled:
            self.observer.after_backward(loss, retain)

    def backward(self, node: Node, gradient: Any, grad_inputs: list[Any] | None, start_ns: int) -> None:
        """Look at the gradients of a node's inputs."""
        grad_inputs = grad_inputs or []
        if self.observer is not None and self.observer.enabled:
            self.observer.backward(node, gradient, grad_inputs, start_ns)
        if (self.where and not self.raises) or not any(map(self.bad, (gradient, *grad_inputs))):
            return
        self.where = f"the derivative of {node.where}"
        if self.raises:
            got = ", ".join(f"{self.bad(s)} in one of shape {s.shape}" for s in grad_inputs if self.bad(s))
            what = "gradients with respect to its inputs" if got else "a gradient to start from"
            at = self.places.get(int(node.order)) or self.older.get(int(node.order))
            raise NonFiniteError(
                f"{self.where}: expected {self.wanted} as {what}, got {got or self.bad(gradient)}; "
                f"the gradient that came in: {self.describe(gradient)}; its value was computed at {format_line(at)}"
            )

    @property
    def wanted(self) -> str:
        """Return what is expected: the opposite of what is searched for."""
        return "finite numbers" if self.nan and self.inf else "no NaN" if self.nan else "no infinity"

    def bad(self, x: Any) -> str:
        """Name what is wrong with an array, and the place of the first such entry; nothing if all is well."""
        x = np.asarray(x.data if isinstance(x, Tensor) else x)
        if x.dtype.kind != "f" or np.isfinite(x).all():
            return ""
        wrong = np.isnan(x) & self.nan | np.isinf(x) & self.inf
        if not wrong.any():
            return ""
        index = tuple(int(k) for k in np.argwhere(wrong)[0])
        return f"{x[index]} at {list(index)}" if index else f"{x[index]}"

    def describe(self, x: Any) -> str:
        """Say whether an input was already bad."""
        bad = self.bad(x)
        return f"already held {bad}" if bad else "finite"


def user_line() -> Place:
    """Return the line of the user's code that runs: the innermost one outside of this package."""
    frame = sys._getframe(1)
    while frame.f_code.co_filename.startswith(SKIPPED_FILES) and frame.f_back is not None:
        frame = frame.f_back
    return frame.f_code.co_filename, frame.f_lineno


def format_line(at: Place | None) -> str:
    """Return a place with its text."""
    if at is None:
        return "an unknown line, before detect_anomaly"
    text = linecache.getline(*at).strip()
    return f"{at[0]}:{at[1]}" + (f": {text}" if text else "")


@contextlib.contextmanager
def detect_anomaly(*, nan: bool = True, inf: bool = True) -> Iterator[None]:
    """Stop at the first op whose value, or whose derivative, is NaN or infinite.

    A block, or a decorator. Inside, every value and every gradient is checked, which takes about as long as
    the ops of a small model; outside it costs nothing.

    Parameters
    ----------
    nan, inf : bool
        What to look for. Set ``inf=False`` where infinity is meant, as in a mask of ``-inf``.

    Raises
    ------
    NonFiniteError
        Names the op, its layer, which inputs were bad already, and the line that computed it.

    Notes
    -----
    An attached profiler continues, and the time of these checks is in no layer. NumPy's own warnings are
    silent inside, since they name no op.

    Examples
    --------
    >>> import numpy as np, microfw as mf
    >>> x = mf.tensor([0.0, 1.0], requires_grad=True)
    >>> with mf.detect_anomaly():
    ...     np.sum(np.sqrt(x)).backward()  # doctest: +ELLIPSIS
    Traceback (most recent call last):
        ...
    microfw.errors.NonFiniteError: the derivative of sqrt: expected finite numbers as gradients with respect to its \
inputs, got inf at [0] in one of shape (2,); the gradient that came in: finite; its value was computed at ...
    """
    observer = MODE.get().observer
    if observer is not None:
        observer.on_value_read("checks")
    with mode(observer=NonFiniteDetector(observer, nan, inf, raises=True)), np.errstate(all="ignore"):
        yield
