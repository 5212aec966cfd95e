"""What a profile was measured on."""

from __future__ import annotations

import numpy as np


def environment() -> dict[str, str]:
    """Say what the numbers were measured on."""
    import platform

    return {
        "python": platform.python_version(),
        "numpy": np.__version__,
        "machine": platform.machine(),
        "system": platform.system(),
        "blas_threads": blas_threads(),
    }


def blas_threads() -> str:
    """Return how many threads NumPy's matrix products may use, as far as can be told."""
    from threadpoolctl import threadpool_info

    pools = [pool for pool in threadpool_info() if pool["user_api"] == "blas" and "numpy" in pool["filepath"]]
    return str(pools[0]["num_threads"]) if pools else "unknown"
