"""A call of an estimator that fails leaves the estimator as it was."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np

from microfw.estimators.learner import Learner
from microfw.optim import Optimizer

GROWING = ("loss_curve_", "history_", "validation_scores_")
"""Attributes that are lists, to which each epoch adds."""


class Before:
    """An estimator as it is before a call.

    Parameters
    ----------
    estimator : NeuralEstimator
    goes_on : bool
        Whether the call trains the network that is there, instead of a new one.
    draws : bool
        Whether the call may draw an order.
    """

    def __init__(self, estimator: Any, goes_on: bool, draws: bool = True) -> None:
        self.estimator = estimator
        self.attributes = attributes = dict(vars(estimator))
        self.lengths = [(a, len(a)) for a in map(attributes.get, GROWING) if a is not None]
        self.learner = Trained(attributes["_learner"], draws) if goes_on else None
        given = attributes.get("random_state") if draws else None
        self.given = (given, _state(given)) if hasattr(given, "integers") or hasattr(given, "randint") else None

    def trained(self) -> bool:
        """Return True if an epoch was completed since."""
        curve, before = (values.get("loss_curve_") for values in (vars(self.estimator), self.attributes))
        epochs = 0 if curve is not before else next((n for growing, n in self.lengths if growing is curve), 0)
        return curve is not None and len(curve) > epochs

    def restore(self) -> None:
        """Bring everything back."""
        values = vars(self.estimator)
        values.clear()
        values.update(self.attributes)
        for growing, length in self.lengths:
            del growing[length:]
        if self.learner is not None:
            self.learner.restore()
        if self.given is not None:
            generator, state = self.given
            _set_state(generator, state)


def _state(generator: Any) -> Any:
    return generator.bit_generator.state if isinstance(generator, np.random.Generator) else generator.get_state()


def _set_state(generator: Any, state: Any) -> None:
    if isinstance(generator, np.random.Generator):
        generator.bit_generator.state = state
    else:
        generator.set_state(state)


class Trained:
    """All that training changes of a learner."""

    def __init__(self, learner: Learner, draws: bool) -> None:
        self.learner = learner
        self.attributes = dict(vars(learner))
        self.optimizer = optimizer = learner.optimizer
        state = learner.state
        self.state = state.epoch, state.steps, state.skipped, state.loss, state.history
        self.carried = learner.stepper.carried.save()
        self.rng = learner.rng.bit_generator.state if draws else None
        self.values: Any
        self.arrays: Any
        if isinstance(optimizer, Optimizer) and not optimizer.takes_closure:
            self.values = optimizer.flat.values.copy()
            self.arrays = [getattr(optimizer, name).copy() for name in (*optimizer.ARRAYS, "counts")]
            self.settings = dict(optimizer.settings)
        else:
            self.values = [p.data.copy() for p in learner.model.parameters()]
            self.arrays = copy.deepcopy(optimizer.state_dict()) if hasattr(optimizer, "state_dict") else None

    def restore(self) -> None:
        """Bring it back."""
        learner, optimizer = self.learner, self.optimizer
        vars(learner).update(self.attributes)
        flat = getattr(optimizer, "flat", None)
        if flat is not None and flat.owner.lost:  # to an optimizer that the call made
            flat.adopt()
            vars(optimizer).pop("_ready", None)  # views of the former buffers
            optimizer.settings.changed = True
            learner._prepare()
        state = learner.state
        state.epoch, state.steps, state.skipped, state.loss, state.history = self.state
        state.loss_function, state.optimizer = learner.loss, optimizer
        learner.stepper.carried.restore(self.carried)
        if self.rng is not None:
            learner.rng.bit_generator.state = self.rng
        if isinstance(optimizer, Optimizer) and not optimizer.takes_closure:
            self._restore_arrays(optimizer)
            return
        for p, values in zip(learner.model.parameters(), self.values, strict=True):
            p.data = values
        if self.arrays is not None:
            optimizer.load_state_dict(self.arrays)

    def _restore_arrays(self, optimizer: Any) -> None:
        optimizer.flat.write(self.values)
        for name, values in zip((*optimizer.ARRAYS, "counts"), self.arrays, strict=True):
            getattr(optimizer, name)[...] = values
        optimizer.settings.update(self.settings)
        optimizer.settings.changed = True
