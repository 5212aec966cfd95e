"""Digits, and the law of a model on them."""

from __future__ import annotations

import pytest

import microfw as mf


@pytest.fixture(scope="module")
def digits():
    return mf.data.load("digits", rng=0)[0]
