"""Checks before a training run: model, loss, optimizer and data must fit together."""

from __future__ import annotations

from typing import Any

from microfw.autograd.mode import mode
from microfw.autograd.tensor import Tensor
from microfw.data.dataset import Dataset
from microfw.data.rows import Rows
from microfw.errors import ArgumentError, DataError, DTypeError, ShapeError, message
from microfw.nn import CrossEntropyLoss, Loss, Module, NLLLoss
from microfw.optim.checks import is_integer, is_real
from microfw.training.inputs import as_data
from microfw.training.losses import counting_rows, is_sum
from microfw.training.state import evaluating, module_mode, preserved, quiet


def check_parts(model: Any, loss: Any, optimizer: Any) -> None:
    """Raise unless model, loss and optimizer are of the right kind, and the optimizer has the model's parameters."""
    for name, part, good, expected in (
        ("model", model, isinstance(model, Module), "a Module"),
        ("loss", loss, callable(loss), "a loss such as nn.MSELoss()"),
        ("optimizer", optimizer, hasattr(optimizer, "step") and hasattr(optimizer, "zero_grad"), "an optimizer"),
    ):
        if isinstance(part, type):
            raise ArgumentError(message("Trainer", f"{name} to be {expected}", f"the class {part.__name__}", "call it"))
        if not good:
            raise ArgumentError(message("Trainer", f"{name} to be {expected}", type(part).__name__))
    stepped = getattr(getattr(optimizer, "flat", None), "parameters", None)
    own = {id(p) for p in model.parameters()}
    if stepped is not None and not any(id(p) in own for p in stepped):
        raise ArgumentError(
            message("Trainer", "an optimizer of the model's parameters", "others", "make it with model.parameters()")
        )


def check_steps(loss: Any, optimizer: Any, accumulate: Any, clip_norm: Any, clip_value: Any) -> None:
    """Raise unless loss, optimizer, accumulation and clipping can be combined."""
    if getattr(optimizer, "takes_denominator", False) and is_sum(loss):
        got, fix = f"{type(loss).__name__} with reduction='sum'", "use reduction='mean'"
        raise ArgumentError(message("Trainer", f"a mean with {type(optimizer).__name__}", got, fix))
    if not is_integer(accumulate, 1):
        raise ArgumentError(message("Trainer", "accumulate to be a positive integer", repr(accumulate)))
    for name, limit in (("clip_norm", clip_norm), ("clip_value", clip_value)):
        if limit is None:
            continue
        if not is_real(limit) or limit <= 0:
            raise ArgumentError(message("Trainer", f"{name} above 0, finite", repr(limit)))
        if getattr(optimizer, "takes_closure", False):
            fix = "its line search needs the true gradients"
            raise ArgumentError(message("Trainer", f"no {name} with {type(optimizer).__name__}", limit, fix))


def check_epochs(epochs: Any) -> None:
    """Raise unless a number of epochs is an integer of at least 0."""
    if not is_integer(epochs, 0):
        raise ArgumentError(message("Trainer.fit", "epochs to be an integer of at least 0", repr(epochs)))


def check_fit(model: Module, loss: Any, data: Dataset, where: str) -> bool:
    """Raise unless the model's outputs for two rows and all targets suit the loss; return True if a row counts."""
    rows = counting_rows(loss, data.y, 2, where)
    with mode(observer=None, timer=None), evaluating(model), preserved(model, loss):
        outputs = model(as_data(data.X[:2]))
        if not isinstance(outputs, Tensor):
            raise DTypeError(message(where, "the model to return a Tensor", type(outputs).__name__))
        if outputs.shape[:1] != data.y[:2].shape[:1]:
            raise ShapeError(
                message(where, "an output for each row", f"shape {outputs.shape} for {len(data.y[:2])} rows")
            )
        if isinstance(loss, CrossEntropyLoss | NLLLoss):
            _labels(outputs, data, where, loss)
        elif isinstance(loss, Loss):
            _targets(outputs, data, where, type(loss).__name__)
        if rows.start == rows.stop:
            return False
        outputs = outputs if rows == slice(0, 2) else model(as_data(data.X[rows]))
        value = loss(outputs, as_data(data.y[rows]))
    if not isinstance(value, Tensor) or value.size != 1:
        got = f"shape {value.shape}" if isinstance(value, Tensor) else type(value).__name__
        raise ArgumentError(message(where, "a loss of one number", got, "use reduction='mean'"))
    return True


def smallest_batch(model: Module, data: Rows, batch_size: int, where: str, drop_last: bool = False) -> int:
    """Return the smallest batch that the model takes in training, 1 or 2 rows; batch norm, for example, needs 2.

    The model runs on one row, and only if a batch of one row would occur.

    Raises
    ------
    ArgumentError, DataError
        If all batches, or the data, have too few rows. The message contains that of the layer.
    """
    n = len(data)
    if n > 1 and batch_size > 1 and (drop_last or n % batch_size != 1):
        return 1
    why = _fails(model, data, 1)
    if why is None or (n > 1 and _fails(model, data, 2) is not None):  # another error, which the first step raises
        return 1
    fix = f"a layer needs more than one row: {why}"
    if n == 1:
        raise DataError(message(where, "at least 2 rows", "1", fix))
    if batch_size == 1:
        raise ArgumentError(message(where, "a batch_size of at least 2", "1", fix))
    return 2


def _fails(model: Module, data: Rows, rows: int) -> Exception | None:
    """Return the error that a model raises in training for a batch of ``rows`` rows, or None."""
    ((X, _, _),) = data.take(slice(0, rows)).batches(rows)
    with mode(observer=None, timer=None, recording=False), module_mode(model, True), preserved(model), quiet():
        try:
            model(as_data(X))
        except Exception as error:
            return error
    return None


def _labels(outputs: Tensor, data: Dataset, where: str, loss: Loss) -> None:
    if data.task != "classification":
        fix = "pass integer labels, or use nn.MSELoss for regression"
        raise DataError(
            message(where, f"integer labels for {type(loss).__name__}", f"targets of shape {data.y.shape}", fix)
        )
    classes = outputs.shape[-1]
    ignored = getattr(loss, "ignore_index", None)
    wrong = (data.y >= classes) if ignored is None else (data.y >= classes) & (data.y != ignored)
    if outputs.ndim == 2 and wrong.any():
        row = int(wrong.argmax())
        fix = f"give the model's last layer {int(data.y[wrong].max()) + 1} outputs"
        raise DataError(
            message(
                where, f"labels from 0 to {classes - 1}, as the model's outputs", f"{data.y[row]} at row {row}", fix
            )
        )


def _targets(outputs: Tensor, data: Dataset, where: str, loss: str) -> None:
    if data.task == "classification":
        fix = "use nn.CrossEntropyLoss, or mf.data.Dataset(X, y, task='regression')"
        raise DataError(message(where, f"real targets of shape (N, k) for {loss}", "integer labels", fix))
    if outputs.shape[1:] != data.y.shape[1:]:
        wanted, got = (str(("N", *shape[1:])).replace("'", "") for shape in (data.y.shape, outputs.shape))
        count = data.y.shape[-1]
        fix = (
            f"give the model's last layer {count} output{'s' if count > 1 else ''}"
            if outputs.ndim > 1
            else "keep the last axis"
        )
        raise ShapeError(message(where, f"outputs of shape {wanted}, as the targets", got, fix))
