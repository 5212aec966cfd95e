"""Record the ops of a step, and compare them with those of another step."""

from __future__ import annotations

from typing import Any

import numpy as np

from microfw.autograd.graph import Node
from microfw.autograd.mode import MODE
from microfw.autograd.observer import Observer
from microfw.autograd.scope import THREAD_SCOPE, location, path
from microfw.autograd.tensor import Tensor
from microfw.errors import MicrofwError
from microfw.replay.trace import Array, CapturedArray
from microfw.replay.verification import alike


class Uncapturable(MicrofwError, RuntimeError):
    """A step does something that a replay cannot repeat."""


def reason_of(error: Exception) -> str:
    """Return why a step cannot be captured."""
    if isinstance(error, Uncapturable):
        return str(error)
    return f"it could not be traced ({type(error).__name__}: {error})"


class OpRecord:
    """One application of an op: inputs, settings, output, and what its node saved.

    Attributes
    ----------
    outs : list of CapturedArray
        The output and the auxiliary results, set by `CapturedStep.capture_op`.
    """

    __slots__ = ("inputs", "node", "op", "output", "outs", "params", "recording", "saved", "scope")
    outs: list[CapturedArray]

    def __init__(self, op: Any, node: Node | None, inputs: Any, params: dict[str, Any], output: Array) -> None:
        self.op = op
        self.node = node
        self.inputs = inputs
        self.params = params
        self.output = output
        self.saved = node.saved if node is not None else ()
        self.scope = node.scope if node is not None else THREAD_SCOPE.scope
        self.recording = MODE.get().recording


class CaptureObserver(Observer):
    """Records every op of a step, and notifies the observer that was attached before, ``other``."""

    def __init__(self, other: Observer | None = None) -> None:
        self.other = other
        self.records: list[OpRecord] = []
        self.value_read_in = ""

    def forward(self, op: Any, node: Any, inputs: Any, params: Any, output: Any, began: int) -> None:
        """Record an op."""
        if self.other is not None and self.other.enabled:
            self.other.forward(op, node, inputs, params, output, began)
        self.records.append(OpRecord(op, node, inputs, params, output))

    def on_value_read(self) -> None:
        """Record the first module in which a value is read."""
        self.value_read_in = self.value_read_in or path(THREAD_SCOPE.scope) or "the function"


class Signature:
    """What two steps must share to use one plan: ops with their settings, shapes, and arrays made by Python."""

    def __init__(self, observer: CaptureObserver, known: list[Any]) -> None:
        if observer.value_read_in:
            raise Uncapturable(f"{observer.value_read_in} reads the values of a Tensor")
        self.ops: list[tuple[Any, ...]] = []
        made = {id(t._array) for t in known}
        for a in observer.records:
            shapes = [x.shape if isinstance(x, np.ndarray) else x for x in a.inputs]
            constants = [x for x in a.inputs if isinstance(x, np.ndarray) and id(x) not in made]
            self.ops.append((a.scope, a.op.name, a.params, shapes, constants))
            made.add(id(a.output))

    def difference(self, other: Signature) -> str | None:
        """Return how another step differs from this one, in words; None if both can use one plan."""
        for (scope, name, params, shapes, constants), theirs in zip(self.ops, other.ops, strict=False):
            if name != theirs[1] or type(scope and scope[0]) is not type(theirs[0] and theirs[0][0]):
                return f"op {location(scope, name)} has taken the place of {location(theirs[0], theirs[1])}"
            if not alike(params, theirs[2]):
                keys = [k for k in params if not alike(params[k], theirs[2].get(k))]
                pairs = ", ".join(_short(params[k], theirs[2][k]) for k in keys)
                return f"{location(scope, name)} has another {', '.join(keys)}: {pairs}"
            if not alike(shapes, theirs[3]):
                return f"{location(scope, name)} has other inputs: {_short(shapes, theirs[3])}"
            if not alike(constants, theirs[4]):
                return f"an array that the function makes for {location(scope, name)} is not the same at every step"
        if len(self.ops) != len(other.ops):
            return f"there are {len(self.ops)} ops, and {len(other.ops)} before"
        return None


def _short(now: Any, before: Any) -> str:
    texts = [" ".join(repr(value).split()) for value in (now, before)]
    return "{}, and {} before".format(*(text if len(text) < 40 else text[:37] + "..." for text in texts))


def is_stateless(value: Any) -> bool:
    """Return True if an op's argument has neither state nor effects."""
    if isinstance(value, tuple | list):
        return all(map(is_stateless, value))
    plain_kinds = bool | int | float | str | slice | np.dtype | np.ndarray | np.generic | type
    return value is None or value is Ellipsis or isinstance(value, plain_kinds)


def constant(array: Array) -> Tensor:
    """Return an argument of a step's function: a Tensor with a read-only array."""
    tensor = Tensor(array)
    tensor._array.setflags(write=False)  # data, not a parameter
    return tensor
