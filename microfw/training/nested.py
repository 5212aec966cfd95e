"""Training on nested features and targets, weights, and sources of batches: the parts that differ from plain arrays."""

from __future__ import annotations

import copy
import inspect
import itertools
import operator
from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any

import numpy as np

from microfw.autograd.mode import mode
from microfw.autograd.tensor import Tensor
from microfw.data.nested import Columns, fill, join
from microfw.errors import ArgumentError, ShapeError
from microfw.nn import Module
from microfw.nn.forward_state import ForwardState, evaluating
from microfw.replay import CompiledStep
from microfw.serialization.random import put
from microfw.training.broadcasts import check_broadcasts
from microfw.training.evaluation import Array, as_data, is_sum, quiet
from microfw.training.metrics import Measure, check_heads, measure_heads
from microfw.training.outputs import ModelCall, binds, output_columns
from microfw.training.replay_policy import ReplayPolicy
from microfw.training.run import Run
from microfw.training.stepper import Stepper
from microfw.training.totals import EpochTotals


class NestedForward(ModelCall):
    """The function of a nested step: returns the total loss, its parts, and the model's outputs.

    Parameters
    ----------
    model, loss : callable
        The parts.
    X, y : Columns
        Some rows, for the structure.
    where : str
        Name of the caller in error messages.

    Attributes
    ----------
    names : tuple of str
        Names of the parts, if the loss is a dict; else empty, also before the first rows that count.
    outputs : Columns
        The structure of the outputs.
    wants_outputs : bool
        Whether the outputs are returned.
    """

    def __init__(self, model: Module, loss: Any, X: Columns, y: Columns, where: str) -> None:
        super().__init__(model, X.template)
        self.loss, self.where = loss, where
        self.features, self.targets = len(X.leaves), y.like([])
        self.names: tuple[str, ...] = ()
        self.knows_names = False
        self.outputs = Columns(0, [], [])
        self.wants_outputs = True

    def __call__(self, *arrays: Any) -> tuple[Any, ...]:
        """Return the loss, and what else is asked for, for the leaves of a batch."""
        outputs = self.call(arrays[: self.features])
        total, parts = self.parts_of(self.loss_of(outputs, arrays[self.features :]))
        return (total, *parts, *self.kept(outputs))

    def loss_of(self, outputs: Any, targets: Sequence[Any]) -> Any:
        """Return what the loss returns."""
        weight = targets[-1:] if self.targets.weighted else ()
        return self.loss(outputs, fill(self.targets.template, targets), *weight)

    def parts_of(self, made: Any) -> tuple[Any, Sequence[Any]]:
        """Return the total loss and the parts."""
        if not isinstance(made, dict):
            return made, ()
        if tuple(made) != self.names:
            if self.knows_names:
                raise self.changed("a loss with the parts", self.names, list(made))
            self._learn_names(made)
        parts = list(made.values())
        return reduce(operator.add, parts), parts

    def kept(self, outputs: Any) -> Sequence[Any]:
        """Return the outputs' Tensors if they are asked for."""
        if not self.wants_outputs:
            return ()
        found = output_columns(outputs, self.where)
        if found.template != self.outputs.template:
            raise self.changed("outputs in the structure", self.outputs.paths, found.paths)
        return found.leaves

    def changed(self, what: str, expected: Sequence[str], got: Sequence[str]) -> ShapeError:
        """Return the error for a structure that differs from that of the first rows."""
        return ShapeError(self.where, f"{what} {', '.join(expected) or 'of one array'} in each step", ", ".join(got))

    def denominator(self, y: Columns, _: Any = None) -> float:
        """Return what the mean loss of a batch is divided by; see `Loss.denominator`."""
        found = getattr(self.loss, "denominator", None)
        if callable(found):
            return float(found(y.tree, y.weight))
        return float(len(y) if y.weight is None else np.sum(y.weight, dtype=np.float64))

    def learn(self, X: Columns, y: Columns, counts: bool, metrics: dict[str, Measure]) -> None:
        """Run model and loss on some rows, check what they return, and store its structure."""
        model = self.model
        with evaluating(model, observer=None, timer=None), ForwardState.of(model, self.loss), quiet():
            outputs = self.call([as_data(leaf) for leaf in X.leaves])
            found = output_columns(outputs, self.where)
            self.outputs = found.like([])
            self.wants_outputs = bool(metrics)
            check_heads(metrics, found.paths, y.paths)
            short = [name for name, leaf in zip(found.paths, found.leaves, strict=True) if leaf.shape[:1] != (len(X),)]
            if metrics and short:
                got = f"another shape at {short[0] or 'the output'}"
                raise ShapeError(self.where, "an output for each row, for the metrics", got, "leave metrics out")
            weighs = not self.targets.weighted or binds(inspect.signature(self.loss), None, None, None)
            if not weighs:
                fix = "give it a third parameter, or leave the weights out"
                raise ArgumentError(self.where, "a loss that takes sample_weight", "one without", fix)
            if not counts:
                return
            targets = [as_data(leaf) for leaf in y.leaves]
            made = check_broadcasts(self.loss_of, outputs, targets, self.where, found.leaves, targets[: len(y.paths)])
        self._learn_names(made)

    def _learn_names(self, made: Any) -> None:
        """Check what the loss returns, and store the names of its parts."""
        if isinstance(made, dict) and not made:
            raise ArgumentError(self.where, "a loss of one number, or a dict of them", "an empty dict")
        for name, part in made.items() if isinstance(made, dict) else [("", made)]:
            if not isinstance(name, str):
                raise ArgumentError(self.where, "names of parts of the loss to be str", repr(name))
            if not isinstance(part, Tensor) or part.size != 1:
                got = f"shape {part.shape}" if isinstance(part, Tensor) else type(part).__name__
                expected = f"a loss of one number{f' as {name!r}' if name else ', or a dict of them'}"
                raise ArgumentError(self.where, expected, got, "use reduction='mean'")
        self.names, self.knows_names = tuple(made) if isinstance(made, dict) else (), True


class NestedPolicy(ReplayPolicy):
    """Decides which nested steps are replayed."""

    def __init__(self, forward: NestedForward, optimizer: Any, wanted: bool | None) -> None:
        super().__init__(forward.model, forward.loss, optimizer, wanted)
        if self.step is not None:
            self.step = CompiledStep(forward, optimizer)
            self.step.strict = True

    def run(self, X: Any, y: Any, on_loss: Callable[[Array], None], update: Any) -> Any:
        """Run a batch's step, and return parts and outputs; None, with nothing done, if it must run eagerly."""
        if self.step is None:
            return None
        arrays = (*X.leaves, *y.leaves)
        if self.eager_steps and len(X) != self.immediate_rows:
            key = tuple([(array.shape, array.dtype.char) for array in arrays])
            self.seen[key] += 1
            if self.seen[key] <= self.eager_steps:
                return None
        return self.step.run(arrays, on_loss, update)[1:]


class NestedStepper(Stepper):
    """Runs steps on batches of columns; they return the parts of the loss and the outputs, as Tensors."""

    forward: NestedForward

    def start(self, forward: NestedForward) -> None:
        """Set the function of the step."""
        self.forward, self.denominator = forward, forward.denominator

    def _gradients(self, X: Any, y: Any, weight: Any, share: float | None = None) -> Any:
        if self._replay_gradients is not None and share is None:
            made = self._replay_gradients(X, y, self._check_loss, False)
            if made is not None:
                return made
        total, *made = self.compute(X, y)
        self._check_loss(total._array)
        total.backward(None if share is None else np.full(total.shape, share))
        return made

    def compute(self, X: Any, y: Any, weight: Any = None) -> Any:
        """Return the loss, its parts and the outputs of a batch."""
        return self.forward(*[as_data(leaf) for leaf in (*X.leaves, *y.leaves)])

    def _recompute_loss(self, X: Any, y: Any, weight: Any) -> Tensor:
        loss: Tensor = self.compute(X, y)[0]
        return loss

    def _forward(self, X: Any) -> Any:
        with mode(recording=False):
            outputs = self.forward.kept(self.forward.call([as_data(leaf) for leaf in X.leaves]))
        return [*(np.zeros(()) for _ in self.forward.names), *outputs]

    def _join(self, several: list[Any], shares: list[float]) -> Any:
        count = len(self.forward.names)
        several = [[*[np.zeros(())] * (len(several[-1]) - len(part)), *part] for part in several]
        columns = list(zip(*several, strict=True))
        parts = [sum(share * _array(x) for share, x in zip(shares, column, strict=True)) for column in columns[:count]]
        return [*parts, *(np.concatenate([_array(x) for x in column]) for column in columns[count:])]


def _array(x: Any) -> Array:
    array: Array = x._array if isinstance(x, Tensor) else x
    return array


class NestedTotals(EpochTotals):
    """The sums of an epoch's nested steps; ``parts`` are those of the parts of the loss."""

    stepper: NestedStepper

    def __post_init__(self) -> None:
        super().__post_init__()
        self.parts = dict.fromkeys(self.stepper.forward.names, 0.0)

    def add(self, outputs: Any, targets: Any) -> None:
        """Add the last step."""
        arrays, names = [_array(x) for x in outputs or ()], self.stepper.forward.names
        if count := self.stepper.last_denominator:
            for name, value in zip(names, arrays, strict=False):
                rows = 1 if is_sum(self.stepper.loss) else count
                self.parts[name] = self.parts.get(name, 0.0) + float(value.item()) * rows
        made = self.stepper.forward.outputs.like(arrays[len(names) :])
        super().add(made if self.metrics else None, targets)

    def state_dict(self) -> dict[str, Any]:
        """Return the sums, the outputs and targets so far as lists of arrays, and the seconds."""
        kept: tuple[list[Any], list[Any]] = self.outputs, self.targets
        self.outputs = self.targets = []
        state = super().state_dict()
        self.outputs, self.targets = kept
        state["sums"] |= {f"loss/{name}": value for name, value in self.parts.items()}
        return state | {
            name: join(part).leaves if part else None for name, part in zip(("outputs", "targets"), kept, strict=True)
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load what `state_dict` returned."""
        sums = dict(state["sums"])
        self.parts = {name[5:]: float(sums.pop(name)) for name in [*sums] if name.startswith("loss/")}
        super().load_state_dict({**state, "sums": sums, "outputs": None, "targets": None})
        if state["outputs"] is not None:
            forward = self.stepper.forward
            self.outputs = [forward.outputs.like(state["outputs"])]
            self.targets = [forward.targets.like(state["targets"])]

    def result(self) -> dict[str, float]:
        """Return the mean loss, its parts, and the metrics by head."""
        found = {"loss": self.loss}
        found |= {f"loss/{name}": value / self.count if self.count else np.nan for name, value in self.parts.items()}
        if self.metrics:
            found |= measure_heads(self.metrics, self.stepper.loss, join(self.outputs), join(self.targets))
        return found


class NestedRun(Run):
    """A run on nested data, or on a source of batches."""

    Totals = NestedTotals
    transform: Any = None
    before_batch: tuple[int, Any, Any] | None = None
    """Steps, and states of ``rng`` and source, from before the last batch was drawn, where drawing changes them."""

    def new_batches(self, skip: int = 0) -> Any:
        """Draw an order, and return the batches of an epoch, transformed if that is asked for."""
        self.before_batch, found = None, super().new_batches(skip)
        if self.transform is None and not self.train.stateful:
            return found
        return self._with_state_before(iter(found), skip)

    def _with_state_before(self, batches: Any, steps: int) -> Any:
        for number in itertools.count(steps):
            source = copy.deepcopy(self.train.state_dict()) if self.train.stateful else None
            self.before_batch = number, self.rng.bit_generator.state, source
            X, y, _ = next(batches, (None, None, None))
            if X is None:
                self.before_batch = None
                return
            yield (X, y, None) if self.transform is None else (*self.transform(X, y, self.rng), None)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.stepper.wants_outputs = True  # parts of the loss are among them

    def end(self) -> None:
        """End training. In an epoch that cannot be resumed, hooks save nothing."""
        if self.totals is not None and self.before_batch is not None and self.before_batch[0] == self.totals.steps:
            put(self.rng, self.before_batch[1])  # the step was not completed: a resumed run draws its batch again
            if self.train.stateful:
                self.train.state_before = self.before_batch[2]
        if self.in_lost_epoch():
            self.state.save = None
        super().end()

    def why_not_saved(self) -> tuple[str, ...]:
        """Return why the run cannot be saved; () if it can be."""
        if self.in_lost_epoch():
            got = "one in the middle of it, on batches from a source without state_dict and load_state_dict"
            return "a run at the end of an epoch", got, "use Checkpoint without every"
        return super().why_not_saved()

    def in_lost_epoch(self) -> bool:
        """Return True in an epoch whose remaining batches cannot be had again."""
        return self.totals is not None and not self.train.resumes_anywhere
