"""Compare the share that a profile states for its own cost with the share measured in turns.

    python benchmarks/bench_overhead.py [--rounds 20] [--only eager,trace]

In each of eight configurations plain and profiled turns alternate. A stated share is right if it is within a third of
the measured one, or within two points.
"""

from __future__ import annotations

import os

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(name, "1")

import argparse
import statistics
from time import perf_counter

import numpy as np

import microfw as mf
from microfw import nn, optim

RNG = np.random.default_rng(0)
LABELS = RNG.integers(0, 10, 32)


def dense(*widths):
    layers = [
        part
        for k, pair in enumerate(zip(widths, widths[1:], strict=False))
        for part in (nn.Dense(*pair, rng=k), nn.ReLU())
    ]
    return nn.Sequential(*layers[:-1]), RNG.normal(size=(32, widths[0])).astype("f4")


def conv():
    layers = nn.Conv2D(1, 8, 3, rng=0), nn.ReLU(), nn.MaxPool2D(2), nn.Flatten(), nn.Dense(72, 10, rng=1)
    return nn.Sequential(*layers), RNG.normal(size=(32, 1, 8, 8)).astype("f4")


def loop(make, compiled=False, steps=200, **options):
    """Return a function that takes a turn of a loop, profiled or not: its seconds, and the profiler."""
    model, X = make()
    loss, optimizer = nn.CrossEntropyLoss(), optim.SGD(model.parameters(), lr=1e-4, momentum=0.9)
    replay = mf.compile(lambda X, y: loss(model(X), y), optimizer)

    def eager(X, y):
        optimizer.zero_grad()
        loss(model(X), y).backward()
        optimizer.step()

    step = replay if compiled else eager

    def steps_in_turn():
        began = perf_counter()
        for _ in range(steps):
            step(X, LABELS)
        return perf_counter() - began

    def turn(profiled):
        if not profiled:
            return steps_in_turn(), None
        with mf.Profiler(model, **options) as profiler:
            seconds = steps_in_turn()
        return seconds, profiler

    return turn


def trainer(**options):
    train, _ = mf.data.load("digits", rng=0)

    def turn(profiled):
        model, _ = dense(64, 64, 10)
        profiler = mf.Profiler(**options) if profiled else None
        fit = mf.Trainer(
            model, nn.CrossEntropyLoss(), optim.SGD(model.parameters(), lr=0.01), hooks=[profiler] if profiled else []
        ).fit
        began = perf_counter()
        fit(train, epochs=30, batch_size=32, rng=0, progress=False)
        return perf_counter() - began, profiler

    return turn


CONFIGURATIONS = {
    "eager": lambda: loop(lambda: dense(64, 64, 10)),
    "replayed": lambda: loop(lambda: dense(64, 64, 10), compiled=True, steps=600),
    "Trainer": trainer,
    "10 layers": lambda: loop(lambda: dense(32, *[32] * 9, 10)),
    "convolution": lambda: loop(conv),
    "every 4th": lambda: loop(lambda: dense(64, 64, 10), every=4),
    "every 16th": lambda: loop(lambda: dense(64, 64, 10), every=16),
    "trace": lambda: loop(lambda: dense(64, 64, 10), trace=10**6),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--only", default=",".join(CONFIGURATIONS))
    given = parser.parse_args()
    right = []
    for kind in given.only.split(","):
        turn = CONFIGURATIONS[kind]()
        for profiled in (False, True, False, True):
            turn(profiled)
        ratios, stated = [], []
        for k in range(given.rounds):
            seconds = {}
            for profiled in (k % 2 == 0, k % 2 == 1):
                seconds[profiled], profiler = turn(profiled)
                if profiler is not None:
                    last = profiler
            stated.append(last.session.overhead["share"])
            ratios.append(seconds[True] / seconds[False] - 1)
        said, low, measured, high = statistics.median(stated), *np.quantile(ratios, (0.25, 0.5, 0.75))
        right.append(abs(said - measured) <= max(measured / 3, 0.02))
        print(f"{kind:12} stated {said:6.1%}   measured {measured:6.1%}, quartiles {low:.1%} to {high:.1%}"
              f"   {'right' if right[-1] else 'WRONG'}", flush=True)  # fmt: skip
    print(f"{sum(right)} of {len(right)} right")


if __name__ == "__main__":
    main()
