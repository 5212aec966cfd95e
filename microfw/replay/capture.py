"""Turn one training step, run eagerly under a `CaptureObserver`, into a list of NumPy calls.

The forward pass is the list of ops that the observer recorded. The backward pass is `backward_pass` on the step's
graph. Each op's value and derivatives, as declared, run once on `CapturedArray`s. An op that cannot be traced becomes
one call. No op is named here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from operator import getitem
from typing import Any

import numpy as np

from microfw.autograd.backward import accumulate, backward_pass
from microfw.autograd.graph import Leaf, Node, Variable
from microfw.autograd.mode import MODE
from microfw.autograd.observer import Observer
from microfw.autograd.op import Op, Written
from microfw.autograd.scope import THREAD_SCOPE, path
from microfw.autograd.tensor import Tensor
from microfw.optim.optimizer import Optimizer
from microfw.replay.reasons import Uncapturable, Untraceable
from microfw.replay.trace import Array, CapturedArray, CapturedCall, Tape, copy, plain
from microfw.replay.verification import same

# of a leaf, by `Tensor.detach`
COPY = Op(
    copy, vjp=None, jvp="same", vjp_out=None, aux=None, cost=None, no_alias=True, allow_dtype_change=False, name="copy"
)


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
        self.recording = op is not COPY and MODE.get().recording  # a profile has no row for a copy


class CaptureObserver(Observer):
    """Records every op of a step, and notifies the observer that was attached before, ``other``."""

    def __init__(self, other: Observer | None = None) -> None:
        self.other = other
        self.records: list[OpRecord] = []
        self.value_use = ""

    def forward(self, op: Any, node: Any, inputs: Any, params: Any, output: Any, start_ns: int) -> None:
        """Record an op."""
        if self.other is not None and self.other.enabled:
            self.other.forward(op, node, inputs, params, output, start_ns)
        self.records.append(OpRecord(op, node, inputs, params, output))

    def on_value_read(self, how: str = "reads") -> None:
        """Record the first module in which a value is read, or assigned."""
        where = path(THREAD_SCOPE.scope) or "the function"
        self.value_use = self.value_use or f"{where} {how} the values of a Tensor"

    def on_copy(self, array: Array, copied: Array) -> None:
        """Record a copy as an op."""
        self.records.append(OpRecord(COPY, None, (array,), {}, copied))


class CapturedStep:
    """A step as calls on captured arrays.

    Attributes
    ----------
    forward, backward, update : list of CapturedCall
        The calls of each part, in order. ``call.node`` is the `OpRecord` that the call belongs to.
    update_parts : list or None
        ``optimizer.update_parts`` from which the calls of the update were captured.
    inputs : list of CapturedArray
        The step's arguments.
    outputs : list of CapturedArray
        What the step's function returned.
    leaves : list of (Leaf, CapturedArray)
        Leaves of the optimizer that get a gradient, each with its part of the gradient buffer.
    shared : list of (Leaf, CapturedArray)
        Other leaves that get a gradient, each with the array that is added to its gradient.
    nodes : list of OpRecord
        Ops that recorded a node, in order; ``records`` has them by node.
    visited : list of OpRecord
        Those of ``nodes`` that the backward pass visits, in its order.
    constants : list of OpRecord
        Ops that recorded no node because no input of theirs needs a gradient.
    opaque : dict
        Name of each op that is replayed as one call, and the reason.
    """

    forward: list[CapturedCall]
    backward: list[CapturedCall]
    outputs: list[CapturedArray]

    def __init__(self, observer: CaptureObserver, owner: Any) -> None:
        self.observer = observer  # holds all arrays of the step, so that no id is used twice
        self.owner = owner
        self.tape = Tape()
        self.update: list[CapturedCall] = []
        self.update_parts: Any = None
        self.inputs: list[CapturedArray] = []
        self.leaves: list[tuple[Leaf, CapturedArray]] = []
        self.shared: list[tuple[Leaf, CapturedArray]] = []
        self.nodes = [record for record in observer.records if record.node is not None]
        self.records = {record.node: record for record in self.nodes if record.node is not None}
        self.constants = [record for record in observer.records if record.node is None and record.recording]
        self.visited: list[OpRecord] = []
        self.opaque: dict[str, str] = {}
        self.captured_by_id: dict[int, CapturedArray] = {}

    def to_captured(self, array: Any) -> Any:
        """Return the captured array of an array; numbers are returned unchanged."""
        if not isinstance(array, np.ndarray):
            return array
        return self.captured_by_id.setdefault(id(array), CapturedArray(self.tape, array, fixed=array))

    def to_written(self, value: Any) -> Any:
        """Return a setting of an op: if it is arrays to which the op writes, as captured arrays."""
        if isinstance(value, Written):  # copies: the op has written to the arrays before
            return Written([CapturedArray(self.tape, a.copy(), fixed=a) for a in value])
        if not is_stateless(value):
            raise Untraceable("an argument that may change, such as a random generator")
        return value

    # Forward

    def capture_op(self, record: OpRecord) -> None:
        """Add one op's calls, and set ``record.outs``: its value, and its auxiliary results."""
        op, start = record.op, len(self.tape.calls)
        inputs = [self.to_captured(a) for a in record.inputs]
        try:
            params = {name: self.to_written(value) for name, value in record.params.items()}
            made = op.value(*inputs, **params)
            outs = list(made) if op.aux else [made]
            if outs[0].view is not None and outs[0].strides != record.output.strides:
                outs[0] = outs[0].copy()  # as an op does where its result is a view of an array that may change
            if not all(isinstance(v, CapturedArray) for v in outs) or not same(outs[0].array, record.output):
                raise Untraceable("another value than the op gave")
        except Exception as reason:  # also of operations that a CapturedArray lacks
            del self.tape.calls[start:]
            self.opaque[op.name] = str(reason)
            outs = [CapturedArray(self.tape, array) for array in _results(record)]
            self.tape.calls.append(_one_call(record, inputs, outs))
        for call in self.tape.calls[start:]:
            call.node = record
            if call.style == "guard":
                call.fallback = _one_call(record, inputs, outs)
        if outs[0].view is None and any(x is outs[0] for x in inputs):
            outs[0] = CapturedArray(self.tape, record.output, view=(getitem, (outs[0], ...), {}))
        outs[0].array = record.output
        self.captured_by_id[id(record.output)] = outs[0]
        record.outs = outs

    # Backward

    def capture_backward(self, loss: Node) -> None:
        """Add the calls of the backward pass, in which each derivative rule runs on captured arrays."""
        if loss not in self.records:
            raise Uncapturable("what the function returns first is not a loss computed in the step from parameters")
        self._require_replayable(loss)
        seed = np.ones(loss.shape, self.records[loss].output.dtype)
        grads: dict[Any, Any] = backward_pass([(loss, seed)], visit=self._capture_node)
        for leaf, grad_input in grads.items():
            if isinstance(leaf, Variable):
                continue
            if leaf.hooks:
                raise Uncapturable(f"{leaf.where} has a hook on its gradient")
            if leaf.owner is not self.owner:
                self.shared.append((leaf, self.to_captured(grad_input)))
                continue
            target = self.to_captured(leaf.grad_buffer)
            if grad_input is not target:
                self.tape.calls.append(CapturedCall(copy, (self.to_captured(grad_input),), {}, "cast", target))
            self.leaves.append((leaf, target))

    def _require_replayable(self, node: Node) -> None:
        """Raise for a node of no op of the step, and for one with a hook, which the backward pass would call."""
        if node not in self.records:
            raise Uncapturable(f"{node.where} is no op of the step: a checkpoint or a hook has recorded it")
        if node.spec.hooked and node.hooks:
            raise Uncapturable(f"{node.where} has a hook on its gradient")

    def _capture_node(self, node: Node, g: Any, grads: Any, ready: Any, needed: Any) -> list[Any]:
        """Add the calls of a node's derivative rules, in the place of `visit_edges`."""
        record, start = self.records[node], len(self.tape.calls)
        self.visited.append(record)
        for parent, partial, saved in node.edges or ():
            if isinstance(parent, Node):
                self._require_replayable(parent)
            args = self._arguments(partial, saved, record)
            owned = isinstance(parent, Leaf) and parent.owner is self.owner
            if owned and partial.vjp_out is not None and parent not in grads:
                out = grads[parent] = self.to_captured(parent.grad_buffer)
                self._derive(partial.vjp_out, (g, *args, out), node, out)
            else:
                accumulate(node, parent, self._derive(partial.vjp, (g, *args), node, None), grads, ready)
        for call in self.tape.calls[start:]:
            call.node = record
        return []

    def _arguments(self, partial: Any, saved: tuple[Any, ...], record: OpRecord) -> list[Any]:
        """Return the values that a derivative takes after ``g``: captured arrays where the step computes them."""
        op, inputs = record.op, [self.to_captured(a) for a in record.inputs]
        known: dict[str, Any] = {"y": record.outs[0], **dict(zip(op.aux, record.outs[1:], strict=True))}
        known |= {op.inputs[0]: tuple(inputs)} if op.variadic else dict(zip(op.inputs, inputs, strict=True))
        return [None if x is None else known.get(name, x) for name, x in zip(partial.sources, saved, strict=True)]

    def _derive(self, rule: Callable[..., Any], args: tuple[Any, ...], node: Node, out: CapturedArray | None) -> Any:
        """Add the calls of a derivative rule; return its result."""
        start = len(self.tape.calls)
        try:
            made = rule(*args)
            added = self.tape.calls[start:]
            if any(call.style == "guard" for call in added):
                raise Untraceable("a branch on values in a derivative")
            if out is None:
                return made if isinstance(made, CapturedArray) else self.to_captured(np.asarray(made))
            if any(call.out is out for call in added):
                return out
            raise Untraceable("nothing written")
        except Exception as reason:
            del self.tape.calls[start:]
            self.opaque[f"{node.op.name}, derivative"] = str(reason)
        made = rule(*plain(args))
        if out is None:
            return self.tape.note(rule, args, {}, np.asarray(made), "copy")
        self.tape.calls.append(CapturedCall(rule, args, {}, "write", out))
        return out

    # Update

    def capture_update(self, optimizer: Optimizer) -> None:
        """Add the calls of the optimizer's step, which are valid as long as its ``update_parts`` are the same object.

        None are added for optimizers whose calls differ from step to step, and for those defined outside of this
        library, whose `_update` may have effects.
        """
        trained = {leaf for leaf, _ in self.leaves}
        own = "_update" in vars(optimizer) or not type(optimizer)._update.__module__.startswith("microfw.")
        if own or (optimizer.NEEDS_STEP and not optimizer.STEP_NUMBERS):
            return
        optimizer.expect(trained)
        if any((leaf in trained) is missing for leaf, missing in optimizer._missing):
            return  # the last update was of other parameters
        self.update_parts = parts = optimizer.update_parts
        self.tape.calls = []
        try:
            for constants, *arrays in parts:
                optimizer._update(constants, *[CapturedArray(self.tape, a.copy(), fixed=a) for a in arrays])
        except Untraceable:
            return
        if all(call.style == "ufunc" for call in self.tape.calls):
            self.update = self.tape.calls


def _one_call(record: OpRecord, inputs: list[Any], outs: list[CapturedArray]) -> CapturedCall:
    """Return a call that runs a whole op, and fills all its results."""
    pure = is_stateless(tuple(record.params.values()))
    return CapturedCall(record.op.value, inputs, record.params, "copy", *outs, pure=pure)


def _results(record: OpRecord) -> list[Any]:
    """Return an op's value and its auxiliary results, as its node has saved them."""
    saved: dict[str, Any] = {}
    if record.node is not None:
        for partial, places in zip(record.node.spec.partials, record.node.spec.saved_indices, strict=True):
            saved |= {name: record.saved[k] for name, k in zip(partial.sources, places, strict=True)}
    found = [saved.get(name) for name in record.op.aux]
    return [record.output, *(np.empty(0) if array is None else array for array in found)]  # None is never read


def is_stateless(value: Any) -> bool:
    """Return True if an op's argument has neither state nor effects."""
    if isinstance(value, tuple | list) and type(value) is not Written:
        return all(map(is_stateless, value))
    plain_kinds = bool | int | float | str | slice | np.dtype | np.ndarray | np.generic | type
    return value is None or value is Ellipsis or isinstance(value, plain_kinds)


def capture(observer: CaptureObserver, arguments: Iterable[Tensor], returned: Any, owner: Any) -> CapturedStep:
    """Return the forward and backward calls of a step.

    Parameters
    ----------
    observer : CaptureObserver
        Has recorded the ops of the step's function.
    arguments : iterable of Tensor
        Arguments of the function.
    returned : Tensor or tuple of Tensor
        What the function returned, the loss first.
    owner : object
        ``optimizer.flat.owner``: only leaves with this owner get a gradient in the plan's memory.

    Raises
    ------
    Uncapturable
        If the step does something that a replay cannot repeat; the message names it.
    """
    step = CapturedStep(observer, owner)
    for array in [argument._array for argument in arguments]:
        captured = step.captured_by_id[id(array)] = CapturedArray(step.tape, array, fixed=np.empty_like(array))
        step.inputs.append(captured)
    for record in observer.records:
        step.capture_op(record)
    step.forward, step.tape.calls = step.tape.calls, []
    tensors = returned if isinstance(returned, tuple) else (returned,)
    if not all(isinstance(t, Tensor) for t in tensors):
        raise Uncapturable("the function returns something other than Tensors")
    step.outputs = [step.to_captured(t._array) for t in tensors]
    step.capture_backward(tensors[0]._node)
    step.backward = step.tape.calls
    return step
