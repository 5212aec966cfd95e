"""The audit: counts, bytes and phases of profiles, each recomputed by other means than the profiler's."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from audit.models import MODELS
from audit.recount import held_bytes, recount

import microfw as mf
from microfw import optim

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


@pytest.mark.parametrize("case", MODELS, ids=lambda case: case.name)
def test_counts_are_those_of_the_graph_and_of_formulas(case):
    model = case.make()
    epoch, counts = profiled(model, lambda x, y: case.run(model, x, y), case.data)
    total = epoch.sum()
    if case.name != "a checkpoint inside":  # its inner graph is made in backward only
        assert {k: getattr(total, k) for k in COUNTED} == {k: 2 * counts[k] for k in COUNTED}
        assert (epoch.parameters, epoch.parameter_tensors) == (counts["parameters"], counts["parameter_tensors"])
    assert (total.products_forward, total.products_backward) == tuple(2 * n for n in case.products)


@pytest.mark.parametrize("case", MODELS, ids=lambda case: case.name)
def test_saved_bytes_are_those_that_the_graph_keeps(case):
    model = case.make()
    epoch, _ = profiled(model, lambda x, y: case.run(model, x, y), case.data, steps=1)
    held = held_bytes(lambda x, y: case.run(model, x, y), case.data)
    assert epoch.saved_peak_bytes == held - case.overhead_bytes


@pytest.fixture(scope="module")
def loops():
    """Return what `audit/loops.py` found: it needs a process of its own, as it replaces the clock."""
    script = Path(__file__).parent / "audit" / "loops.py"
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=120, check=False)
    assert not done.returncode, done.stderr
    return json.loads(done.stdout)


LOOPS = (
    "plain", "alternated_losses", "two_nets_against_each_other", "accumulation", "two_forwards_then_two_backwards",
    "two_optimizers_after_one_backward", "gradients_by_hand", "no_modules", "an_op_before_the_model",
    "evaluation_inside", "a_checkpoint", "the_first_layer_frozen", "the_last_layer_frozen", "shared", "replayed",
    "an_exception_in_the_middle", "lbfgs", "trainer", "trainer_replayed",
)  # fmt: skip


def test_every_loop_is_compared(loops):
    assert set(loops) == set(LOOPS)


@pytest.mark.parametrize("name", LOOPS)
def test_each_phase_takes_what_the_clock_was_moved_in_it(loops, name):
    found = loops[name]
    assert {phase: found["got"][phase] for phase in found["expected"]} == found["expected"]


@pytest.mark.parametrize("name", LOOPS)
def test_phases_add_up_to_the_epoch(loops, name):
    for total, phases in loops[name]["epochs"]:
        assert phases == total > 0


@pytest.mark.parametrize("name", [name for name in LOOPS if not name.startswith(("replayed", "trainer"))])
def test_no_time_is_lost_between_epochs(loops, name):
    assert loops[name]["total"] == loops[name]["taken"]


@pytest.mark.parametrize("name", LOOPS)
def test_layers_take_no_more_than_their_phase(loops, name):
    forward, backward = loops[name]["layers"]
    assert forward == loops[name]["got"]["forward"] and backward == loops[name]["got"]["backward"]


@pytest.mark.parametrize("name", LOOPS)
def test_counts_of_a_loop_are_those_of_its_graphs(loops, name):
    if loops[name]["books"] is not None:
        assert loops[name]["counts"] == loops[name]["books"]


SAMPLED = ("plain", "accumulation", "no_modules", "evaluation_inside", "gradients_by_hand")


@pytest.fixture(scope="module")
def sampled():
    script = Path(__file__).parent / "audit" / "loops.py"
    command = [sys.executable, script, "--every=2", *SAMPLED]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert not done.returncode, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("name", SAMPLED)
def test_a_sampled_profile_has_the_phases_of_the_steps_that_it_observed(sampled, loops, name):
    share = sampled[name]["observed"] / sampled[name]["steps"]
    for phase in ("forward", "backward", "update"):
        assert sampled[name]["got"][phase] == share * loops[name]["got"][phase]
    assert sampled[name]["got"]["evaluation"] == loops[name]["got"]["evaluation"]
    assert sampled[name]["total"] == loops[name]["total"]
