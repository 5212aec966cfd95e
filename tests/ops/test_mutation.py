"""The harness can fail: rules broken on purpose are noticed (`tests/mutation.py`)."""

from __future__ import annotations

import numpy as np
import pytest

from tests import mutation
from tests.cases.kinds import expanded
from tests.cases.ops import CASES, title

DIFFERENTIABLE = [case for case in CASES if case.op.differentiable]


@pytest.mark.parametrize("case", DIFFERENTIABLE, ids=title)
def test_a_broken_rule_of_each_op_is_noticed(case):
    flipped = [m for m in mutation.whole_mutants(case) if m.label.endswith(("sign flipped", "all of it"))]
    assert flipped
    for mutant in flipped:
        assert mutation.killed(mutant), mutant.label


def test_whole_rules_have_no_fault():
    with np.errstate(all="ignore"):
        assert mutation.at_singular_points() is None and mutation.second_order_and_extremes() is None


@pytest.mark.slow
def test_a_broken_rule_is_whole_again_afterwards():
    before = {f: f.__code__ for case in DIFFERENTIABLE for f in mutation.rules(case.op)}
    for mutant in mutation.chosen(20, seed=1):
        with mutant.broken():
            pass
    assert all(f.__code__ is code for f, code in before.items())
    for mutant in mutation.chosen(5, seed=2):
        for name in mutant.ops:
            assert not mutation.op_checks.prove(mutation.BY_NAME[name], expanded(mutation.BY_NAME[name])[0])


@pytest.mark.slow
def test_nineteen_of_twenty_mutants_are_killed():
    mutants = mutation.chosen(300, seed=0)
    survivors = [m.label for m in mutants if mutation.killed(m) is None]
    assert len(survivors) <= 0.05 * len(mutants), "\n".join(survivors)
