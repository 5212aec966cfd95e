"""Trainer: the loop over epochs, and in them over steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from microfw.autograd.mode import mode
from microfw.data.batching import check_batch_size
from microfw.data.dataset import Dataset, as_dataset
from microfw.data.rows import Rows
from microfw.errors import CheckpointError, DataError, message
from microfw.optim.checks import as_list
from microfw.training.checks import check_epochs, check_fit, check_parts, check_steps, smallest_batch
from microfw.training.clipping import Clip
from microfw.training.history import History
from microfw.training.hooks import Hooks, TrainState
from microfw.training.inputs import as_features, dtype_of, predicted
from microfw.training.losses import mean_loss
from microfw.training.metrics import decide, resolve
from microfw.training.progress import Progress
from microfw.training.run import Run
from microfw.training.saving import Saved
from microfw.training.state import evaluating, module_mode, quiet
from microfw.training.stepper import Stepper
from microfw.training.totals import measure

Array = np.ndarray[Any, Any]


class Trainer:
    """Trains a model on a dataset, epoch by epoch, and measures it.

    Parameters
    ----------
    model : Module
        What is trained.
    loss : Module or callable
        ``loss(outputs, targets)`` gives one number, such as `nn.CrossEntropyLoss` for labels.
    optimizer : Optimizer
        Made with ``model.parameters()``. `LBFGS` minimises the loss of each batch for some iterations, so give it
        all rows: ``batch_size=len(train)``.
    metrics : sequence of str or callable
        "accuracy", "r2", any other name that scikit-learn has, or functions ``f(y_true, y_pred)``; for labels
        ``y_pred`` is the predicted labels, and else the model's outputs.
    hooks : sequence of Hook
        Told of the moments of training, in this order.
    accumulate : int
        How many batches' gradients make one step: that of the joined batch, with the memory of one batch.
    clip_norm, clip_value : float, optional
        Clip the gradients before each step; see `optim.clip_grad_norm` and `optim.clip_grad_value`.
    compile : bool, optional
        Whether to replay steps, see `mf.compile`, which gives the same bits in less time. By default models that
        are made of this library's layers alone are, once a batch's shape has been seen often enough.

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
        Hooks(hooks)
        self.model = model
        self.loss = loss
        self.optimizer = optimizer
        self.metrics = resolve(metrics)
        self.hooks = hooks
        self._run: Run | None = None
        self.accumulate = accumulate
        self.compile = compile
        self.clips = [Clip(clip_norm, clip_value)] if clip_norm or clip_value else []

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
            What to train on.
        epochs : int
            How many times to go through all rows.
        batch_size : int
            Rows in a batch, and so in a step unless the Trainer accumulates.
        validation : Dataset or (X, y), optional
            Measured after each epoch.
        rng : int, numpy.random.Generator or None
            Where the order of the rows comes from.
        progress : bool
            Show a bar on standard error, or lines if it is not a terminal; and one line if steps are not replayed in a
            fit where that would gain some seconds.
        resume : str or path-like, optional
            A checkpoint to go on from, as `Checkpoint` or `save` left it. Model, loss, optimizer, hooks, data and
            batch_size must be as they were; ``rng`` is put to where it was. Everything then goes on bit for bit as
            if it had never stopped, times apart.
        drop_last : bool
            Leave out the rows at the end of an epoch that do not fill a step. Else the last step has fewer rows; a
            last row alone joins the step before if a layer, such as `BatchNorm1D`, needs two.

        Returns
        -------
        History
            A row for each epoch.

        Raises
        ------
        NonFiniteError
            If a loss or a gradient turns NaN or infinite, naming the first op that did. The parameters are as
            they were before that step.
        ArgumentError, DataError, ShapeError, DTypeError
            If model, loss, optimizer and data do not fit together, before anything is trained.
        CheckpointError
            If the file to resume from is damaged, or of another run; nothing is changed then.

        Notes
        -----
        Training can be interrupted with Ctrl-C: the model is then as the last completed step left it, and `save`
        writes where it is. Metrics of the training rows are those of the outputs that the steps computed, which
        costs no other pass.

        Data are cast to the dtype of the model's first parameter. Model and loss are called with Tensors, whether a
        step is replayed or not.

        A step in which no row counts in the loss, since all labels are ignored or have a weight of 0, makes no update.
        ``skipped`` in the History is the number of such steps, if there were any.
        """
        check_epochs(epochs)
        check_batch_size(batch_size, "Trainer.fit")
        check_parts(self.model, self.loss, self.optimizer)
        rows, evaluate = self._data(train, validation)
        least = smallest_batch(self.model, rows, batch_size, "Trainer.fit", drop_last)
        step_rows = batch_size * self.accumulate
        if drop_last and len(rows) < step_rows:
            got = f"{len(rows)} rows with drop_last=True"
            raise DataError(message("Trainer.fit", f"the {step_rows} rows of a step", got, "use a smaller batch_size"))
        state = TrainState(self.model, self.loss, self.optimizer, epochs)
        shown = [Progress()] if progress else []
        hooks = Hooks([*self.clips, *self.hooks, *shown])
        parts = batch_size if self.accumulate > 1 else None
        stepper = Stepper(state, hooks.gradients, compile=self.compile, rows=parts)
        stepper.least = least
        stepper.replay_policy.expect(min(batch_size, len(rows)), len(rows) // batch_size * epochs)
        for bar in shown if parts is None else []:  # parts of a step are never replayed
            bar.why_eager = stepper.replay_policy.why_eager
        generator = np.random.default_rng(rng)
        self._run = run = Run(stepper, hooks, rows, step_rows, generator, self.metrics, evaluate, drop_last=drop_last)
        with mode(), quiet(), module_mode(self.model, True), run.interrupts:
            saved = None if resume is None else Saved(resume, run)
            try:
                run.start(saved)
                run.epochs()
            finally:
                run.end()
        return state.history

    def _data(self, train: Any, validation: Any) -> tuple[Rows, Callable[[], dict[str, float]] | None]:
        """Return the rows to train on, and what measures those to validate with, both checked."""
        dtype = dtype_of(self.model)
        data = as_dataset(train, "Trainer.fit", dtype)
        if not check_fit(self.model, self.loss, data, "Trainer.fit"):
            got = f"none of {len(data)}: all labels are ignored, or of weight 0"
            raise DataError(message("Trainer.fit", "rows that count in the loss", got))
        rows = Rows(data.X, data.y)
        if validation is None:
            return rows, None
        held = as_dataset(validation, "Trainer.fit, validation", dtype)
        check_fit(self.model, self.loss, held, "Trainer.fit, validation")
        return rows, lambda: {f"val_{name}": value for name, value in self.evaluate(held).items()}

    def save(self, path: Any) -> None:
        """Save where training is, for ``fit(..., resume=path)`` to go on from, and for `mf.load` to take the model.

        Parameters
        ----------
        path : str or path-like
            Ends with ``.safetensors`` or ``.npz``.

        Raises
        ------
        CheckpointError
            If nothing was trained, or the file cannot be written; one that was there before is then as it was.

        Notes
        -----
        It saves the parameters, what the optimizer and the hooks remember (those with ``state_dict`` and
        ``load_state_dict``), the states of all random generators, the place in the epoch's order and the history.
        Where a hook changed the model when training ended, as to bring the best weights back, that is what is saved;
        a `Checkpoint` saves before that.
        """
        if self._run is None:
            raise CheckpointError(
                message("Trainer.save", "a run of fit", "none", "call fit first, or save the model with mf.save")
            )
        self._run.save(path)

    def evaluate(self, data: Any, batch_size: int = 4096) -> dict[str, float]:
        """Return the mean loss and the metrics on a dataset, in evaluation mode, recording nothing.

        Parameters
        ----------
        data : Dataset or (X, y)
            What to measure on.
        batch_size : int
            Rows that go through the model at once; decides memory, not the result.

        Returns
        -------
        dict
            "loss", and each metric by name. The loss is NaN if no row counts in it: all labels are ignored, or have
            a weight of 0.
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
        check_batch_size(batch_size, "Trainer.predict")
        X = as_features(X.X if isinstance(X, Dataset) else X, self.model)
        starts = range(0, max(len(X), 1), batch_size)
        with evaluating(self.model):
            parts = [predicted(self.model, X[k : k + batch_size]) for k in starts]
        return np.concatenate(parts)

    def predict_classes(self, X: Any, batch_size: int = 4096) -> Array:
        """Return the label that the model finds most likely for each row, as the metrics see it."""
        outputs = self.predict(X, batch_size)
        return decide(outputs, np.empty(outputs.shape[:-1], np.intp), self.loss)
