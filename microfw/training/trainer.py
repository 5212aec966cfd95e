"""The Trainer: trains, evaluates, predicts and saves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from microfw.autograd.mode import mode
from microfw.data.dataset import Dataset, Rows, as_dataset, check_count
from microfw.errors import ArgumentError, CheckpointError
from microfw.nn import Module
from microfw.nn.forward_state import evaluating, module_mode
from microfw.optim.checks import as_list, is_real
from microfw.training.clipping import Clip
from microfw.training.evaluation import (
    Array,
    as_features,
    check_fit,
    dtype_of,
    is_sum,
    mean_loss,
    predict,
    quiet,
    smallest_batch,
)
from microfw.training.history import History
from microfw.training.hooks import TrainState, check_hook
from microfw.training.metrics import measure, resolve, to_predictions
from microfw.training.progress import Progress
from microfw.training.replay_policy import ReplayPolicy
from microfw.training.run import Hooks, Run
from microfw.training.saving import Saved
from microfw.training.stepper import Stepper


class Trainer:
    """Trains a model on a dataset, and evaluates it.

    Parameters
    ----------
    model : Module
        The model to train.
    loss : Module or callable
        ``loss(outputs, targets)`` returns a Tensor of one number, such as `nn.CrossEntropyLoss` for labels.
    optimizer : Optimizer
        Made with ``model.parameters()``. `LBFGS` minimises the loss of each batch for some iterations, so give it
        all rows: ``batch_size=len(train)``.
    metrics : sequence of str or callable
        "accuracy", "r2", any name of scikit-learn, or functions ``f(y_true, y_pred)``. ``y_pred`` are predicted labels
        for classification, else the model's outputs.
    hooks : sequence of Hook
        Called at the events of training, in this order.
    accumulate : int
        Batches whose gradients make one step. The step equals that of the joined batch, with the memory of one batch.
    clip_norm, clip_value : float, optional
        Clip the gradients before each step; see `optim.clip_grad_norm` and `optim.clip_grad_value`.
    compile : bool, optional
        Whether to replay steps, which gives the same bits in less time; see `mf.compile`. By default steps of models
        made of this library's layers are replayed, after some eager steps for each shape of a batch.

    Examples
    --------
    >>> import microfw as mf
    >>> train, test = mf.data.load("iris", rng=0)
    >>> model = mf.nn.Sequential(mf.nn.Dense(4, 16, rng=0), mf.nn.ReLU(), mf.nn.Dense(16, 3, rng=1))
    >>> optimizer = mf.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    >>> trainer = Trainer(model, mf.nn.CrossEntropyLoss(), optimizer, metrics=["accuracy"])
    >>> history = trainer.fit(train, epochs=20, validation=test, rng=0, progress=False)
    >>> list(history[-1])
    ['epoch', 'loss', 'accuracy', 'val_loss', 'val_accuracy', 'seconds', 'lr', 'gradient_norm']
    >>> trainer.evaluate(test)["accuracy"] > 0.9
    True
    """

    def __init__(
        self,
        model: Any,
        loss: Any,
        optimizer: Any,
        metrics: Any = (),
        hooks: Sequence[Any] = (),
        *,
        accumulate: int = 1,
        clip_norm: float | None = None,
        clip_value: float | None = None,
        compile: bool | None = None,
    ) -> None:
        check_parts(model, loss, optimizer)
        check_steps(loss, optimizer, accumulate, clip_norm, clip_value)
        hooks = as_list(hooks, "Trainer", "hooks", "pass a list of them")
        for hook in hooks:
            check_hook(hook)
        self.model = model
        self.loss = loss
        self.optimizer = optimizer
        self.metrics = resolve(metrics)
        self.hooks = hooks
        self._run: Run | None = None
        self.accumulate = accumulate
        self.compile = compile
        self.clips = [Clip(clip_norm, clip_value)] if clip_norm or clip_value else []

    def __repr__(self) -> str:
        metrics = f", metrics: {', '.join(self.metrics)}" if self.metrics else ""
        hooks = f", hooks: {', '.join(type(hook).__name__ for hook in self.hooks)}" if self.hooks else ""
        return f"Trainer({type(self.model).__name__}, {self.loss!r}, {self.optimizer!r}{metrics}{hooks})"

    def fit(
        self,
        train: Any,
        epochs: int = 10,
        batch_size: int = 32,
        validation: Any = None,
        rng: int | np.random.Generator | None = None,
        progress: bool = True,
        resume: Any = None,
        drop_last: bool = False,
    ) -> History:
        """Train the model.

        Parameters
        ----------
        train : Dataset or (X, y)
            Training data.
        epochs : int
            Passes over all rows.
        batch_size : int
            Rows of a batch; a step has ``accumulate`` batches.
        validation : Dataset or (X, y), optional
            Evaluated after each epoch.
        rng : int, numpy.random.Generator or None
            Decides the order of the rows.
        progress : bool
            Show a bar on standard error, or lines if it is not a terminal; and a line if steps are not replayed
            although that would save seconds.
        resume : str or path-like, optional
            A file saved by `Checkpoint` or `save`, from which to continue. Model, loss, optimizer, hooks, data and
            ``batch_size`` must be the same; the state of ``rng`` is restored. Results have the same bits as those of an
            uninterrupted run, times apart.
        drop_last : bool
            Leave out the rows at the end of an epoch that do not fill a step. Else the last step has fewer rows. A
            single last row joins the step before if a layer, such as `BatchNorm1D`, needs two rows.

        Returns
        -------
        History
            A row for each epoch.

        Raises
        ------
        NonFiniteError
            If a loss or a gradient is NaN or infinite; the message names the first op that made it. The parameters are
            those from before the step.
        ArgumentError, DataError, ShapeError, DTypeError
            If model, loss, optimizer and data do not fit together, before anything is trained.
        CheckpointError
            If the file to resume from is damaged, or of another run; then nothing is changed.

        Notes
        -----
        Training can be interrupted with Ctrl-C. The model then has the parameters after the last complete step, and
        `save` saves the run. Training metrics use the outputs computed in the steps, without another pass.

        Data are cast to the dtype of the model's first parameter. Model and loss are always called with Tensors.

        A step in which no row counts in the loss, since all labels are ignored or all weights are 0, makes no update.
        The History has the number of such steps as ``skipped``, if there were any.
        """
        check_count("Trainer.fit", "epochs", epochs, 0)
        check_count("Trainer.fit", "batch_size", batch_size, fix="32 is a good start")
        check_parts(self.model, self.loss, self.optimizer)  # again: they are attributes, and may have been replaced
        dtype, step_rows = dtype_of(self.model), batch_size * self.accumulate
        data = as_dataset(train, "Trainer.fit", dtype)
        check_fit(self.model, self.loss, data, "Trainer.fit", must_count=True)
        evaluate = None if validation is None else self._validation(validation, dtype)
        rows = Rows(data.X, data.y)
        min_rows = smallest_batch(self.model, rows, batch_size, "Trainer.fit", drop_last, step_rows)
        # Accumulated steps run eagerly: a part is replayed only if no other part follows it.
        replays = self.compile is not False and self.accumulate == 1
        policy = self._replay_policy(len(rows), batch_size, epochs) if replays else None
        shown = [Progress(None if policy is None else policy.why_eager)] if progress else []
        state = TrainState(self.model, self.loss, self.optimizer, epochs)
        hooks = Hooks([*self.clips, *self.hooks, *shown])
        parts = batch_size if self.accumulate > 1 else None
        stepper = Stepper(state, hooks.methods["on_gradients"], policy, rows=parts, min_rows=min_rows)
        generator = np.random.default_rng(rng)
        self._run = run = Run(stepper, hooks, rows, step_rows, generator, self.metrics, evaluate, drop_last=drop_last)
        # mode() changes nothing here: it restores mode and module scope if Ctrl-C comes inside of a layer.
        with mode(), quiet(), module_mode(self.model, True), stepper.interrupts:
            run.epochs(None if resume is None else Saved(resume, run))
        return state.history

    def _replay_policy(self, rows: int, batch_size: int, epochs: int) -> ReplayPolicy:
        policy = ReplayPolicy(self.model, self.loss, self.optimizer, self.compile)
        policy.expect(min(batch_size, rows), rows // batch_size * epochs)
        return policy

    def _validation(self, validation: Any, dtype: Any) -> Callable[[], dict[str, float]]:
        """Check the validation data, and return a function that evaluates them."""
        dataset = as_dataset(validation, "Trainer.fit, validation", dtype)
        check_fit(self.model, self.loss, dataset, "Trainer.fit, validation")
        return lambda: {f"val_{name}": value for name, value in self.evaluate(dataset).items()}

    def save(self, path: Any) -> None:
        """Save the run, for ``fit(..., resume=path)``; `mf.load` loads the model from the same file.

        Parameters
        ----------
        path : str or path-like
            Ends with ``.safetensors`` or ``.npz``.

        Raises
        ------
        CheckpointError
            If nothing was trained, or the file cannot be written; an earlier file is then not changed.

        Notes
        -----
        The file contains the parameters, the state of the optimizer and of hooks with ``state_dict`` and
        ``load_state_dict``, the states of all random generators, the position in the epoch and the history. If a hook
        changed the model when training ended, such as by restoring the best weights, the changed model is saved;
        a `Checkpoint` saves before that.
        """
        if self._run is None:
            raise CheckpointError(
                "Trainer.save", "a run of fit", "none", "call fit first, or save the model with mf.save"
            )
        self._run.save(path)

    def evaluate(self, data: Any, batch_size: int = 4096) -> dict[str, float]:
        """Return the mean loss and the metrics on a dataset, in evaluation mode.

        Parameters
        ----------
        data : Dataset or (X, y)
            Data to evaluate on.
        batch_size : int
            Rows that go through the model at once. Affects memory, not the result.

        Returns
        -------
        dict
            "loss", and each metric by name. The loss is NaN if no row counts: all labels are ignored, or all weights
            are 0.
        """
        data = as_dataset(data, "Trainer.evaluate", dtype_of(self.model))
        outputs = self.predict(data.X, batch_size)
        with evaluating(self.model):
            loss = mean_loss(self.loss, outputs, data.y)
        return {"loss": loss, **measure(self.metrics, self.loss, outputs, data.y)}

    def predict(self, X: Any, batch_size: int = 4096) -> Array:
        """Return the model's outputs, such as logits, in evaluation mode; see `predict_classes` for labels.

        Parameters
        ----------
        X : array_like or Dataset
            Rows of features.
        batch_size : int
            Rows that go through the model at once.

        Returns
        -------
        ndarray
            A row of outputs for each row of X.
        """
        check_count("Trainer.predict", "batch_size", batch_size, fix="32 is a good start")
        return predict(self.model, as_features(X.X if isinstance(X, Dataset) else X, self.model), batch_size)

    def predict_classes(self, X: Any, batch_size: int = 4096) -> Array:
        """Return the predicted label of each row, as used by the metrics."""
        outputs = self.predict(X, batch_size)
        return to_predictions(outputs, np.empty(outputs.shape[:-1], np.intp), self.loss)


# Checks. A test that passes for good arguments comes first; what is wrong is only looked for after it has failed.


def check_parts(model: Any, loss: Any, optimizer: Any) -> None:
    """Raise unless model, loss and optimizer are of the right kind, and the optimizer has the model's parameters."""
    able = hasattr(optimizer, "step") and hasattr(optimizer, "zero_grad")
    if not able or not isinstance(model, Module) or not callable(loss) or isinstance(loss, type):
        _refuse_part(model, loss, optimizer, able)
    stepped = getattr(getattr(optimizer, "flat", None), "parameters", None)
    if stepped is not None and {id(p) for p in stepped}.isdisjoint([id(p) for p in model.parameters()]):
        expected, fix = "an optimizer of the model's parameters", "make it with model.parameters()"
        raise ArgumentError("Trainer", expected, "others", fix)


def _refuse_part(model: Any, loss: Any, optimizer: Any, able: bool) -> None:
    for name, part, good, expected in (
        ("model", model, isinstance(model, Module), "a Module"),
        ("loss", loss, callable(loss), "a loss such as nn.MSELoss()"),
        ("optimizer", optimizer, able, "an optimizer"),
    ):
        if isinstance(part, type):
            raise ArgumentError("Trainer", f"{name} to be {expected}", f"the class {part.__name__}", "call it")
        if not good:
            raise ArgumentError("Trainer", f"{name} to be {expected}", type(part).__name__)


def check_steps(loss: Any, optimizer: Any, accumulate: Any, clip_norm: Any, clip_value: Any) -> None:
    """Raise unless loss, optimizer, accumulation and clipping can be combined."""
    if getattr(optimizer, "takes_denominator", False) and is_sum(loss):
        got, fix = f"{type(loss).__name__} with reduction='sum'", "use reduction='mean'"
        raise ArgumentError("Trainer", f"a mean with {type(optimizer).__name__}", got, fix)
    check_count("Trainer", "accumulate", accumulate)
    for name, limit in (("clip_norm", clip_norm), ("clip_value", clip_value)):
        if limit is None:
            continue
        if not is_real(limit) or limit <= 0:
            raise ArgumentError("Trainer", f"{name} above 0, finite", repr(limit))
        if getattr(optimizer, "takes_closure", False):
            fix = "its line search needs the true gradients"
            raise ArgumentError("Trainer", f"no {name} with {type(optimizer).__name__}", limit, fix)
