"""Long lists of cases: some run by default, all of them with the slow tests."""

from __future__ import annotations

import pytest


def thinned(cases, every):
    """Return the cases as parameters; all but each `every`-th are marked slow.

    A case is a `pytest.param`, a tuple of one value for each parameter, or the value of a single one.
    """
    return [parameters(case, [pytest.mark.slow] if k % every else []) for k, case in enumerate(cases)]


def parameters(case, marks):
    if hasattr(case, "values") and hasattr(case, "id"):
        return pytest.param(*case.values, id=case.id, marks=[*case.marks, *marks])
    return pytest.param(*(case if isinstance(case, tuple) else (case,)), marks=marks)
