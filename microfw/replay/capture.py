"""Capture: one training step, run as ever while an observer notes its ops, becomes a list of NumPy calls.

The forward pass is what the observer saw. The backward pass follows from the graph, in the order in which the walk
visits it. Each op's value and derivatives, as declared, run once on stand-ins (`trace`); where they cannot be
traced, the op is one call. So nothing here knows any op.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from microfw.autograd.backward import unbroadcast
from microfw.autograd.graph import Leaf, Node, Variable
from microfw.autograd.tensor import Tensor
from microfw.replay.observe import Applied, Uncapturable, Watch, plainly
from microfw.replay.trace import Array, Call, Cell, Tape, Untraceable, copy, plain
from microfw.replay.verification import same


class Captured:
    """A step as calls on cells.

    Attributes
    ----------
    forward, backward, update : list of Call
        What to do, in order; each call's ``node`` says for which node.
    inputs : list of Cell
        Where the step's arguments go.
    outputs : list of Cell
        What the step's function returned.
    leaves : list of (Leaf, Cell)
        The optimizer's leaves that get a gradient, and the cell of their place in its buffer.
    shared : list of (Leaf, Cell)
        Other leaves that get a gradient, which is added to what they have, and the cell that it is in.
    nodes, walked : list of Applied
        The ops that recorded a node, in order, and those that a gradient reaches.
    constants : list of Applied
        The ops that recorded none because nothing in them is trained.
    opaque : dict
        Ops that are one call each, and why.
    """

    def __init__(self, watch: Watch, owner: Any) -> None:
        self.owner = owner
        self.tape = Tape()
        self.forward: list[Call] = []
        self.backward: list[Call] = []
        self.update: list[Call] = []
        self.whole: Any = None
        self.inputs: list[Cell] = []
        self.outputs: list[Cell] = []
        self.leaves: list[tuple[Leaf, Cell]] = []
        self.shared: list[tuple[Leaf, Cell]] = []
        self.nodes: list[Applied] = []
        self.walked: list[Applied] = []
        self.constants: list[Applied] = []
        self.opaque: dict[str, str] = {}
        self.cells: dict[int, Cell] = {}
        self.held: list[Any] = [watch]  # so that no id is given twice

    # Cells of arrays

    def cell(self, array: Any) -> Any:
        """Return the cell that stands for an array; numbers stand for themselves."""
        if not isinstance(array, np.ndarray):
            return array
        found = self.cells.get(id(array))
        if found is None:
            found = self.name(array, Cell(self.tape, array, fixed=array))
        return found

    def name(self, array: Array, cell: Cell) -> Cell:
        """Let a cell stand for an array from here on."""
        self.cells[id(array)] = cell
        self.held.append(array)
        return cell

    def slot(self, leaf: Any) -> Cell:
        """Return the cell of the place for a leaf's gradient."""
        assert leaf.grad_buffer is not None
        found = self.cells.get(id(leaf.grad_buffer))
        if found is None:
            found = self.name(leaf.grad_buffer, Cell(self.tape, leaf.grad_buffer, fixed=leaf.grad_buffer))
        return found

    # Forward

    def apply(self, applied: Applied) -> tuple[Cell, dict[str, Cell]]:
        """Add one op's calls; return the cells of its value and of what it saves besides."""
        op = applied.op
        inputs = [self.cell(a) for a in applied.inputs]
        start = len(self.tape.calls)
        extra = list(op.aux)
        try:
            if not all(plainly(v) for v in applied.params.values()):
                raise Untraceable("an argument that may change, such as a random generator")
            made = op.value(*inputs, **applied.params)
            values = list(made) if extra else [made]
            if not all(isinstance(v, Cell) for v in values) or not same(values[0].array, applied.output):
                raise Untraceable("another value than the op gave")
        except Exception as reason:  # also what an array can do, and a stand-in can't
            del self.tape.calls[start:]
            self.opaque[op.name] = str(reason)
            values = self._one_call(applied, inputs, len(extra))
        self._instead(start, lambda: self._one_call(applied, inputs, len(extra), values))
        if values[0].view is None and any(v is values[0] for v in inputs):
            values[0] = Cell(self.tape, applied.output, view=(same_array, (values[0],), {}))
        values[0].array = applied.output
        self.name(applied.output, values[0])
        for call in self.tape.calls[start:]:
            call.node = applied
        return values[0], dict(zip(extra, values[1:], strict=True))

    def _instead(self, start: int, call: Callable[[], Any]) -> None:
        """Give the guards noted since ``start`` the one call that takes over where they fail."""
        guards = [c for c in self.tape.calls[start:] if c.style == "guard"]
        if guards:
            call()
            whole = self.tape.calls.pop()
            for guard in guards:
                guard.instead = whole

    def _one_call(self, applied: Applied, inputs: list[Any], extra: int, outs: list[Cell] | None = None) -> list[Cell]:
        """Add an op as one call of its value."""
        op = applied.op
        if outs is None:
            outs = [Cell(self.tape, applied.output)]
        if extra and len(outs) == 1:
            spec: Any = applied.node and applied.node.spec
            pairs = zip(spec.partials, spec.saved_indices, strict=True) if spec else ()
            saved = {name: k for p, places in pairs for name, k in zip(p.sources, places, strict=True)}
            arrays = [applied.saved[saved[name]] if spec else None for name in op.aux]
            outs += [Cell(self.tape, np.empty(0) if a is None else a) for a in arrays]  # None is never read
        pure = all(plainly(v) for v in applied.params.values())
        self.tape.calls.append(
            Call(op.value, inputs, applied.params, outs[0] if not extra else None, "copy", outs, pure)
        )
        return outs

    # Backward

    def walk(self, loss: Node, applied: dict[Node, tuple[Applied, Cell, dict[str, Cell]]]) -> None:
        """Add the calls of the backward pass, in the order of `graph.walk`."""
        arrived: dict[Any, Any] = {loss: np.ones(loss.shape, applied[loss][1].dtype)}
        for node in sorted(applied, key=lambda n: -n.order):
            if node not in arrived:
                continue  # it does not lead to the loss
            if node.spec.hooked and node.hooks:
                raise Uncapturable(f"{node.where} has a hook on its gradient")
            g, start = arrived.pop(node), len(self.tape.calls)
            self.walked.append(applied[node][0])
            for parent, partial, places in zip(
                node.parents or (), node.spec.partials, node.spec.saved_indices, strict=True
            ):
                if parent is None:
                    continue
                if isinstance(parent, Node) and parent not in applied:
                    raise Uncapturable(
                        f"{node.where}: its input is made by no op of the step, but by a checkpoint or a hook"
                    )
                args = self._arguments(partial, places, *applied[node])
                own = isinstance(parent, Leaf) and parent.owner is self.owner
                if own and partial.vjp_out is not None and parent not in arrived:
                    share = self.slot(parent)
                    self._derive(partial.vjp_out, (g, *args, share), node, share)
                else:
                    share = self._derive(partial.vjp, (g, *args), node, None)
                    if share.shape != parent.shape:
                        share = unbroadcast(share, parent.shape, node)
                arrived[parent] = arrived[parent] + share if parent in arrived else share
            for call in self.tape.calls[start:]:
                call.node = applied[node][0]
        for leaf, share in arrived.items():
            if isinstance(leaf, Variable):
                continue
            if leaf.hooks:
                raise Uncapturable(f"{leaf.name or 'a leaf'} has a hook on its gradient")
            if leaf.owner is not self.owner:
                self.shared.append((leaf, self.cell(share)))
                continue
            target = self.slot(leaf)
            if share is not target:
                self.tape.calls.append(Call(copy, (self.cell(share),), {}, target, "cast"))
                self.tape.calls[-1].node = None
            self.leaves.append((leaf, target))

    def _arguments(self, partial: Any, places: Any, applied: Applied, y: Cell, extra: dict[str, Cell]) -> list[Any]:
        inputs = [self.cell(a) for a in applied.inputs]
        op = applied.op
        found: list[Any] = []
        for source, place in zip(partial.sources, places, strict=True):
            if op.variadic and source == op.inputs[0]:
                found.append(tuple(inputs))
            elif source in op.inputs:
                found.append(inputs[op.inputs.index(source)])
            else:
                saved = applied.saved[place]
                found.append(y if source == "y" else saved if saved is None else extra.get(source, saved))
        return found

    def _derive(self, rule: Callable[..., Any], args: tuple[Any, ...], node: Node, into: Cell | None) -> Any:
        """Add the calls of a derivative; return the cell of its result."""
        start = len(self.tape.calls)
        try:
            made = rule(*args)
            if into is not None and not any(call.out is into for call in self.tape.calls[start:]):
                raise Untraceable("nothing written")
            if any(call.style == "guard" for call in self.tape.calls[start:]):
                raise Untraceable("a branch on values in a derivative")
            if into is not None:
                return into
            return made if isinstance(made, Cell) else self.cell(np.asarray(made))
        except Exception as reason:
            del self.tape.calls[start:]
            self.opaque[f"{node.op.name}, derivative"] = str(reason)
        values = tuple([a.array if isinstance(a, Cell) else plain(a) for a in args])
        if into is not None:
            rule(*values)
            self.tape.calls.append(Call(rule, args, {}, into, "write"))
            return into
        return self.tape.note(rule, args, {}, np.asarray(rule(*values)), "copy")


def capture(watch: Watch, arguments: Iterable[Tensor], returned: Any, known: Iterable[Tensor], owner: Any) -> Captured:
    """Return a step's calls.

    Parameters
    ----------
    watch : Watch
        Has observed the step's function.
    arguments : iterable of Tensor
        What it was called with.
    returned : Tensor or tuple of Tensor
        What it returned, the loss first.
    known : iterable of Tensor
        The leaves that it may use.
    owner : Owner
        The mark of the optimizer's leaves, see `optim.flat`.

    Raises
    ------
    Uncapturable
        Naming what cannot be repeated.
    """
    captured = Captured(watch, owner)
    for argument in arguments:
        cell = Cell(captured.tape, argument._array, fixed=np.empty_like(argument._array))
        captured.inputs.append(captured.name(argument._array, cell))
    for leaf in known:
        captured.name(leaf._array, Cell(captured.tape, leaf._array, fixed=leaf._array))
    made = {}
    for applied in watch.applied:
        y, extra = captured.apply(applied)
        if applied.node is not None:
            captured.nodes.append(applied)
            made[applied.node] = (applied, y, extra)
        elif applied.recording:
            captured.constants.append(applied)
    captured.forward, captured.tape.calls = captured.tape.calls, []
    tensors = returned if isinstance(returned, tuple) else (returned,)
    if not all(isinstance(t, Tensor) for t in tensors):
        raise Uncapturable("the function returns something other than Tensors")
    captured.outputs = [captured.cell(t._array) for t in tensors]
    loss = tensors[0]._node
    if not isinstance(loss, Node) or loss not in made:
        raise Uncapturable("what the function returns first is not a loss computed in the step from parameters")
    captured.walk(loss, made)
    captured.backward = captured.tape.calls
    return captured


def same_array(array: Any) -> Any:
    """Return the array itself."""
    return array[...]
