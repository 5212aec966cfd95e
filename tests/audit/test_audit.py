"""The audit: counts, bytes and phases of profiles, each recomputed by other means than the profiler's."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

import microfw as mf
from microfw import nn, optim
from tests.audit.models import MODELS
from tests.audit.recount import held_bytes, recount
from tests.cases.layers import LAYERS
from tests.helpers.paths import ROOT

COUNTED = ("nodes", "edges", "rules", "accumulated")


def profiled(model, loss_of, make, steps=2, every=1):
    """Return the epoch of some steps, and the counts of their graphs, walked before each backward."""
    optimizer = optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1e-4)
    with mf.Profiler(model, every=every) as profiler:
        for _ in range(steps):
            optimizer.zero_grad()
            loss = loss_of(*make())
            counts = recount(loss)
            loss.backward()
            optimizer.step()
    return profiler.session.epochs[0], counts


def kinds(module):
    return {type(part).__name__ for _, part in module.named_modules()}


def test_each_layer_with_a_weight_of_several_axes_is_in_a_model():
    """Such layers compute products, whose operations a model's row has by formula."""
    weighted = {
        type(part).__name__
        for case in LAYERS
        for _, part in case.make().named_modules()
        if isinstance(getattr(part, "weight", getattr(part, "weight_ih", None)), mf.Tensor)
        and getattr(part, "weight", getattr(part, "weight_ih", None)).ndim > 1
    }
    modelled = set().union(*(kinds(case.make()) for case in MODELS))
    missing = sorted(name for name in weighted if name in nn.__all__ and name not in modelled)
    assert not missing, (
        f"give the row in tests/cases/layers.py products=..., or add a model to tests/audit/models.py: {missing}"
    )


@pytest.mark.parametrize("case", MODELS, ids=lambda case: case.name)
def test_counts_are_those_of_the_graph_and_of_formulas(case):
    model = case.make()
    epoch, counts = profiled(model, lambda x, y: case.run(model, x, y), case.data)
    total = epoch.sum()
    if case.name != "a checkpoint inside":  # its inner graph is made in backward only
        assert {k: getattr(total, k) for k in COUNTED} == {k: 2 * counts[k] for k in COUNTED}
        assert (epoch.parameters, epoch.parameter_tensors) == (counts["parameters"], counts["parameter_tensors"])
    assert (total.products_forward // 2, total.products_backward // 2) == tuple(case.products)  # there were 2 steps


@pytest.mark.parametrize("case", MODELS, ids=lambda case: case.name)
def test_saved_bytes_are_those_that_the_graph_keeps(case):
    model = case.make()
    epoch, _ = profiled(model, lambda x, y: case.run(model, x, y), case.data, steps=1)
    held = held_bytes(lambda x, y: case.run(model, x, y), case.data)
    assert epoch.saved_peak_bytes == held - case.overhead_bytes


LOOPS = (
    "plain", "alternated_losses", "two_nets_against_each_other", "accumulation", "two_forwards_then_two_backwards",
    "two_optimizers_after_one_backward", "gradients_by_hand", "no_modules", "an_op_before_the_model",
    "evaluation_inside", "a_checkpoint", "the_first_layer_frozen", "the_last_layer_frozen", "shared", "replayed",
    "an_exception_in_the_middle", "lbfgs", "trainer", "trainer_replayed",
)  # fmt: skip
SAMPLED = ("plain", "accumulation", "no_modules", "evaluation_inside", "gradients_by_hand")


def run_loops(*arguments):
    """Return what `audit/loops.py` found: it needs a process of its own, as it replaces the clock."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.audit.loops", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert not done.returncode, done.stderr
    return json.loads(done.stdout)


def wrong_in(name, loop):
    """Yield what a loop's profile gets wrong."""
    got, taken = loop["got"], loop["expected"]
    if {phase: got[phase] for phase in taken} != taken:
        yield "each phase takes what the clock was moved in it", got, taken
    if not all(phases == total > 0 for total, phases in loop["epochs"]):
        yield "phases add up to the epoch", loop["epochs"]
    if not name.startswith(("replayed", "trainer")) and loop["total"] != loop["taken"]:
        yield "no time is lost between epochs", loop["total"], loop["taken"]
    if loop["layers"] != [got["forward"], got["backward"]]:
        yield "layers take what their phase takes", loop["layers"], got
    if loop["books"] is not None and loop["counts"] != loop["books"]:
        yield "counts are those of the loop's graphs", loop["counts"], loop["books"]


def wrong_when_sampled(sampled, loop):
    """Yield what a profile of some of the steps gets wrong, by the profile of all of them."""
    share = sampled["observed"] / sampled["steps"]
    expected = {phase: share * loop["got"][phase] for phase in ("forward", "backward", "update")}
    expected["evaluation"] = loop["got"]["evaluation"]  # observed in each step
    if {phase: sampled["got"][phase] for phase in expected} != expected:
        yield "phases are those of the observed steps", sampled["got"], expected
    if sampled["total"] != loop["total"]:
        yield "the epoch takes what it takes", sampled["total"], loop["total"]


@pytest.mark.slow
def test_profiles_of_loops_have_the_times_and_counts_of_the_loops():
    loops, sampled = run_loops(), run_loops("--every=2", *SAMPLED)
    assert set(loops) == set(LOOPS)
    assert set(sampled) == set(SAMPLED)
    wrong = [(name, *found) for name in LOOPS for found in wrong_in(name, loops[name])]
    wrong += [(name, "sampled", *found) for name in SAMPLED for found in wrong_when_sampled(sampled[name], loops[name])]
    assert not wrong
