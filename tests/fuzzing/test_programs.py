"""Random training programs: all ways to run one give the same bits, and PyTorch's numbers."""

from __future__ import annotations

import re
import sys
from collections import Counter

import pytest

from microfw import nn, optim
from tests.fuzzing.generator import write
from tests.fuzzing.objectives import LOSSES, OPTIMIZERS
from tests.fuzzing.pairs import draw, examine_pair
from tests.fuzzing.runner import examine

MINOR = sys.version_info.minor  # so that each Python runs programs of its own
FIRST, SLOW = range(40_000 + 200 * MINOR, 40_200 + 200 * MINOR), range(50_000, 51_200)


def check(seeds):
    """Run programs; none may differ or blame the library, and nearly all that can be replayed must be."""
    results = []
    for seed in seeds:
        program = write(seed)
        result = examine(program)
        wrong = result.difference or "\n".join(result.faults)
        assert not wrong, f"{wrong}\nrun `python -m tests.fuzzing --only {seed}`:\n{program}"
        results.append((program, result))
    able = [result for program, result in results if program.free and result.expected]
    late = [result.seed for result in able if result.missed]
    assert len(late) <= 0.1 * len(able) + 1, f"of {len(able)} programs these were not replayed: {late}"
    assert sum(result.finite and result.moved for _, result in results) >= 0.9 * len(results)


@pytest.mark.parametrize("part", range(10))
def test_programs_give_the_same_bits_in_every_way(part):
    check(FIRST[part::10])


@pytest.mark.slow
@pytest.mark.parametrize("part", range(12))
def test_many_programs_give_the_same_bits_in_every_way(part):
    check(SLOW[part::12])


def check_pairs(seeds):
    replayed = 0
    for seed in seeds:
        pair = draw(seed)
        difference, fault, replays = examine_pair(pair)
        assert not difference and not fault, f"{difference}\n{fault}\n{pair}"
        replayed += replays
    assert replayed >= 0.8 * len(seeds)


def test_models_that_share_layers_train_with_an_optimizer_each():
    check_pairs(range(60))


@pytest.mark.slow
def test_many_models_that_share_layers_train_with_an_optimizer_each():
    check_pairs(range(500))


@pytest.mark.peers
@pytest.mark.filterwarnings("ignore")
def test_programs_agree_with_pytorch():
    pytest.importorskip("torch")
    from tests.fuzzing.torch_peer import examine_torch

    compared = []
    for seed in range(300):
        program = write(seed, peer=True)
        difference, steps = examine_torch(program)
        assert not difference, f"{difference}\n{program}"
        compared.append(steps == len(program.steps))
    assert sum(compared) >= 0.9 * len(compared)


# The generator draws what it says


@pytest.fixture(scope="module")
def programs():
    return [write(seed) for seed in range(1500)]


def kinds_of(room, base):
    """Return the names of the public subclasses of a class."""
    values = {name: getattr(room, name) for name in room.__all__}
    return {n for n, v in values.items() if isinstance(v, type) and issubclass(v, base)} - {
        "Module",
        "Loss",
        "Optimizer",
    }


def test_every_layer_loss_and_optimizer_occurs(programs):
    text = "\n".join(program.setup for program in programs)
    names = Counter(re.findall(r"(?:nn|optim)\.(\w+)\(", text))
    layers, optimizers = kinds_of(nn, nn.Module), kinds_of(optim, optim.Optimizer)
    # a few are enough: a new row draws other programs, in which any layer may be rarer
    rare = {name: names[name] for name in sorted(layers | optimizers) if names[name] < 2}
    hint = "give the row in tests/cases/ program=..., or write it in tests/fuzzing/"
    assert not rare, f"in 1,500 programs, at least 2 wanted: {rare}; if 0, {hint}"
    assert set(LOSSES) == {name for name in layers if name.endswith("Loss")}
    assert set(OPTIMIZERS) == optimizers - {"LBFGS"}


def test_every_kind_of_change_occurs(programs):
    kinds = Counter(kind for program in programs for step in program.steps for kind in step.kinds)
    expected = {
        "lr", "setting of an optimizer", "rate of a group", "optimizer's load_state_dict", "train and eval", "frozen",
        "thawed", "load_state_dict", "zero_grad", "gradients from elsewhere", "parameter written", "gradient removed",
        "hook added", "hooks removed", "parameter replaced", "evaluation", "profiler attached", "profiler detached",
        "copy", "layer replaced", "layer in a list replaced", "another optimizer's step",
        "another optimizer's zero_grad", "another optimizer's gradients", "dropout", "generator replaced",
        "setting of a layer", "function replaced", "module replaced", "number of a module", "container of a module",
        "array changed in place", "array replaced", "list appended to", "attribute of an object",
        "attribute of a class", "value behind a method", "method replaced", "value behind a property",
        "global variable", "entry of a global dict", "variable of a closure", "default argument",
        "branch on a setting", "loop by a setting", "text as a setting", "setting of a loss", "attribute of a loss",
        "container of a loss", "namespace of a loss", "class attribute of a loss", "exception in the middle", "value deep in containers",
        "dataclass replaced", "context variable", "set changed", "loss replaced", "global array changed in place",
    }  # fmt: skip
    assert sorted(expected - kinds.keys()) == []


def test_every_kind_of_program_occurs(programs):
    assert 0.6 < sum(p.free for p in programs) / len(programs) < 0.95
    assert {p.target for p in programs} == {target for _, target in LOSSES.values()} | {"sparse"}
    assert {len(p.shape) for p in programs if not p.vocabulary} == {1, 2, 3}
    assert any(p.vocabulary for p in programs)
    assert {step.fault for p in programs for step in p.steps} == {"", "label", "nan", "features"}
    assert sum(len({s.rows for s in p.steps}) > 1 for p in programs) > 100
    assert {key for p in programs if p.trainer for key in p.trainer} >= {
        "clip_norm",
        "clip_value",
        "accumulate",
        "metrics",
        "profiler",
        "validation",
    }


def test_a_program_is_the_same_each_time():
    assert str(write(5)) == str(write(5)) != str(write(6))
