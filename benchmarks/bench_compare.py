"""How often `compare` is right: pairs of identical runs, and pairs in which something is slower.

    python benchmarks/bench_compare.py [--pairs 40] [--rounds 30] [--only identical]

A pair is two runs on digits (64-64-64-10, batch 32), made alternately or one after the other. In a slower one the layer
in the middle waits in its op, forward and backward, for 15 % of the time that the layer takes, as measured before; or a
layer is new or gone; or the optimizer waits for as long as it takes: of these last three, a quarter of the pairs is
made. With a busy neighbour another process computes during the second run.
"""

from __future__ import annotations

import os

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(name, "1")

import argparse
import multiprocessing
from collections.abc import Callable
from contextlib import contextmanager
from statistics import median
from time import perf_counter_ns

import microfw as mf
from microfw import nn, optim
from microfw.profiler import alternate, compare
from microfw.profiler.recorder.overhead import MEASURED

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
    """Dense layer whose op takes a given number of nanoseconds longer."""

    forward_ns = backward_ns = 0

    def forward(self, x):
        return waiting_linear(x, self.weight, self.bias, forward_ns=self.forward_ns, backward_ns=self.backward_ns)


class WaitingSGD(optim.SGD):
    """SGD whose update takes a given number of nanoseconds longer."""

    wait_ns = 0

    def step(self):
        """Take a step: as a method of its own it is called in replayed steps, too."""
        super().step()

    def _update(self, *arguments):
        super()._update(*arguments)
        spin(self.wait_ns)


def run(train, forward_ns=0, backward_ns=0, epochs=3, extra=False, update_ns=0):
    """Train from scratch, and return the profile."""
    slow = Waiting(64, 64, rng=1)
    slow.forward_ns, slow.backward_ns = forward_ns, backward_ns
    layers = [nn.Dense(64, 64, rng=0), nn.ReLU(), slow, nn.ReLU(), nn.Dense(64, 10, rng=2)]
    model = nn.Sequential(*layers, *([nn.Tanh()] if extra else []))
    profiler = mf.Profiler()
    optimizer = WaitingSGD(model.parameters(), lr=0.05, momentum=0.9)
    optimizer.wait_ns = update_ns
    trainer = mf.Trainer(model, nn.CrossEntropyLoss(), optimizer, hooks=[profiler])
    trainer.fit(train, epochs=epochs, batch_size=32, rng=0, progress=False)
    token = MEASURED.set(False)  # it would take longer than the run
    session = profiler.session
    MEASURED.reset(token)
    return session


def per_step(session, phase):
    """What the layer takes, in nanoseconds a step: the median of the epochs."""
    rows = [(e, next(row for row in e.layers() if row.layer == LAYER)) for e in session.epochs]
    return median(getattr(row, f"{phase}_ns") / e.observed for e, row in rows)


def compute(busy) -> None:
    """Keep a core and its memory busy while an event is set."""
    import numpy as np

    a = np.ones((700, 700))
    while True:
        busy.wait()
        a = a @ a / 700


@contextmanager
def neighbour():
    """Yield a function that makes another process compute, or stop: to start one takes longer than a run."""
    context = multiprocessing.get_context("spawn")
    busy = context.Event()
    other = context.Process(target=compute, args=(busy,), daemon=True)
    other.start()
    try:
        yield lambda on: busy.set() if on else busy.clear()
    finally:
        other.terminate()
        other.join()


def pair(first: Callable, second: Callable, alternated: bool, disturb: Callable[[], None], rounds: int):
    """Make two runs and compare them. ``disturb`` is called where a neighbour begins to compute."""
    if alternated:
        disturb()
        return compare(*alternate(first, second, rounds))
    a = first(epochs=rounds)
    disturb()
    return compare(a, second(epochs=rounds))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--slower", type=float, default=0.15)
    parser.add_argument("--only", default="", help="only the cases whose names have this in them")
    arguments = parser.parse_args()
    train, _ = mf.data.load("digits", rng=0)
    base = run(train, epochs=30)
    waits = dict(zip(("forward_ns", "backward_ns"), (round(arguments.slower * per_step(base, p)) for p in
                                                     ("forward", "backward")), strict=True))  # fmt: skip
    update = median(e.update_ns / e.observed for e in base.epochs)
    print(f"layer {LAYER} waits {waits}, the optimizer {update:.0f} ns")
    cases = {
        "identical": ({}, {}, lambda found: [c for c in found.changes if c.real]),
        f"{arguments.slower:.0%} slower": ({}, waits, lambda found: [c for c in found.worse() if c.layer == LAYER]),
        "new layer": ({}, {"extra": True}, lambda found: [c for c in found.worse() if c.layer == "5"]),
        "layer gone": ({"extra": True}, {}, lambda found: [c for c in found.changes if c.real and c.layer == "5"]),
        "optimizer": (
            {},
            {"update_ns": round(update)},
            lambda found: [c for c in found.worse() if c.phase == "update"],
        ),
    }
    with neighbour() as disturb:
        for name, (a, b, named) in cases.items():
            pairs = arguments.pairs if name in list(cases)[:2] else max(arguments.pairs // 4, 1)
            for alternated, busy in ((True, False), (True, True), (False, False), (False, True)):
                title = f"{name}, {'alternated' if alternated else 'one after the other'}{', busy neighbour' * busy}"
                if arguments.only not in title:
                    continue
                hits = others = 0
                began = perf_counter_ns()
                for _ in range(pairs):
                    found = pair(lambda a=a, **k: run(train, **a, **k), lambda b=b, **k: run(train, **b, **k),
                                 alternated, lambda busy=busy: disturb(busy), arguments.rounds)  # fmt: skip
                    disturb(False)
                    hits += bool(named(found))
                    others += any(c.real and c.change > 0 and c.layer not in ("", LAYER, "5") for c in found.changes)
                seconds = (perf_counter_ns() - began) / 1e9
                print(
                    f"  {title:52} found in {hits} of {pairs}, another layer in {others}, {seconds:.0f} s", flush=True
                )


if __name__ == "__main__":
    main()
