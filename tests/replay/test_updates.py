"""The update of a replayed step: NumPy calls that read new hyperparameters and step numbers."""

from __future__ import annotations

import numpy as np
import pytest

from microfw import optim
from tests.helpers.replay import Twins, assert_same, optimizer_rows, values


@pytest.mark.parametrize(("kind", "options"), list(optimizer_rows()))
def test_a_rate_of_each_step_reaches_the_same_captured_update(kind, options):
    twins = Twins(kind=kind, **options | {"lr": 0.01})
    (replay,) = twins.step.replays.values()
    parts, remade = twins.optimizer.update_parts, []
    twins.optimizer._update_present = lambda: remade.append(1)
    for k in range(20):
        twins.both(lambda _, optimizer, k=k: setattr(optimizer, "lr", 0.01 / (k + 1)))
        twins.go()
    assert twins.optimizer.update_parts is parts and not remade
    assert replay.plan.step.update


@pytest.mark.parametrize(("kind", "options"), list(optimizer_rows()))
def test_the_update_is_captured_beside_frozen_parameters(kind, options):
    twins = Twins(kind=kind, **options | {"lr": 0.01})
    twins.both(lambda model, _: model.layers[0].requires_grad_(False))
    twins.go(6)
    (replay,) = twins.step.replays.values()
    assert replay.leaves_without_grad and replay.plan.step.update
    assert twins.optimizer.update_parts is replay.update_parts
    (run,) = twins.step._programs.values()
    assert {"preflight", "update_parts"} <= {*run.__code__.co_names}  # the update is written out


@pytest.mark.parametrize("kind", [optim.Adam, optim.AdamW])
def test_parameters_at_different_step_numbers_are_corrected_each_by_its_own(kind):
    twins = Twins(kind=kind, lr=0.01)
    for flag in (False, True):
        twins.both(lambda model, _, flag=flag: model.layers[0].requires_grad_(flag))
        twins.go(6)
    assert len(set(twins.optimizer.counts.tolist())) == 2 and not twins.optimizer.same_count
    np.testing.assert_array_equal(twins.one.counts, twins.optimizer.counts)
    assert_same(values(twins.eager), values(twins.model))


@pytest.mark.parametrize("kind", [optim.Adam, optim.AdamW])
def test_a_loaded_step_number_reaches_a_captured_update(kind):
    twins = Twins(kind=kind, lr=0.01)
    early = twins.optimizer.state_dict()
    twins.go(5)
    twins.both(lambda _, optimizer: optimizer.load_state_dict(early))
    twins.go(5)
    assert twins.optimizer.counts.max() == early["counts"].max() + 5


def test_eps_that_rounds_to_0_beside_the_correction_keeps_its_value():
    # eps * sqrt(1 - beta2) is below half of the smallest float32
    twins = Twins(kind=optim.Adam, lr=0.01, eps=1e-44)
    twins.go(3)
    assert all(np.isfinite(array).all() for array in values(twins.model))
    numbers = twins.optimizer._step_numbers({"lr": 0.01, "betas": (0.9, 0.999), "eps": 1e-44}, 1)
    assert numbers[0] == 1e-44


@pytest.mark.parametrize("kind", [optim.Adam, optim.AdamW])
def test_loaded_step_numbers_that_differ_are_corrected_each_by_its_own(kind):
    twins, other = Twins(kind=kind, lr=0.01), Twins(kind=kind, lr=0.01)
    state = other.optimizer.state_dict()
    state["counts"][0] += 1000
    for way in (twins.one, twins.optimizer):
        way.load_state_dict(state)
    reference = Twins(kind=kind, lr=0.01)
    reference.both(lambda _, optimizer: optimizer.load_state_dict(state))
    reference.both(lambda _, optimizer: vars(optimizer).pop("_selections", None))  # made again, with the new counts
    reference.both(lambda _, optimizer: vars(optimizer).pop("_group_constants", None))
    twins.go(3)
    reference.go(3)
    assert not twins.optimizer.same_count and not twins.one.same_count
    assert_same(values(twins.model), values(reference.model))
