"""Errors that tests expect."""

from __future__ import annotations

import re

import pytest


def raises(kind, text):
    return pytest.raises(kind, match=f"^{re.escape(text)}$")
