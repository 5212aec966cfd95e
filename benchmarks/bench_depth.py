"""Time forward and backward of chains of 10 to 10,000 multiplies, in microfw and in PyTorch.

    python benchmarks/bench_depth.py [--rounds N] [--lengths 10,100,1000,10000]

The arrays hold 16 floats, so that nearly all of the time is the cost of a node. Chains come in two kinds: by a
constant (one gradient a node) and by a parameter (two, of which one is accumulated into the same leaf).
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
import time
from typing import Any

from interleaved import heading, interval, ratios, rotated, serve, shown, start, table

LENGTHS = (10, 30, 100, 300, 1000, 3000, 10000)
CHAINS = ("constant", "parameter")
OURS, TORCH = "microfw", "PyTorch eager"
NAMES = (OURS, TORCH)
NODES_A_TURN = 3000  # short chains are repeated to about this many nodes


def work(name: str, chain: str) -> tuple[dict[str, Any], Any]:
    """Prepare a worker: the gradient of a short chain, and a function that times a length."""
    import numpy as np

    values = np.linspace(0.5, 1.5, 16, dtype=np.float32)
    factors = np.linspace(0.999, 1.001, 16, dtype=np.float32)
    by_parameter = chain == "parameter"
    if name == OURS:
        import microfw as mf

        x = mf.tensor(values, requires_grad=True)
        factor = mf.tensor(factors, requires_grad=by_parameter)
    else:
        import torch

        torch.set_num_threads(1)
        x = torch.tensor(values, requires_grad=True)
        factor = torch.tensor(factors, requires_grad=by_parameter)

    def once(length: int) -> None:
        x.grad = factor.grad = None
        y = x
        for _ in range(length):
            y = y * factor
        y.sum().backward()

    def turn(length: int) -> float:
        repeats = max(1, NODES_A_TURN // length)
        begin = time.perf_counter()
        for _ in range(repeats):
            once(length)
        return (time.perf_counter() - begin) / repeats * 1e6

    once(20)
    gradients = [np.asarray(leaf.grad).tolist() for leaf in (x, factor) if leaf.grad is not None]
    turn(1000)
    return {"gradients": gradients}, turn


def slope(lengths: list[int], times: list[float]) -> float:
    """Return the exponent b of the least-squares fit time = a * length ** b."""
    return statistics.linear_regression([math.log(n) for n in lengths], [math.log(t) for t in times]).slope


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=21, help="turns of each column at each length (21)")
    parser.add_argument("--lengths", default=",".join(map(str, LENGTHS)), help="numbers of nodes")
    parser.add_argument("--chains", default=",".join(CHAINS), help="constant,parameter")
    parser.add_argument("--worker", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        serve(lambda: work(*options.worker))
        return 0
    lengths = [int(n) for n in options.lengths.split(",")]
    print(heading("Forward and backward through a chain of multiplies, 16 float32 each", options.rounds))
    good = True
    for chain in options.chains.split(","):
        workers = start(__file__, NAMES, chain)
        good = good and OURS in workers
        first = [worker.first["gradients"] for worker in workers.values()]
        for other in first[1:]:
            pairs = [(a, b) for p, q in zip(first[0], other, strict=True) for a, b in zip(p, q, strict=True)]
            if not all(math.isclose(a, b, rel_tol=1e-4) for a, b in pairs):
                good = False
                print("  GRADIENTS DIFFER")
        times: dict[str, dict[int, list[float]]] = {name: {n: [] for n in lengths} for name in workers}
        for k in range(options.rounds):
            for n in lengths:
                for name in rotated(list(workers), k):
                    times[name][n].append(workers[name].ask(n))
        for worker in workers.values():
            worker.close()
        print(report(chain, lengths, times), end="\n\n", flush=True)
    print("Medians over rounds with 95 % bootstrap intervals; ratios and fits are taken within a round.")
    return 0 if good else 1


def report(chain: str, lengths: list[int], times: dict[str, dict[int, list[float]]]) -> str:
    """Return a chain's table and the fitted exponents."""
    head = [f"{name}, µs a node" for name in NAMES]
    rows = [[f"by a {chain}: nodes", *head, f"{OURS} / {TORCH}"]]
    for n in lengths:
        cells = [shown([t / n for t in times[name][n]]) if name in times else "" for name in NAMES]
        own, other = (times.get(name, {}).get(n) for name in NAMES)
        rows.append([f"{n:,}", *cells, shown(ratios(own, other))])
    lines = [table(rows)]
    for name, series in times.items():
        fits = [slope(lengths, [series[n][k] for n in lengths]) for k in range(len(series[lengths[0]]))]
        middle, low, high = interval(fits)
        lines.append(f"  {name}: time grows as nodes^{middle:.3f} (95 % interval {low:.3f} to {high:.3f})")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
