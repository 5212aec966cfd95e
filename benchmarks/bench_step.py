"""Time one training step of small networks on digits, in microfw, hand-written NumPy and other libraries.

    python benchmarks/bench_step.py [--rounds N] [--workloads tiny,...] [--columns ...] [--markdown FILE]

The losses of the first steps are compared before anything is timed.
"""

from __future__ import annotations

import argparse
import importlib
import os
import pathlib
import sys
import tempfile
import time
from typing import Any

import step_report
from interleaved import heading, peak_memory, rotated, save_digits, serve, start
from step_report import (
    COMPILED,
    DONATED,
    FUSED,
    HAND,
    JIT,
    NAMES,
    OURS,
    REPLAY,
    REPLAYED,
    SCAN,
    SKLEARN,
    TARGETS,
    TORCH,
    TUNED,
    Measured,
)  # fmt: skip

WORKLOADS: dict[str, tuple[str, tuple[Any, ...], int]] = {  # kind of network, sizes, batch
    "tiny": ("dense", (64, 16, 10), 32),
    "small": ("dense", (64, 64, 10), 32),
    "mid": ("dense", (64, 256, 256, 10), 128),
    "deep": ("dense", (64, *[32] * 32, 10), 32),
    "conv": ("images", ("1×8×8", "conv 8", "pool", "conv 16", 10), 64),
    "recurrent": ("sequences", ("8×8", "GRU 32", 10), 32),
    "embedding": ("models", ("27", "3×10", "tanh 200", 27), 32),
    "lstm": ("models", ("20×12", "LSTM 64", 10), 32),
    "gru": ("models", ("20×12", "GRU 64", 10), 32),
    "transformer": ("models", ("16×32", "2 blocks, 4 heads", 10), 16),
    "lenet": ("models", ("1×28×28", "conv 6", "conv 16", 120, 84, 10), 32),
    "conv1d": ("models", ("3×48", "conv 16", "conv 16", 10), 32),
    "batchnorm": ("models", (30, "norm 64", "dropout", "norm 64", "dropout", 2), 32),
    "autoencoder": ("models", (64, 32, 8, 32, 64), 32),
}
BATCHES = 20
# Steps whose losses must agree. In a deep net rounding grows into a difference soon; dropout draws other numbers in
# each library.
COMPARED = {"deep": 8, "batchnorm": 0}
TOLERANCE = 5e-3
PACKAGES = ("numpy", "torch", "jax", "mygrad", "autograd", "scikit-learn")


def network(workload: str) -> Any:
    """Return the network of a workload."""
    kind, sizes, batch = WORKLOADS[workload]
    if kind == "models":
        from model_columns import MODELS

        return MODELS[workload]()
    if kind == "images":
        from image_columns import Images

        return Images()
    if kind == "sequences":
        from sequence_columns import Sequences

        return Sequences()
    from dense_columns import Dense

    return Dense(sizes, batch)


def exists(name: str, workload: str) -> bool:
    """Return True if the network exists in the library."""
    kind = WORKLOADS[workload][0]
    if kind == "models":
        libraries = (TUNED, OURS, REPLAY, TORCH, FUSED, COMPILED)
        return name in libraries or (name in (JIT, DONATED, SCAN) and workload != "batchnorm")
    return kind == "dense" or name != SKLEARN


def work(name: str, workload: str, digits: str) -> tuple[dict[str, Any], Any]:
    """Prepare a worker: the losses of the first steps, ms to start, and a function that times passes.

    What it takes to start is the first pass over the batches, with all that is built and compiled before it and
    on the way, less what such a pass takes later, or 0 where noise is larger; libraries are imported before.
    """
    import numpy as np
    from columns import COLUMNS

    np.empty(1 << 24, np.uint8)  # else memory comes from the system at each step; `import microfw` sees to that, too
    module, build = COLUMNS[name]
    importlib.import_module(module)
    net, batch = network(workload), WORKLOADS[workload][2]
    if hasattr(net, "data"):
        batches = net.data(BATCHES)
    else:
        with np.load(digits) as file:
            X, y = file["X"].reshape(-1, *net.shape), file["y"]
        rng = np.random.default_rng(3)
        picks = [rng.permutation(len(X))[:batch] for _ in range(BATCHES)]
        batches = [(X[pick], y[pick]) for pick in picks]

    begin = time.perf_counter()
    run = build(net, batches)
    losses = run()
    first = time.perf_counter() - begin

    def turn(passes: int) -> float:
        if not passes:
            return peak_memory()
        begin = time.perf_counter()
        for _ in range(passes):
            run()
        return (time.perf_counter() - begin) / (passes * BATCHES) * 1e6

    usual = min(turn(1) for _ in range(3)) * BATCHES
    return {"losses": losses, "start": max(0.0, first * 1e3 - usual / 1e3)}, turn


def disagreement(losses: list[float], reference: list[float], steps: int) -> float:
    """Return the largest relative difference of the first losses."""
    pairs = list(zip(losses, reference, strict=True))[:steps]
    return max((abs(a - b) / (abs(b) + 1e-3) if a == a else float("inf") for a, b in pairs), default=0.0)


def race(workload: str, names: list[str], rounds: int, passes: int, digits: str) -> tuple[Measured, bool]:
    """Return what was measured, and whether every column of ours worked and all agreed."""
    names = [name for name in names if exists(name, workload)]
    workers = start(__file__, names, workload, digits)
    good = all(name in workers for name in names if name in (HAND, TUNED, OURS, REPLAY))
    steps = COMPARED.get(workload, BATCHES)
    reference = next(iter(workers), "")
    for name, worker in workers.items():
        gap = disagreement(worker.first["losses"], workers[reference].first["losses"], steps)
        if gap > TOLERANCE:
            good = False
            print(f"  LOSSES DIFFER: {name} is {gap:.1%} away from {reference} within {steps} steps")
    times: dict[str, list[float]] = {name: [] for name in workers}
    for k in range(rounds if workers else 0):
        for name in rotated(list(workers), k):
            times[name].append(workers[name].ask(passes))
    memory = {name: worker.ask(0) for name, worker in workers.items()}
    for worker in workers.values():
        worker.close()
    return Measured(times, {name: worker.first["start"] for name, worker in workers.items()}, memory), good


def options() -> argparse.Namespace:
    """Return the options of the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=31, help="turns of each column (31)")
    parser.add_argument("--passes", type=int, default=1, help=f"passes over the {BATCHES} batches in a turn (1)")
    parser.add_argument("--workloads", default=",".join(WORKLOADS), help=", ".join(WORKLOADS))
    parser.add_argument("--columns", default=",".join(NAMES), help=", ".join(NAMES))
    parser.add_argument("--markdown", type=pathlib.Path, metavar="FILE", help="write the table into this page")
    parser.add_argument("--worker", nargs=3, help=argparse.SUPPRESS)
    given = parser.parse_args()
    given.columns, given.workloads = given.columns.split(","), given.workloads.split(",")
    for kind, names, known in (("column", given.columns, NAMES), ("workload", given.workloads, WORKLOADS)):
        for name in names:
            if name not in known:
                parser.error(f"unknown {kind} {name!r}; expected some of {', '.join(known)}")
    for kind in ("rounds", "passes"):
        if getattr(given, kind) < 1:
            parser.error(f"--{kind}: expected at least 1, got {getattr(given, kind)}")
    return given


def main() -> int:
    """Run the command."""
    given = options()
    if given.worker:
        serve(lambda: work(*given.worker))
        return 0
    names = given.columns
    page = step_report.framed(given.markdown) if given.markdown else None
    head = heading("One training step: forward, backward, SGD with momentum; digits, float32", given.rounds, PACKAGES)
    titles = {w: f"{w}  {step_report.layers(sizes)}, batch {batch}" for w, (_, sizes, batch) in WORKLOADS.items()}
    print(head)
    results, good = {}, True
    with tempfile.TemporaryDirectory() as folder:
        digits = os.path.join(folder, "digits.npz")
        save_digits(digits)
        for workload in given.workloads:
            results[workload], fine = race(workload, names, given.rounds, given.passes, digits)
            good = good and fine
            print(step_report.report(titles[workload], results[workload], names), end="\n\n", flush=True)
    print("Medians over rounds, and of ratios within a round, with 95 % bootstrap intervals.\n")
    for ours, targets in ((OURS, TARGETS), (REPLAY, REPLAYED)):
        print(step_report.verdicts(results, ours, targets), end="\n\n")
    if page:
        text = step_report.markdown(head, titles, results, names)
        given.markdown.write_text(text.join(page), encoding="utf-8")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
