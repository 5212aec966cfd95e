"""Rows of the fused activations."""

from __future__ import annotations

import numpy as np
from scipy.special import expit

from cases.samples import Case, unary

CASES = [
    Case("elu", lambda x, alpha=1.0: np.where(x > 0, x, alpha * np.expm1(x)), unary(gap=0.1, alpha=0.7), protocol=False),
    Case("silu", lambda x: x * expit(x), unary(), protocol=False),
    Case("mish", lambda x: x * np.tanh(np.log1p(np.exp(x))), unary(), protocol=False),
]  # fmt: skip
