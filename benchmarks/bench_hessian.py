"""Time a gradient, and the product of a Hessian with a vector by three compositions of derivatives.

    python benchmarks/bench_hessian.py [--rounds N]

The table of docs/guide/derivatives.md. All ways are timed in turns in one process; the products are compared first.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
from interleaved import heading, rotated, table

import microfw as mf

TURN = 0.02  # seconds


def functions() -> dict[str, tuple[Callable[[Any], Any], np.ndarray]]:
    """Return functions of one array, by name, each with a point."""
    rng = np.random.default_rng(0)
    rows, labels = rng.normal(size=(200, 30)), rng.integers(0, 2, 200) * 2.0 - 1
    first, images = (64, 128), rng.normal(size=(256, 64))

    def logistic(w: Any) -> Any:
        return np.mean(np.log1p(np.exp(-labels * (rows @ w))))

    def rosenbrock(x: Any) -> Any:
        return np.sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2)

    def two_layers(w: Any) -> Any:
        w = w.reshape(first)
        return np.mean(np.tanh(np.tanh(images @ w) @ w.T) ** 2)

    return {
        "logistic regression, 200 × 30": (logistic, rng.normal(size=30)),
        "Rosenbrock's, 1,000 variables": (rosenbrock, rng.normal(size=1000)),
        "two layers of tanh, 64 × 128 weights, 256 rows": (two_layers, 0.1 * rng.normal(size=64 * 128)),
    }


def ways(f: Callable[[Any], Any], x: np.ndarray, v: np.ndarray) -> dict[str, Callable[[], Any]]:
    """Return what is timed, by name."""
    gradient = mf.grad(f)
    return {
        "gradient": lambda: gradient(x),
        "reverse over reverse": lambda: mf.hvp(f, (x,), (v,))[0],
        "forward over reverse": lambda: mf.jvp(gradient, (x,), (v,))[1],
        "reverse over forward": lambda: mf.grad(lambda y: mf.jvp(f, (y,), (v,))[1])(x),
    }


def main() -> int:
    """Compare the products, time all ways, and print the table in microseconds."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=21)
    rounds = parser.parse_args().rounds
    print(heading("Products with a Hessian, microseconds", rounds))
    lines: list[list[str]] = []
    for name, (f, x) in functions().items():
        runs = ways(f, x, np.random.default_rng(1).normal(size=x.shape))
        products = [np.asarray(run()) for run in list(runs.values())[1:]]
        if not all(np.allclose(product, products[0], rtol=1e-9, atol=1e-12) for product in products):
            print(f"{name}: the products differ")
            return 1
        times: dict[str, list[float]] = {way: [] for way in runs}
        for turn in range(rounds):
            for way in rotated(tuple(runs), turn):
                count, began = 0, time.perf_counter()
                while time.perf_counter() - began < TURN:
                    runs[way]()
                    count += 1
                times[way].append((time.perf_counter() - began) / count * 1e6)
        lines = lines or [["function", *runs]]
        lines.append([name, *(f"{statistics.median(t):,.0f}" for t in times.values())])
    print(table(lines))
    return 0


if __name__ == "__main__":
    sys.exit(main())
