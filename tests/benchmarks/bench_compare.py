"""How often `compare` is right: pairs of identical runs, and pairs where one layer was made 20 % slower.

    python tests/benchmarks/bench_compare.py [--pairs 20] [--rounds 20]

A pair is two runs on digits (64-64-64-10, batch 32) made alternately. In the slower ones one layer, in the middle,
waits in its op, forward and backward, for 20 % of the time that the layer takes, as measured before.
"""

from __future__ import annotations

import os

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(name, "1")

import argparse
from statistics import median
from time import perf_counter_ns

import microfw as mf
from microfw import nn, optim
from microfw.profiler import alternate, compare

LAYER = "2"


def spin(ns: int) -> None:
    """Wait, working."""
    end = perf_counter_ns() + ns
    while perf_counter_ns() < end:
        pass


def waits_x(g, x, w, b, backward_ns):
    spin(backward_ns)
    return g @ w.T


@mf.op(
    vjp=(waits_x, lambda g, x, w, b: x.T @ g, lambda g, x, w, b: g.sum(0)),
    name="waiting_linear",
)
def waiting_linear(x, w, b, *, forward_ns=0, backward_ns=0):
    """x @ w + b, and a wait."""
    y = x @ w + b
    spin(forward_ns)
    return y


class Waiting(nn.Dense):
    """A Dense whose op takes longer, by so many nanoseconds."""

    forward_ns = backward_ns = 0

    def forward(self, x):
        return waiting_linear(x, self.weight, self.bias, forward_ns=self.forward_ns, backward_ns=self.backward_ns)


def run(train, forward_ns=0, backward_ns=0, epochs=3):
    """Train from scratch, and return the profile."""
    slow = Waiting(64, 64, rng=1)
    slow.forward_ns, slow.backward_ns = forward_ns, backward_ns
    model = nn.Sequential(nn.Dense(64, 64, rng=0), nn.ReLU(), slow, nn.ReLU(), nn.Dense(64, 10, rng=2))
    profiler = mf.Profiler()
    optimizer = optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    trainer = mf.Trainer(model, nn.CrossEntropyLoss(), optimizer, hooks=[profiler])
    trainer.fit(train, epochs=epochs, batch_size=32, rng=0, progress=False)
    return profiler.session


def per_step(session, phase):
    """What the layer takes, in nanoseconds a step: the median of the epochs."""
    rows = [(e, next(row for row in e.layers() if row.layer == LAYER)) for e in session.epochs]
    return median(getattr(row, f"{phase}_ns") / e.observed for e, row in rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--slower", type=float, default=0.2)
    arguments = parser.parse_args()
    train, _ = mf.data.load("digits", rng=0)
    base = run(train, epochs=30)
    waits = [round(arguments.slower * per_step(base, phase)) for phase in ("forward", "backward")]
    print(
        f"layer {LAYER}: waits {waits[0]:,} ns forward and {waits[1]:,} ns backward, {arguments.slower:.0%} of its time"
    )
    for title, extra in (("identical", (0, 0)), (f"{arguments.slower:.0%} slower", waits)):
        named = others = slowdowns = shares_named = shares_wrong = 0
        for _ in range(arguments.pairs):
            a, b = alternate(lambda: run(train), lambda extra=extra: run(train, *extra), arguments.rounds)
            worse = [c for c in compare(a, b).changes if c.real and c.change > 0]
            named += any(c.layer == LAYER for c in worse)
            others += any(c.layer not in (LAYER, "") for c in worse)
            slowdowns += bool(worse)
            a.alternated = ""
            shares = [c for c in compare(a, b).changes if c.real and c.change > 0]
            shares_named += any(c.layer == LAYER for c in shares)
            shares_wrong += any(c.layer != LAYER for c in shares)
        print(
            f"  {title:12} of {arguments.pairs} pairs: a slowdown reported in {slowdowns}, the layer named in {named}, "
            f"another layer in {others}; by shares alone named in {shares_named}, another in {shares_wrong}",
            flush=True,
        )


if __name__ == "__main__":
    main()
