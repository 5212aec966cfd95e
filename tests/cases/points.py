"""Points where a power's slope by its exponent has several possible values, in addition to the table of singular points."""

from __future__ import annotations

import numpy as np

POINTS = [
    ("0 ** 0 by its exponent", lambda x: 0**x, [0.0], [0]),
    ("0.0 ** 0.0 by its exponent", lambda x: np.zeros(1, x.dtype) ** x, [0.0], [0]),
    ("(-2) ** 2 by its exponent", lambda x: (-2) ** x, [2.0], [np.nan]),
    ("(-2.0) ** 2.0 by its exponent", lambda x: np.full(1, -2, x.dtype) ** x, [2.0], [np.nan]),
    ("1 ** x by its exponent", lambda x: 1**x, [3.0], [0]),
]
