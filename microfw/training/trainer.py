"""The Trainer: trains, evaluates, predicts and saves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from microfw.autograd.mode import mode
from microfw.data.dataset import Dataset, Rows
from microfw.data.nested import fill, flatten, is_nested
from microfw.errors import CheckpointError, check_count, described, suggest_keywords
from microfw.nn.forward_state import as_generator, evaluating, module_mode
from microfw.optim.checks import as_list
from microfw.training.checks import check_options, check_settings, run_hooks
from microfw.training.evaluation import (
    as_features,
    as_plain,
    check_fit,
    mean_loss,
    predict,
    quiet,
    smallest_batch,
    validator,
    with_labels,
)
from microfw.training.history import History
from microfw.training.hooks import TrainState
from microfw.training.metrics import measure, resolve, to_classes
from microfw.training.outputs import is_branch
from microfw.training.replay_policy import ReplayPolicy
from microfw.training.run import Run
from microfw.training.saving import Saved
from microfw.training.stepper import Interrupts, Stepper


class Trainer:
    """Trains a model on a dataset, and evaluates it.

    Parameters
    ----------
    model : Module
        The model to train.
    loss : Module or callable
        ``loss(outputs, targets)`` returns a Tensor of one number, such as `nn.CrossEntropyLoss` for labels. Real
        targets of shape (N,) have shape (N, 1) for the losses of `nn`; other losses get them as they are.
    optimizer : Optimizer
        Made with ``model.parameters()``. `LBFGS` minimises the loss of each batch for some iterations, so give it
        all rows: ``batch_size=len(train)``.
    metrics : sequence of str or callable
        "accuracy", "r2", any name of scikit-learn, or functions ``f(y_true, y_pred)``. ``y_pred`` are predicted labels
        for classification, else the model's outputs. Weights are not used; rows whose label the loss ignores are
        left out. A dict gives the metrics of each head of nested outputs.
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

    @suggest_keywords
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
        self.model, self.loss, self.optimizer = model, loss, optimizer
        self.metrics = metrics
        self.hooks = as_list(hooks, "Trainer", "hooks", "pass a list of them")
        self.accumulate, self.compile = accumulate, compile
        self.clip_norm, self.clip_value = clip_norm, clip_value
        self._run: Run | None = None
        check_settings(self)

    def __repr__(self) -> str:
        metrics = f", metrics: {', '.join(self.metrics)}" if self.metrics else ""
        hooks = f", hooks: {', '.join(type(hook).__name__ for hook in self.hooks)}" if self.hooks else ""
        return f"Trainer({type(self.model).__name__}, {described(self.loss)}, {self.optimizer!r}{metrics}{hooks})"

    @property
    def metrics(self) -> Any:
        """The measures of the metrics, by name. Set it to anything that the constructor takes."""
        return self._metrics

    @metrics.setter
    def metrics(self, metrics: Any) -> None:
        self._metrics = resolve(metrics)

    @property
    def history(self) -> History:
        """The History of the last `fit`: also while it runs, and after it was interrupted or failed. Empty before."""
        return History() if self._run is None else self._run.state.history

    @suggest_keywords
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
        *,
        class_weight: Any = None,
        transform: Callable[[Any, Any, np.random.Generator], Any] | None = None,
        sampler: Callable[[int, np.random.Generator], Any] | None = None,
    ) -> History:
        """Train the model.

        Parameters
        ----------
        train : Dataset, (X, y), (X, y, sample_weight), stream, or source of batches
            Training data. X and y may be nested tuples and dicts of arrays; see Notes. A source of batches is a
            generator function, called for each epoch, with the run's generator if it has a parameter ``rng``; or a
            loader such as PyTorch's DataLoader. Its batches are ``(X, y)`` or ``(X, y, sample_weight)``, and tensors of
            other libraries are read with their ``numpy()``. `data.stream` reads arrays larger than memory.
        epochs : int
            Number of passes over all rows. A resumed run counts those of the saved run, too.
        batch_size : int
            Rows of a batch; a step has ``accumulate`` batches. A source decides its batches itself.
        validation : Dataset, or any other form of ``train``, optional
            Evaluated after each epoch.
        rng : int, numpy.random.Generator or None
            Decides the order of the rows; ignored by ``resume``.
        progress : bool
            Show a bar, on a terminal or in a notebook; elsewhere a line on standard error for each tenth of the run.
            Show a line if steps are not replayed although that would save seconds.
        resume : str or path-like, optional
            A file saved by `Checkpoint` or `save`, from which to continue, with this Trainer or a new one. Model, loss,
            optimizer, data, rows of a step, ``drop_last``, ``transform`` and ``sampler`` must be the same, and
            validation data if there were any. So must the hooks that have ``state_dict`` and ``load_state_dict``, in
            their order; other hooks may differ. Results, times apart, have the bits of an uninterrupted run; see Notes.
            A source without these methods is resumed at the start of an epoch; saving it within one raises an error.
        drop_last : bool
            Leave out the rows at the end of an epoch that do not fill a step. Else the last step has fewer rows. A
            single last row joins the step before if a layer, such as `BatchNorm1D`, needs two rows. Of a source,
            batches with fewer rows than the first one are left out.
        class_weight : dict or "balanced", optional
            A weight for each label of ``y``, shape (N,), which multiplies the row's ``sample_weight``; 1 for labels
            that the dict lacks. The mean loss is divided by the sum of the weights.
        transform : callable, optional
            ``transform(X, y, rng)`` returns ``(X, y)`` for each batch in training, as in data augmentation.
        sampler : callable, optional
            ``sampler(n, rng)`` returns the numbers of the rows of an epoch, in order, for arrays in memory.

        Returns
        -------
        History
            A row for each epoch. A second fit trains the same model further, and its rows begin with epoch 1 again;
            ``first + second`` is the History of both, with the epochs numbered on.

        Raises
        ------
        NonFiniteError
            If a loss or a gradient is NaN or infinite; the message names the first op that made it. The parameters are
            those from before the step. Also if parameters are not finite, which stay.
        ArgumentError, DataError, ShapeError, DTypeError
            If model, loss, optimizer and data do not fit together, or the run to resume has begun more than ``epochs``.
        CheckpointError
            If the file to resume from is damaged, or of another run. After all of these errors but the first nothing
            is changed; `history` and `save` are still those of the run before.

        Notes
        -----
        Training can be interrupted with Ctrl-C. The model then has the parameters after the last complete step (with an
        `EarlyStopping`, those of the best epoch), `save` saves the run, and the KeyboardInterrupt has a note on how to
        continue. Training metrics use the outputs computed in the steps, without another pass.

        A resumed run has ``lr``, the other hyperparameters and the states of random generators from the file, which
        replace those set in ``on_fit_start``. ``rng`` is ignored; if layers share a generator with fit, pass it again.
        To continue with another rate, set ``optimizer.lr`` in a hook's ``on_epoch_start``; for the rest of an epoch
        that is resumed in the middle, for which ``on_epoch_start`` is not called again, in ``on_gradients``.

        Data are cast to the dtype of the model's first parameter. Model and loss are always called with Tensors. In
        nested data, in streams and in batches of a source, integers are indices or labels, and are not cast; features
        of uint8, such as images, are. Integer labels of shape (N, T) are not cast if the model has an `Embedding`.

        A tuple of features is passed to the model as positional arguments, a dict as keyword arguments, if its
        ``forward`` takes them; else as one argument. Nested targets and outputs go to the loss as they are, and weights
        as its third argument. If the loss is a dict of scalars, their sum is minimised, and the History has each as
        ``loss/name``. Metrics of nested outputs are those of each head that the targets have, too: ``accuracy/name``.

        A step in which no row counts in the loss, since all labels are ignored or all weights are 0, makes no update.
        The History has the number of such steps as ``skipped``, if there were any.
        """
        check_options(epochs, batch_size, progress=progress, drop_last=drop_last)
        check_settings(self)  # again: they are attributes, and may have been replaced
        interrupts, options = Interrupts(), (class_weight, transform, sampler)
        with interrupts.around(mode()):  # mode() changes nothing: it restores what Ctrl-C has left in a layer
            run = self._new_run(train, batch_size, rng, drop_last, resume, options, epochs, validation, progress)
            run.interrupts = run.stepper.interrupts = interrupts
            with quiet(), module_mode(self.model, True):
                self._train(run, None if resume is None else Saved(resume, run))
        return run.state.history

    def _train(self, run: Run, saved: Saved | None) -> None:
        """Train; an error before the start leaves the run before, with its history and what `save` saves."""
        run.previous, self._run = self._run, run
        try:
            run.epochs(saved)
        except KeyboardInterrupt as error:
            if run.started:
                error.add_note(run.interruption())
            raise
        finally:
            if not run.started:
                self._run = run.previous
            run.previous = None

    def _new_run(
        self, train: Any, batch_size: int, rng: Any, drop_last: bool, resume: Any, options: Any, epochs: int,
        validation: Any, progress: bool,
    ) -> Run:  # fmt: skip
        """Check the arguments of `fit`, and return its run."""
        data = as_plain(train, self.model, self.loss) if options[0] is options[1] is options[2] is None else None
        if data is None or not check_fit(self.model, self.loss, data, "Trainer.fit", True, self.metrics):
            from microfw.training.nested_fit import NestedFit

            return NestedFit(self, train, batch_size, rng, drop_last, resume, options).new_run(
                epochs, validation, progress
            )
        evaluate = None if validation is None else validator(self, validation)
        rows, step_rows = Rows(data.X, data.y), batch_size * self.accumulate
        min_rows = smallest_batch(self.model, rows, batch_size, "Trainer.fit", drop_last, step_rows)
        policy = None
        # Accumulated steps run eagerly: a part is replayed only if no other part follows it.
        if self.compile is not False and self.accumulate == 1:
            policy = ReplayPolicy(self.model, self.loss, self.optimizer, self.compile, bool(self.metrics))
            policy.expect(min(batch_size, len(rows)), len(rows) // batch_size * epochs)
        steps = len(rows) // step_rows if drop_last else -(-len(rows) // step_rows)
        hooks = run_hooks(self, progress, policy, steps)
        parts = batch_size if self.accumulate > 1 else None
        state, rng = self._new_state(epochs, resume), as_generator("Trainer.fit", rng)
        stepper = Stepper(state, hooks.methods["on_gradients"], policy, rows=parts, min_rows=min_rows)
        return Run(stepper, hooks, rows, step_rows, rng, self.metrics, evaluate, drop_last=drop_last)

    def _new_state(self, epochs: int, resume: Any) -> TrainState:
        """Return the state of a new run, with the number of epochs of earlier fits."""
        state = TrainState(self.model, self.loss, self.optimizer, epochs)
        if resume is None:
            state.history.earlier = self.history.earlier + len(self.history)
        return state

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
        changed the model when training ended, such as by restoring the best weights, `mf.load` returns the changed
        model, and a resumed run continues from the parameters before that.
        """
        if self._run is None:
            raise CheckpointError("Trainer.save", "a run of fit", "none", "call fit first, or mf.save for the model")
        self._run.save(path)

    def evaluate(self, data: Any, batch_size: int = 4096) -> dict[str, float]:
        """Return the mean loss and the metrics on a dataset, in evaluation mode.

        Parameters
        ----------
        data : Dataset, (X, y), (X, y, sample_weight), stream, or source of batches
            Data to evaluate on.
        batch_size : int
            Rows at once. Affects memory; and the loss, unless it is a mean over rows or the data are ``(X, y)``.

        Returns
        -------
        dict
            "loss", the parts of a dict, and each metric by name. The loss is NaN if no row counts: all labels are
            ignored, or all weights are 0; so are the metrics if all labels are ignored.
        """
        check_count("Trainer.evaluate", "batch_size", batch_size, fix="32 is a good start")
        found = with_labels(data, self.model, self.loss, "Trainer.evaluate")
        outputs = None if found is None else self.predict(found.X, batch_size)
        if found is not None and isinstance(outputs, np.ndarray):
            with evaluating(self.model):
                loss = mean_loss(self.loss, outputs, found.y)
            if loss is not None:
                return {"loss": loss, **measure(self.metrics, self.loss, outputs, found.y)}
        from microfw.training import nested_fit

        return nested_fit.evaluate(self, data, batch_size, "Trainer.evaluate")

    def predict(self, X: Any, batch_size: int = 4096) -> Any:
        """Return the model's outputs, such as logits, in evaluation mode; see `predict_classes` for labels.

        Parameters
        ----------
        X : array_like, nested tuples and dicts of arrays, or Dataset
            Rows of features.
        batch_size : int
            Rows that go through the model at once.

        Returns
        -------
        ndarray, or tuples and dicts of them
            A row of outputs for each row of X, in the structure that the model returns.
        """
        check_count("Trainer.predict", "batch_size", batch_size, fix="32 is a good start")
        if is_nested(X):
            from microfw.training import nested_fit

            return nested_fit.predict(self.model, X, batch_size, "Trainer.predict")
        return predict(self.model, as_features(X.X if isinstance(X, Dataset) else X, self.model), batch_size)

    def predict_classes(self, X: Any, batch_size: int = 4096) -> Any:
        """Return the predicted label of each row, as used by the metrics; of each head, if there are several."""
        template, leaves, _ = flatten(self.predict(X, batch_size), is_branch)
        return fill(template, [to_classes(z, self.loss) for z in leaves])
