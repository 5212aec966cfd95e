"""Turn one training step, run eagerly under a `CaptureObserver`, into a list of NumPy calls.

The forward pass is the list of ops that the observer recorded. The backward pass follows from the graph, in the order
of `backward_pass`. Each op's value and derivatives, as declared, run once on `CapturedArray`s. An op that cannot be
traced becomes one call. No op is named here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from operator import getitem
from typing import Any

import numpy as np

from microfw.autograd.backward import unbroadcast
from microfw.autograd.graph import Leaf, Node, Variable
from microfw.autograd.tensor import Tensor
from microfw.replay.observe import CaptureObserver, OpRecord, Uncapturable, is_stateless
from microfw.replay.trace import Array, CapturedArray, CapturedCall, Tape, Untraceable, copy, plain
from microfw.replay.verification import same


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
        Ops that recorded a node, in order.
    visited : list of OpRecord
        Those of ``nodes`` that the backward pass visits, in its order.
    constants : list of OpRecord
        Ops that recorded no node because no input of theirs needs a gradient.
    opaque : dict
        Name of each op that is replayed as one call, and the reason.
    """

    def __init__(self, observer: CaptureObserver, owner: Any) -> None:
        self.owner = owner
        self.tape = Tape()
        self.forward: list[CapturedCall] = []
        self.backward: list[CapturedCall] = []
        self.update: list[CapturedCall] = []
        self.update_parts: Any = None
        self.inputs: list[CapturedArray] = []
        self.outputs: list[CapturedArray] = []
        self.leaves: list[tuple[Leaf, CapturedArray]] = []
        self.shared: list[tuple[Leaf, CapturedArray]] = []
        self.nodes: list[OpRecord] = []
        self.visited: list[OpRecord] = []
        self.constants: list[OpRecord] = []
        self.opaque: dict[str, str] = {}
        self.captured_by_id: dict[int, CapturedArray] = {}
        self.keep_alive: list[Any] = [observer]  # so that no id is used twice

    # Captured arrays

    def to_captured(self, array: Any) -> Any:
        """Return the captured array of an array; numbers are returned unchanged."""
        if not isinstance(array, np.ndarray):
            return array
        found = self.captured_by_id.get(id(array))
        if found is None:
            found = self.bind(array, CapturedArray(self.tape, array, fixed=array))
        return found

    def bind(self, array: Array, captured: CapturedArray) -> CapturedArray:
        """Make a captured array the one of an array."""
        self.captured_by_id[id(array)] = captured
        self.keep_alive.append(array)
        return captured

    def grad_buffer_of(self, leaf: Any) -> CapturedArray:
        """Return the captured array of a leaf's gradient buffer."""
        assert leaf.grad_buffer is not None
        found = self.captured_by_id.get(id(leaf.grad_buffer))
        if found is None:
            found = self.bind(leaf.grad_buffer, CapturedArray(self.tape, leaf.grad_buffer, fixed=leaf.grad_buffer))
        return found

    # Forward

    def capture_op(self, record: OpRecord) -> tuple[CapturedArray, dict[str, CapturedArray]]:
        """Add one op's calls; return its value, and its auxiliary results by name."""
        op = record.op
        inputs = [self.to_captured(a) for a in record.inputs]
        start = len(self.tape.calls)
        extra = list(op.aux)
        try:
            if not all(is_stateless(v) for v in record.params.values()):
                raise Untraceable("an argument that may change, such as a random generator")
            made = op.value(*inputs, **record.params)
            values = list(made) if extra else [made]
            if not all(isinstance(v, CapturedArray) for v in values) or not same(values[0].array, record.output):
                raise Untraceable("another value than the op gave")
        except Exception as reason:  # also of operations that a CapturedArray lacks
            del self.tape.calls[start:]
            self.opaque[op.name] = str(reason)
            values = self._one_call(record, inputs, len(extra))
        self._set_fallback(start, lambda: self._one_call(record, inputs, len(extra), values))
        if values[0].view is None and any(v is values[0] for v in inputs):
            values[0] = CapturedArray(self.tape, record.output, view=(getitem, (values[0], ...), {}))
        values[0].array = record.output
        self.bind(record.output, values[0])
        for call in self.tape.calls[start:]:
            call.node = record
        return values[0], dict(zip(extra, values[1:], strict=True))

    def _set_fallback(self, start: int, call: Callable[[], Any]) -> None:
        """Set the one call that replaces the op when a guard added since ``start`` fails."""
        guards = [c for c in self.tape.calls[start:] if c.style == "guard"]
        if guards:
            call()
            fallback = self.tape.calls.pop()
            for guard in guards:
                guard.fallback = fallback

    def _one_call(
        self, record: OpRecord, inputs: list[Any], extra: int, outs: list[CapturedArray] | None = None
    ) -> list[CapturedArray]:
        """Add an op as one call of its forward function."""
        op = record.op
        if outs is None:
            outs = [CapturedArray(self.tape, record.output)]
        if extra and len(outs) == 1:
            spec: Any = record.node and record.node.spec
            pairs = zip(spec.partials, spec.saved_indices, strict=True) if spec else ()
            saved = {name: k for p, places in pairs for name, k in zip(p.sources, places, strict=True)}
            arrays = [record.saved[saved[name]] if spec else None for name in op.aux]
            outs += [CapturedArray(self.tape, np.empty(0) if a is None else a) for a in arrays]  # None is never read
        pure = all(is_stateless(v) for v in record.params.values())
        self.tape.calls.append(
            CapturedCall(op.value, inputs, record.params, outs[0] if not extra else None, "copy", outs, pure)
        )
        return outs

    # Backward

    def capture_backward(
        self, loss: Node, records: dict[Node, tuple[OpRecord, CapturedArray, dict[str, CapturedArray]]]
    ) -> None:
        """Add the calls of the backward pass, in the order of `backward_pass`."""
        grads: dict[Any, Any] = {loss: np.ones(loss.shape, records[loss][1].dtype)}
        for node in sorted(records, key=lambda n: -n.order):
            if node not in grads:
                continue  # the loss does not depend on it
            if node.spec.hooked and node.hooks:
                raise Uncapturable(f"{node.where} has a hook on its gradient")
            g, start = grads.pop(node), len(self.tape.calls)
            self.visited.append(records[node][0])
            for parent, partial, places in zip(
                node.parents or (), node.spec.partials, node.spec.saved_indices, strict=True
            ):
                if parent is None:
                    continue
                if isinstance(parent, Node) and parent not in records:
                    raise Uncapturable(
                        f"{node.where}: its input is made by no op of the step, but by a checkpoint or a hook"
                    )
                args = self._arguments(partial, places, *records[node])
                own = isinstance(parent, Leaf) and parent.owner is self.owner
                if own and partial.vjp_out is not None and parent not in grads:
                    grad_input = self.grad_buffer_of(parent)
                    self._derive(partial.vjp_out, (g, *args, grad_input), node, grad_input)
                else:
                    grad_input = self._derive(partial.vjp, (g, *args), node, None)
                    if grad_input.shape != parent.shape:
                        grad_input = unbroadcast(grad_input, parent.shape, node)
                grads[parent] = grads[parent] + grad_input if parent in grads else grad_input
            for call in self.tape.calls[start:]:
                call.node = records[node][0]
        for leaf, grad_input in grads.items():
            if isinstance(leaf, Variable):
                continue
            if leaf.hooks:
                raise Uncapturable(f"{leaf.name or 'a leaf'} has a hook on its gradient")
            if leaf.owner is not self.owner:
                self.shared.append((leaf, self.to_captured(grad_input)))
                continue
            target = self.grad_buffer_of(leaf)
            if grad_input is not target:
                self.tape.calls.append(CapturedCall(copy, (self.to_captured(grad_input),), {}, target, "cast"))
                self.tape.calls[-1].node = None
            self.leaves.append((leaf, target))

    def _arguments(
        self, partial: Any, places: Any, record: OpRecord, y: CapturedArray, extra: dict[str, CapturedArray]
    ) -> list[Any]:
        inputs = [self.to_captured(a) for a in record.inputs]
        op = record.op
        found: list[Any] = []
        for source, place in zip(partial.sources, places, strict=True):
            if op.variadic and source == op.inputs[0]:
                found.append(tuple(inputs))
            elif source in op.inputs:
                found.append(inputs[op.inputs.index(source)])
            else:
                saved = record.saved[place]
                found.append(y if source == "y" else saved if saved is None else extra.get(source, saved))
        return found

    def _derive(self, rule: Callable[..., Any], args: tuple[Any, ...], node: Node, into: CapturedArray | None) -> Any:
        """Add the calls of a derivative rule; return its result."""
        start = len(self.tape.calls)
        try:
            made = rule(*args)
            if into is not None and not any(call.out is into for call in self.tape.calls[start:]):
                raise Untraceable("nothing written")
            if any(call.style == "guard" for call in self.tape.calls[start:]):
                raise Untraceable("a branch on values in a derivative")
            if into is not None:
                return into
            return made if isinstance(made, CapturedArray) else self.to_captured(np.asarray(made))
        except Exception as reason:
            del self.tape.calls[start:]
            self.opaque[f"{node.op.name}, derivative"] = str(reason)
        values = tuple([a.array if isinstance(a, CapturedArray) else plain(a) for a in args])
        if into is not None:
            rule(*values)
            self.tape.calls.append(CapturedCall(rule, args, {}, into, "write"))
            return into
        return self.tape.note(rule, args, {}, np.asarray(rule(*values)), "copy")


def capture(
    observer: CaptureObserver, arguments: Iterable[Tensor], returned: Any, known: Iterable[Tensor], owner: Any
) -> CapturedStep:
    """Return the forward and backward calls of a step.

    Parameters
    ----------
    observer : CaptureObserver
        Has recorded the ops of the step's function.
    arguments : iterable of Tensor
        Arguments of the function.
    returned : Tensor or tuple of Tensor
        What the function returned, the loss first.
    known : iterable of Tensor
        Leaves that the function may use.
    owner : Owner
        Marks the leaves of the optimizer, see `optim.flat`.

    Raises
    ------
    Uncapturable
        If the step does something that a replay cannot repeat; the message names it.
    """
    step = CapturedStep(observer, owner)
    for argument in arguments:
        captured = CapturedArray(step.tape, argument._array, fixed=np.empty_like(argument._array))
        step.inputs.append(step.bind(argument._array, captured))
    for leaf in known:
        step.bind(leaf._array, CapturedArray(step.tape, leaf._array, fixed=leaf._array))
    made = {}
    for record in observer.records:
        y, extra = step.capture_op(record)
        if record.node is not None:
            step.nodes.append(record)
            made[record.node] = (record, y, extra)
        elif record.recording:
            step.constants.append(record)
    step.forward, step.tape.calls = step.tape.calls, []
    tensors = returned if isinstance(returned, tuple) else (returned,)
    if not all(isinstance(t, Tensor) for t in tensors):
        raise Uncapturable("the function returns something other than Tensors")
    step.outputs = [step.to_captured(t._array) for t in tensors]
    loss = tensors[0]._node
    if not isinstance(loss, Node) or loss not in made:
        raise Uncapturable("what the function returns first is not a loss computed in the step from parameters")
    step.capture_backward(loss, made)
    step.backward = step.tape.calls
    return step
