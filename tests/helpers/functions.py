"""Functions of one and two arrays, and their derivatives."""

from __future__ import annotations

import numpy as np

X = np.array([0.3, -0.7, 1.1])
