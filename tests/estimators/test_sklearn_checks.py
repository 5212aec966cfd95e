"""The estimators pass scikit-learn's own checks."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.helpers.estimators import needs
from tests.helpers.paths import ROOT

CONFIGURATIONS = [
    "default", "two layers", "layer norm", "linear", "float64, in order", "own network", "another loss",
    "own optimizer, schedule, profile",
]  # fmt: skip


# scikit-learn's checks


def checked(*names):
    command = [sys.executable, str(ROOT / "tests" / "helpers" / "estimator_checks.py"), *names]
    done = subprocess.run(command, capture_output=True, text=True, env=None, cwd=ROOT, timeout=560)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def check_all_passed(found):
    for name, kinds in found.items():
        for kind, results in kinds.items():
            assert len(results) >= {"NeuralClassifier": 60, "NeuralRegressor": 55}[kind], name  # 67 and 60 in 1.9
            assert [r for r in results if r[1] != "passed"] == [], (name, kind)


@needs("pandas")
def test_scikit_learns_checks():
    check_all_passed(checked("small"))


@pytest.mark.slow
@needs("pandas", "polars")
def test_scikit_learns_checks_of_eight_configurations():
    found = checked(*CONFIGURATIONS)
    assert len(found) == 8
    check_all_passed(found)


@pytest.mark.slow
@needs("pandas", "polars")
def test_randomness_by_row_fails_only_the_check_of_repeated_rows():
    found = checked("dropout", "batch norm", "early stopping")
    assert len(found) == 3
    for name, kinds in found.items():
        for kind, results in kinds.items():
            assert {r[0] for r in results if r[1] != "passed"} == {
                "check_sample_weight_equivalence_on_dense_data", "check_sample_weight_equivalence_on_sparse_data",
            }, (name, kind, [r for r in results if r[1] != "passed"])  # fmt: skip
