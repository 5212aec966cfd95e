"""`Trainer.fit`, `evaluate` and `predict` for nested data, weights, and sources of batches."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from functools import partial
from typing import Any

import numpy as np

from microfw.data.dataset import Dataset
from microfw.data.nested import (
    Columns,
    NestedRows,
    as_columns,
    batch_columns,
    is_batches,
    is_nested,
    join,
    same_rows,
    with_weight,
)
from microfw.data.source import Source
from microfw.data.streaming import Stream
from microfw.errors import ArgumentError, DataError, DTypeError, MicrofwError
from microfw.nn.forward_state import as_generator, evaluating
from microfw.optim.checks import is_real
from microfw.training.checks import run_hooks, smooths_weight_0
from microfw.training.evaluation import (
    as_data,
    as_dataset,
    check_labels,
    counting_rows,
    dtype_of,
    is_sum,
    keeps_integers,
    smallest_batch,
    validator,
)
from microfw.training.hooks import TrainState
from microfw.training.metrics import measure_heads
from microfw.training.nested import NestedForward, NestedPolicy, NestedRun, NestedStepper
from microfw.training.outputs import ModelCall, check_function, join_outputs, output_columns

FIT = "Trainer.fit"

DEFAULT_SIZE = 32
"""The default of ``batch_size``; another one is refused for batches that a source makes."""


def as_rows(data: Any, trainer: Any, where: str, accumulate: int = 1, rng: Any = None, sampler: Any = None) -> Any:
    """Return any data that `Trainer.fit` takes as a source of batches; a source that was made so as it is."""
    dtype = dtype_of(trainer.model)
    if isinstance(data, NestedRows | Source):
        return data
    _refuse_batches(data, where)
    if isinstance(data, Stream):
        return data.read_as(dtype, where if data.where == "stream" else data.where)
    if isinstance(data, Dataset):
        data = data.astype(dtype)
        data = data.X, data.y
    if isinstance(data, tuple | list) and len(data) in (2, 3):
        X, y, *weight = data
        if not (is_nested(X) or is_nested(y) or keeps_integers(y, trainer.model, trainer.loss)):
            plain = as_dataset(X, y, trainer.model, trainer.loss)
            check_labels(plain, trainer.loss, where)
            X, y = plain.X, plain.y
        features, targets = as_columns(X, "X", dtype, where), as_columns(y, "y", dtype, where, features=False)
        same_rows(where, X=features, y=targets)
        return NestedRows(features, with_weight(targets, weight[0] if weight else None, dtype, where), sampler)
    if callable(data) or (isinstance(data, Iterable) and not isinstance(data, tuple | list | dict | str | np.ndarray)):
        return Source(data, dtype, where, accumulate, rng)
    expected = "a Dataset, (X, y), (X, y, sample_weight), a stream, or batches from a function or a loader"
    fix = "pass rows that are set aside" if isinstance(data, int | float) else "pass (X, y)"
    if hasattr(data, "__getitem__") and not isinstance(data, np.ndarray | list | tuple | dict | str):
        fix = "pass a loader of it, such as PyTorch's DataLoader(data)"
    raise ArgumentError(where, expected, type(data).__name__, fix)


def _refuse_batches(data: Any, where: str) -> None:
    """Raise for a list of batches, which is no ``(X, y)``."""
    if is_batches(data):
        fix = "pass a function, lambda: iter(batches); or for nested X and y a tuple"
        got = f"a list of {len(data)} {type(data[0]).__name__}s"
        raise ArgumentError(where, "(X, y) or a function that returns batches", got, fix)


class NestedFit:
    """The checked data and settings of a fit on nested data, weighted rows or a source of batches.

    Parameters
    ----------
    trainer : Trainer
        Its parts.
    train : object
        The training data.
    size : int
        The batch size that is asked for.
    rng : int, Generator or None
        Decides the order of the rows.
    drop_last, resume : object
        As in `Trainer.fit`.
    class_weight, transform, sampler : object
        As in `Trainer.fit`.

    Attributes
    ----------
    rows : BatchSource
        The training data.
    forward : NestedForward
        The function of a step.
    step_rows : int
        Rows of a step; batches, for a source.
    part_rows : int or None
        Rows that go through the model at once; None for all of a step.
    min_rows : int
        Smallest batch that the model takes.
    """

    def __init__(
        self, trainer: Any, train: Any, size: int, rng: Any, drop_last: bool, resume: Any, options: tuple[Any, Any, Any]
    ) -> None:
        class_weight, transform, sampler = options
        rng = as_generator(FIT, rng)
        for name, option in (("transform(X, y, rng)", transform), ("sampler(n, rng)", sampler)):
            if option is not None:
                check_function(option, name, FIT)
        accumulate = trainer.accumulate
        rows = as_rows(train, trainer, FIT, accumulate, rng, sampler)
        given = isinstance(rows, Source)
        if given and size != DEFAULT_SIZE:
            raise ArgumentError(FIT, "no batch_size for batches that a source makes", size, "set it there")
        if sampler is not None and not isinstance(rows, NestedRows):
            raise ArgumentError(FIT, "arrays in memory for sampler", rows.kind, "order the rows there")
        if given and resume is not None:
            rows.restart()
        dtype = dtype_of(trainer.model)
        rows = rows if class_weight is None else weigh_classes(rows, class_weight, dtype)
        self.transform = None if transform is None else partial(transformed, transform, dtype)
        self.options = {"transform": _name(transform), "sampler": _name(sampler)}
        self.rows = rows
        self.forward = prepare(trainer, rows, FIT, trainer.metrics, must_count=True, transform=self.transform)
        self.step_rows = accumulate if given else size * accumulate
        self.batch_rows = len(rows.head(sys.maxsize)[0]) if given else min(size, len(rows))
        self.part_rows = self.batch_rows if accumulate > 1 else None
        self.min_rows = 1
        if not given:
            self.min_rows = smallest_batch(trainer.model, rows, size, FIT, drop_last, self.step_rows)
        self.steps = 0 if given else len(rows) // size
        self.trainer, self.rng, self.drop_last, self.resume = trainer, rng, drop_last, resume

    def new_run(self, epochs: int, validation: Any, progress: bool) -> NestedRun:
        """Return the run; see `Trainer.fit`."""
        trainer, policy = self.trainer, None
        if trainer.compile is not False and trainer.accumulate == 1:
            policy = NestedPolicy(self.forward, trainer.optimizer, trainer.compile)
            policy.expect(self.batch_rows, self.steps * epochs)
        evaluate = None if validation is None else validator(trainer, validation)
        hooks = run_hooks(trainer, progress, policy, self.steps // trainer.accumulate)
        state: TrainState = trainer._new_state(epochs, self.resume)
        changes = hooks.methods["on_gradients"]
        stepper = NestedStepper(state, changes, policy, rows=self.part_rows, min_rows=self.min_rows)
        stepper.start(self.forward)
        parts = stepper, hooks, self.rows, self.step_rows, self.rng, trainer.metrics, evaluate
        run = NestedRun(*parts, drop_last=self.drop_last)
        run.transform, run.options = self.transform, self.options
        return run


def _name(function: Any) -> str | None:
    """Return the name of a function; of an object its type, since its text may have an address."""
    return None if function is None else getattr(function, "__name__", type(function).__name__)


def weigh_classes(rows: Any, class_weight: Any, dtype: Any) -> Any:
    """Return rows whose weights are multiplied by the weight of their label's class."""
    labels = rows.y.leaves[0] if isinstance(rows, NestedRows) and rows.y.paths == [""] else np.zeros(())
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        fix = "pass sample_weight"
        raise ArgumentError(FIT, "integer labels of shape (N,) in memory for class_weight", "other targets", fix)
    from sklearn.utils.class_weight import compute_sample_weight

    expected = "class_weight to be a dict of weights by label or 'balanced'"
    if not isinstance(class_weight, dict | str):  # scikit-learn takes lists, of one dict for each output
        raise ArgumentError(FIT, expected, repr(class_weight))
    for label, value in class_weight.items() if isinstance(class_weight, dict) else ():
        if not is_real(value) or value < 0:
            raise ArgumentError(FIT, "class_weight of numbers of at least 0", f"{value!r} for label {label!r}")
    try:
        weight = compute_sample_weight(class_weight, labels)
    except (TypeError, ValueError):
        known = set(np.unique(labels))
        unknown = [label for label in class_weight if label not in known] if isinstance(class_weight, dict) else []
        got = f"label {unknown[0]!r}, which y lacks" if unknown else repr(class_weight)
        raise ArgumentError(FIT, expected, got) from None
    weight = weight if rows.y.weight is None else weight * rows.y.weight
    targets = Columns(rows.y.template, [labels], rows.y.paths)
    return NestedRows(rows.X, with_weight(targets, weight, dtype, FIT), rows.sampler)


def transformed(transform: Any, dtype: Any, X: Columns, y: Columns, rng: Any) -> tuple[Columns, Columns]:
    """Return a batch that ``transform(X, y, rng)`` has changed; weights stay."""
    made, where = transform(X.tree, y.tree, rng), f"{FIT}, transform"
    if not isinstance(made, tuple | list) or len(made) != 2:
        raise DTypeError(where, "transform(X, y, rng) to return (X, y)", type(made).__name__)
    try:
        # copied: the function may return the same arrays for each batch, and targets of an epoch are kept
        return batch_columns((*made, y.weight) if y.weighted else made, dtype, where, copied=True)
    except MicrofwError as error:  # of a check of data, which does not name the function
        if str(error).startswith(where):
            raise
        raise type(error)(f"{where}: {str(error).removeprefix('Dataset: ').partition('; ')[0]}") from None


def prepare(
    trainer: Any, rows: Any, where: str, metrics: Any, must_count: bool = False, transform: Any = None
) -> NestedForward:
    """Return the function of a step on nested data, checked on some rows."""
    X, y = rows.head(2)
    forward = NestedForward(trainer.model, trainer.loss, X, y, where)
    counts = forward.denominator(y) > 0
    if not counts and isinstance(rows, NestedRows):
        counted = counting_rows(forward, rows.y, where)
        if counted is not None:
            counts, X, y = True, rows.X[counted], rows.y[counted]
        elif must_count:
            raise DataError(where, "rows that count in the loss", f"none of {len(rows)}")
    if transform is not None:
        X, y = (part.like([leaf.copy() for leaf in part.leaves]) for part in (X, y))  # it may work in place
        X, y = transform(X, y, np.random.default_rng(0))  # not the run's generator
    forward.learn(X, y, counts, metrics)
    return forward


def evaluate(trainer: Any, data: Any, batch_size: int, where: str) -> dict[str, float]:
    """Return the mean loss, its parts, and the metrics by head, batch by batch."""
    rows = as_rows(data, trainer, where)
    forward = prepare(trainer, rows, where, trainer.metrics)
    sums, total, outputs, targets = np.zeros(1), 0.0, [], []
    with evaluating(trainer.model):
        for X, y, _ in rows.batches(batch_size):
            count = forward.denominator(y)
            made = forward.call([as_data(leaf) for leaf in X.leaves])
            if count:
                loss, parts = forward.parts_of(forward.loss_of(made, [as_data(leaf) for leaf in y.leaves]))
                share = 1 if is_sum(trainer.loss) else count
                sums = sums + [share * float(part.item()) for part in (loss, *parts)]
                total += count
            elif smooths_weight_0(trainer.loss):
                fix = "leave label_smoothing out, or pass arrays without weights, which are not evaluated in batches"
                expected = "a class weight above 0 in each batch, with label_smoothing"
                raise ArgumentError(where, expected, f"a batch of {len(y)} rows with weights of 0 alone", fix)
            if trainer.metrics:
                outputs.append(forward.outputs.like([leaf.data for leaf in forward.kept(made)]))
                targets.append(y)
    means = (sums / total if total else np.full(1 + len(forward.names), np.nan)).tolist()
    found = dict(zip(("loss", *(f"loss/{name}" for name in forward.names)), means, strict=True))
    if trainer.metrics:
        found |= measure_heads(trainer.metrics, trainer.loss, join(outputs), join(targets))
    return found


def predict(model: Any, X: Any, batch_size: int, where: str) -> Any:
    """Return the outputs of a model in evaluation mode, in the model's structure."""
    columns = as_columns(X, "X", dtype_of(model), where, copied=False)
    rows, call = same_rows(where, X=columns), ModelCall(model, columns.template).call
    with evaluating(model):
        batches = [columns[k : k + batch_size] for k in range(0, rows, batch_size)]
        parts = [output_columns(call([as_data(leaf) for leaf in batch.leaves]), where) for batch in batches]
    return join_outputs(parts, rows, batch_size, where)
