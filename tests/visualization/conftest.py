"""Each graph that tests draw, in both directions."""

from __future__ import annotations

import pytest

from tests.helpers.drawings import CASES


@pytest.fixture(params=CASES)
def case(request):
    return CASES[request.param]()


@pytest.fixture(params=["TB", "LR"])
def direction(request):
    return request.param
