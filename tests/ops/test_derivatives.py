"""Every op, proven: its row's samples in every dtype and layout, and random ones by hypothesis.

The checks are in `tests/helpers/op_checks.py`. Examples of hypothesis for each op: a few by default, 25 under ``-m slow``;
``MICROFW_EXAMPLES=1000`` sets another number for the slow run, and makes it truly random.
"""

from __future__ import annotations

import os

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings, strategies as st

from tests.cases.kinds import DTYPES, KINDS, defined, expanded, kinds
from tests.cases.ops import CASES, title
from tests.cases.points import POINTS
from tests.cases.strategies import random_sample
from tests.helpers import op_checks
from tests.helpers.thinning import thinned

pytestmark = pytest.mark.usefixtures("quiet")
EXAMPLES = int(os.environ.get("MICROFW_EXAMPLES", 0))
every_op = pytest.mark.parametrize("case", CASES, ids=title)


def proven(case, samples):
    faults = []
    for sample in samples:
        try:
            faults += op_checks.prove(case, sample)
        except op_checks.Rough:
            faults.append(f"{case.name}, sample {sample.label!r}: a kink or a pole is too near; move the inputs")
    assert not faults, f"{len(faults)} of {len(samples)} samples fail:\n" + "\n".join(faults[:12])


@every_op
def test_each_op_has_enough_samples_of_each_kind(case):
    samples = expanded(case)
    assert len(samples) * len(DTYPES) >= 20, f"{case.name}: {len(samples)} samples in {len(DTYPES)} dtypes"
    present = set().union(*(kinds(sample) for sample in samples))
    missing = set(KINDS) - present - set(case.without)
    assert not missing, f"{case.name}: no sample of kind {sorted(missing)}; add one, or the reason to `without`"
    assert not present & set(case.without), f"{case.name}: `without` names kinds that its samples have"
    assert set(case.without) <= set(KINDS)
    assert all(len(reason) > 10 for reason in case.without.values())


@pytest.mark.parametrize("case", thinned(CASES, 2), ids=title)
def test_each_sample_is_proven(case):
    proven(case, expanded(case))


@pytest.mark.slow
@every_op
def test_each_sample_in_each_layout_is_proven(case):
    proven(case, expanded(case, full=True))


@pytest.mark.parametrize(("name", "function", "x", "slope"), POINTS, ids=[row[0] for row in POINTS])
@pytest.mark.parametrize("dtype", DTYPES)
def test_powers_where_several_slopes_are_possible(name, function, x, slope, dtype):
    with np.errstate(all="ignore"):
        assert not op_checks.singular_point(function, np.array(x, dtype), np.array(slope, dtype))


def hypothesis_proves(case, second):
    def check(data):
        sample = random_sample(case, data.draw)
        assume(defined(case, sample))
        try:
            faults = op_checks.prove(case, sample, second=second)
        except op_checks.Rough:
            assume(False)
        assert not faults, faults

    return check


def run(case, examples, random=False):
    quick = settings(
        max_examples=examples,
        deadline=None,
        derandomize=not random,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    quick(given(st.data())(hypothesis_proves(case, True)))()


def test_the_complex_step_is_used_where_it_can_be():
    """So that the sharp check is not lost unnoticed: of almost all ops the value is analytic."""
    blunt = {case.name for case in CASES if case.op.differentiable and not sharp(case)}
    assert len(blunt) <= 0.25 * len(CASES), f"only differences check {sorted(blunt)}; give their rows `analytic`"
    assert not blunt & {"add", "divide", "power", "exp", "tanh", "sigmoid", "sum", "softmax", "matmul", "cross_entropy"}


def sharp(case):
    point = op_checks.Point(case, next(s for s in case.samples if s.inputs[0].size > 1))
    return any(point.slope(k)[1] == op_checks.ANALYTIC for k in range(len(point.inputs)))


@pytest.mark.parametrize("case", thinned(CASES, 3), ids=title)
def test_random_shapes_and_arguments(case):
    run(case, 4)


@pytest.mark.slow
@every_op
def test_many_random_shapes_and_arguments(case):
    run(case, EXAMPLES or 25, random=EXAMPLES > 0)
