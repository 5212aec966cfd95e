"""Time one training step of small networks on digits: microfw beside NumPy by hand, PyTorch, JAX and MyGrad.

    python tests/benchmarks/bench_step.py [--rounds N] [--workloads tiny,small,mid,deep,conv] [--columns ...]

The losses of the first steps are compared before anything is timed.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from typing import Any

from interleaved import heading, ratios, rotated, serve, shown, start, table

WORKLOADS: dict[str, tuple[tuple[Any, ...], int]] = {
    "tiny": ((64, 16, 10), 32),
    "small": ((64, 64, 10), 32),
    "mid": ((64, 256, 256, 10), 128),
    "deep": ((64, *[32] * 32, 10), 32),
    "conv": (("1×8×8", "conv 8", "pool", "conv 16", 10), 64),
}
BATCHES = 20
COMPARED = {"deep": 8}  # steps whose losses must agree; in a deep net rounding grows into a difference soon
TOLERANCE = 5e-3

HAND, TUNED, OURS, TORCH, JAX = "hand-written NumPy", "hand-tuned NumPy", "microfw", "PyTorch eager", "JAX jit"
MYGRAD = "MyGrad"
NAMES = (HAND, TUNED, OURS, TORCH, JAX, MYGRAD)
TARGETS = (  # what is compared; the most (for "faster", the least) that is solid, and what we would love
    (
        "/ hand-written",
        {"tiny": (0.92, 0.72), "small": (0.92, 0.75), "mid": (1.0, 0.93), "deep": (0.92, 0.80), "conv": (0.65, 0.50)},
    ),
    ("/ hand-tuned", {"tiny": (1.25, 1.0), "small": (1.25, 1.0)}),
    (
        "x faster than PyTorch",
        {"tiny": (5, 8), "small": (5, 6.5), "mid": (1.2, 1.4), "deep": (3.5, 4.5), "conv": (2.5, 4)},
    ),
    ("/ JAX jit", {"tiny": (0.45, 0.28), "small": (0.50, 0.35), "deep": (0.85, 0.70), "conv": (0.50, 0.33)}),
    ("x faster than MyGrad", {"conv": (8, 12)}),
)


def work(name: str, workload: str) -> tuple[dict[str, Any], Any]:
    """Prepare a worker: the losses of the first steps, and a function that times passes over the batches."""
    import numpy as np
    from columns import COLUMNS
    from image_columns import IMAGES
    from sklearn.datasets import load_digits

    sizes, batch = WORKLOADS[workload]
    X, y = load_digits(return_X_y=True)
    X, y = (X / 16).astype(np.float32), y.astype(np.int64)
    rng = np.random.default_rng(3)
    picks = [rng.permutation(len(X))[:batch] for _ in range(BATCHES)]
    batches = [(X[pick], y[pick]) for pick in picks]
    step = IMAGES[name](batch) if workload == "conv" else COLUMNS[name](sizes, batch)
    losses = [step(*pair) for pair in batches]

    def turn(passes: int) -> float:
        begin = time.perf_counter()
        for _ in range(passes):
            for a, b in batches:
                step(a, b)
        return (time.perf_counter() - begin) / (passes * BATCHES) * 1e6

    turn(1)
    return {"losses": losses}, turn


def disagreement(losses: list[float], reference: list[float], steps: int) -> float:
    """Return the largest relative difference of the first losses."""
    pairs = list(zip(losses, reference, strict=True))[:steps]
    return max(abs(a - b) / (abs(b) + 1e-3) if a == a else float("inf") for a, b in pairs)


def race(workload: str, names: list[str], rounds: int, passes: int) -> tuple[dict[str, list[float]], bool]:
    """Return the µs of each column in each round, and whether every column worked and agreed."""
    if workload == "conv":
        names = [name for name in names if name != TUNED]  # nobody wrote it
    workers = start(__file__, names, workload)
    good = all(name in workers for name in names if name in (HAND, TUNED, OURS))
    steps = COMPARED.get(workload, BATCHES)
    reference = next(iter(workers))
    for name, worker in workers.items():
        gap = disagreement(worker.first["losses"], workers[reference].first["losses"], steps)
        if gap > TOLERANCE:
            good = False
            print(f"  LOSSES DIFFER: {name} is {gap:.1%} away from {reference} within {steps} steps")
    times: dict[str, list[float]] = {name: [] for name in workers}
    for k in range(rounds):
        for name in rotated(list(workers), k):
            times[name].append(workers[name].ask(passes))
    for worker in workers.values():
        worker.close()
    return times, good


def compared(times: dict[str, list[float]], name: str) -> list[list[float] | None]:
    """Return a column's ratios in the order of `TARGETS`."""
    own, get = times.get(name), times.get
    slower = [ratios(get(other), own) for other in (TORCH, MYGRAD)]
    return [ratios(own, get(HAND)), ratios(own, get(TUNED)), slower[0], ratios(own, get(JAX)), slower[1]]


def report(workload: str, times: dict[str, list[float]], names: list[str]) -> str:
    """Return a workload's table."""
    sizes, batch = WORKLOADS[workload]
    layers = "-".join(map(str, sizes)) if len(sizes) < 6 else f"{sizes[0]}-{len(sizes) - 2}×{sizes[1]}-{sizes[-1]}"
    rows = [[f"{workload}  {layers}, batch {batch}", "µs a step", *(title for title, _ in TARGETS)]]
    for name in names:
        if name in times:
            rows.append([name, f"{statistics.median(times[name]):,.1f}", *map(shown, compared(times, name))])
        else:
            rows.append([name, "", *("" for _ in TARGETS)])
    return table(rows)


def verdicts(results: dict[str, dict[str, list[float]]]) -> str:
    """Return how microfw stands against what it aims at."""
    rows = [["microfw against its targets", "measured", "solid", "best", ""]]
    for k, (title, aims) in enumerate(TARGETS):
        for workload, (solid, best) in aims.items():
            values = compared(results[workload], OURS)[k] if workload in results else None
            if not values:
                continue
            sign = -1 if "faster" in title else 1
            value = sign * statistics.median(values)
            word = "best" if value <= sign * best else "solid" if value <= sign * solid else "MISSED"
            rows.append([f"{workload:5s} {title}", shown(values), f"{solid:g}", f"{best:g}", word])
    return table(rows) if len(rows) > 1 else ""


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=31, help="turns of each column (31)")
    parser.add_argument("--passes", type=int, default=1, help=f"passes over the {BATCHES} batches in a turn (1)")
    parser.add_argument("--workloads", default=",".join(WORKLOADS), help="tiny,small,mid,deep,conv")
    parser.add_argument("--columns", default=",".join(NAMES), help=", ".join(NAMES))
    parser.add_argument("--worker", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        serve(lambda: work(*options.worker))
        return 0
    names = options.columns.split(",")
    workloads = options.workloads.split(",")
    for kind, given, known in (("column", names, NAMES), ("workload", workloads, WORKLOADS)):
        for name in given:
            if name not in known:
                parser.error(f"unknown {kind} {name!r}; expected some of {', '.join(known)}")
    print(heading("One training step: forward, backward, SGD with momentum; digits, float32", options.rounds))
    results, good = {}, True
    for workload in workloads:
        results[workload], fine = race(workload, names, options.rounds, options.passes)
        good = good and fine
        print(report(workload, results[workload], names), end="\n\n", flush=True)
    print("Medians over rounds of ratios within a round, with 95 % bootstrap intervals.\n")
    print(verdicts(results))
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
