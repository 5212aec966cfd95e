"""Snapshots: a failed call does not change the estimator."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np

from microfw.estimators.learner import Learner
from microfw.optim import Optimizer
from microfw.serialization.attributes import apply, snapshot

GROWING = ("loss_curve_", "history_", "validation_scores_")
"""List attributes that grow with each epoch."""


class EstimatorSnapshot:
    """State of an estimator before a call.

    Parameters
    ----------
    estimator : NeuralEstimator
        The estimator.
    continues : bool
        Whether the call trains the existing network, not a new one.
    """

    def __init__(self, estimator: Any, continues: bool) -> None:
        self.estimator = estimator
        self.attributes = attributes = dict(vars(estimator))
        self.lengths = [(a, len(a)) for a in map(attributes.get, GROWING) if a is not None]
        self.learner = attributes["_learner"] if continues else None
        if self.learner is not None:
            self.training = TrainingSnapshot(self.learner, True)
            self.learner_attributes = dict(vars(self.learner))
            self.kept = [x for part in (self.learner.model, self.learner.loss) for x in snapshot(part)]
        source = attributes.get("random_state")
        stateful = hasattr(source, "integers") or hasattr(source, "randint")
        self.random_state = (source, _state(source)) if stateful else None

    def trained(self) -> bool:
        """Return True if an epoch was completed since the snapshot."""
        curve, before = (values.get("loss_curve_") for values in (vars(self.estimator), self.attributes))
        epochs = 0 if curve is not before else next((n for growing, n in self.lengths if growing is curve), 0)
        return curve is not None and len(curve) > epochs

    def restore(self) -> None:
        """Restore the estimator, its learner and its random state."""
        values = vars(self.estimator)
        values.clear()
        values.update(self.attributes)
        for growing, length in self.lengths:  # shortened in place: copying a long history would cost more
            del growing[length:]
        if self.learner is not None:
            _restore_attributes(self.learner, self.learner_attributes)
            apply(self.kept)
            self.training.restore()
        if self.random_state is not None:
            generator, state = self.random_state
            _set_state(generator, state)


def _state(generator: Any) -> Any:
    if isinstance(generator, np.random.Generator):
        return generator.bit_generator.state
    return generator.get_state(legacy=False)  # of any bit generator


def _set_state(generator: Any, state: Any) -> None:
    if isinstance(generator, np.random.Generator):
        generator.bit_generator.state = state
    else:
        generator.set_state(state)


class TrainingSnapshot:
    """State of a learner that training changes.

    Parameters
    ----------
    learner : Learner
        The learner.
    draws : bool
        Whether training may draw an order of rows.
    """

    def __init__(self, learner: Learner, draws: bool) -> None:
        self.learner, state, optimizer = learner, learner.state, learner.optimizer
        self.values: Any
        self.arrays: Any
        self.state = state.epoch, state.steps, state.skipped, state.loss
        self.forward_state = learner.stepper.forward_state.save()
        self.rng = learner.rng.bit_generator.state if draws else None
        self.lr = optimizer.lr
        if isinstance(optimizer, Optimizer) and not optimizer.takes_closure:
            self.values = optimizer.flat.values.copy()
            self.arrays = [getattr(optimizer, name).copy() for name in optimizer.STATE]
            self.counts = optimizer.counts.copy() if optimizer.NEEDS_STEP else None
        else:
            self.values = [p.data.copy() for p in learner.model.parameters()]
            self.arrays = copy.deepcopy(optimizer.state_dict()) if hasattr(optimizer, "state_dict") else None

    def restore(self) -> None:
        """Restore the learner."""
        learner, optimizer, state = self.learner, self.learner.optimizer, self.learner.state
        state.epoch, state.steps, state.skipped, state.loss = self.state
        learner._min_rows = 0  # tried again: what failed may have failed in the trial, too
        learner.stepper.forward_state.restore(self.forward_state)
        if self.rng is not None:
            learner.rng.bit_generator.state = self.rng
        optimizer.lr = self.lr
        if isinstance(optimizer, Optimizer) and not optimizer.takes_closure:
            optimizer.flat.write(self.values)
            for name, values in zip(optimizer.STATE, self.arrays, strict=True):
                getattr(optimizer, name)[...] = values
            if self.counts is not None:
                optimizer.counts[...] = self.counts
            optimizer.settings.changed = True  # constants and parts are made again
            return
        for p, values in zip(learner.model.parameters(), self.values, strict=True):
            p.data = values
        if self.arrays is not None:
            optimizer.load_state_dict(self.arrays)


def _restore_attributes(learner: Learner, attributes: dict[str, Any]) -> None:
    """Restore the attributes of a learner, and make its optimizer the owner of the parameters again."""
    vars(learner).update(attributes)
    state, optimizer = learner.state, learner.optimizer
    state.loss_function, state.optimizer = learner.objective, optimizer
    flat = getattr(optimizer, "flat", None)
    if flat is not None and flat.owner.taken_by:  # by an optimizer that the call created
        flat.adopt()
        vars(optimizer).pop("_group_constants", None)  # views of the former buffers
        optimizer.settings.changed = True
        learner._prepare()
