"""What profiling costs, and whether the backward time lands on the right layer.

    python benchmarks/bench_profiler.py [--rounds 41]

Prints the time of an epoch on digits (64-64-10, batch 32, through the Trainer) with the profiler against that of one
without, in the same fit; whole fits, with and without; the same for passes over 20 batches in a script's loop whose
step is replayed by `mf.compile`; then, for Dense(512, 512), Dense(512, 10) at batch 4,096, the first layer's backward
seconds against those of its own weight product and bias sum, run alone.
"""

from __future__ import annotations

import os

from microfw.autograd.mode import MODE

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(name, "1")

import argparse
import contextvars
import statistics
from time import perf_counter

import numpy as np

import microfw as mf
from microfw import nn, optim


def make(hooks):
    model = nn.Sequential(nn.Dense(64, 64, rng=0), nn.ReLU(), nn.Dense(64, 10, rng=1))
    return mf.Trainer(model, nn.CrossEntropyLoss(), optim.SGD(model.parameters(), lr=0.05, momentum=0.9), hooks=hooks)


KINDS = {"every=16": {"every": 16}, "every step": {}, "traced": {"trace": 10**6}}


def overhead(rounds: int) -> None:
    train, _ = mf.data.load("digits", rng=0)
    ratios: dict[str, list[float]] = {kind: [] for kind in ("detached", *KINDS)}
    for k in range(max(rounds // 3, 1)):
        for kind, of_fits in ratios.items():
            turns = Turns(mf.Profiler(**KINDS.get(kind, {})), attached=kind in KINDS)
            make([turns]).fit(train, epochs=WARM + 2 * TURN * PAIRS, batch_size=32, rng=k, progress=False)
            of_fits.append(statistics.median(a / b for a, b in zip(turns.profiled, turns.plain, strict=True)))
    print("An epoch on digits, 64-64-10, batch 32, with the profiler / one without, in the same fit, in turns;")
    print(f"median of {PAIRS * (TURN - 1)} pairs, of {len(ratios['detached'])} fits the median")
    for kind, of_fits in ratios.items():
        low, middle, high = np.quantile(of_fits, (0.25, 0.5, 0.75))
        print(f"  {kind:12} {middle:.3f}   quartiles of fits {low:.3f} to {high:.3f}")


WARM, TURN, PAIRS = 24, 4, 30
"""Epochs before any is timed, in which the step is captured, with and without the profiler; epochs with the profiler,
and then without, in turns, the first of which is not timed; and turns of each kind."""


class Turns(mf.Hook):
    """Has a profiler in some epochs, and times all, the profiler's own moments included."""

    def __init__(self, profiler: mf.Profiler, attached: bool) -> None:
        self.profiler = profiler
        self.attached = attached
        self.profiled: list[float] = []
        self.plain: list[float] = []

    def on_fit_start(self, state):
        self.mode = MODE.get()
        self.profiler.on_fit_start(state)
        self.watching = MODE.get()
        if not self.attached:
            self.profiler.on_fit_end(state)
        MODE.set(self.mode)

    def on_epoch_start(self, state):
        turn, self.place = divmod(state.epoch - 1, TURN)
        self.on = turn % 2 == 0
        if self.on and self.attached:
            MODE.set(self.watching)
        self.began = perf_counter()
        if self.on and self.attached:
            self.profiler.on_epoch_start(state)

    def on_epoch_end(self, state):
        if self.on and self.attached:
            self.profiler.on_epoch_end(state)
        seconds = perf_counter() - self.began
        if state.epoch > WARM and self.place:
            (self.profiled if self.on else self.plain).append(seconds)
        if self.on and self.attached:
            self.watching = MODE.get()
            MODE.set(self.mode)

    def on_fit_end(self, state):
        if self.attached:
            MODE.set(self.watching)
            self.profiler.on_fit_end(state)


def fits(rounds: int) -> None:
    train, _ = mf.data.load("digits", rng=0)
    seconds: dict[str, list[float]] = {kind: [] for kind in ("without", *KINDS)}
    for k in range(rounds):
        for kind, of_kind in seconds.items():
            trainer = make([mf.Profiler(**KINDS[kind])] if kind in KINDS else [])
            began = perf_counter()
            trainer.fit(train, epochs=30, batch_size=32, rng=k, progress=False)
            of_kind.append(perf_counter() - began)
    print(f"A fit of 30 epochs, from its first step on, with / without; median of {rounds}")
    for kind in KINDS:
        ratios = [a / b for a, b in zip(seconds[kind], seconds["without"], strict=True)]
        print(f"  {kind:12} {statistics.median(ratios):.3f}")


def replayed(rounds: int) -> None:
    train, _ = mf.data.load("digits", rng=0)
    batches = list(mf.data.batches(train, batch_size=32, rng=0))[:20]
    without, profiled = compiled(batches), compiled(batches)
    profiler = mf.Profiler()
    contexts = [contextvars.copy_context() for _ in range(2)]  # the profiler is attached in the second alone
    contexts[1].run(profiler.__enter__)
    ratios = []
    for k in range(10 * rounds):
        seconds = [context.run(turn) for context, turn in zip(contexts, (without, profiled), strict=True)]
        if k >= rounds:
            ratios.append(seconds[1] / seconds[0])
    contexts[1].run(profiler.__exit__, None, None, None)
    assert profiler.session.epochs[0].replayed > 9 * rounds * len(batches)
    print("A step that mf.compile replays, 64-64-10, batch 32: profiled against not")
    print(f"  every step   {statistics.median(ratios):.3f}")


def compiled(batches):
    """Return a function that takes a step on each batch, and returns how many seconds it took."""
    trainer = make([])
    step = mf.compile(lambda X, y: trainer.loss(trainer.model(X), y), trainer.optimizer)

    def turn():
        began = perf_counter()
        for X, y in batches:
            step(X, y)
        return perf_counter() - began

    return turn


def attribution(rounds: int) -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((4096, 512), dtype=np.float32)
    y = rng.integers(0, 10, 4096)
    model = nn.Sequential(nn.Dense(512, 512, rng=0), nn.Dense(512, 10, rng=1))
    optimizer = optim.SGD(model.parameters(), lr=0.01)
    loss_function = nn.CrossEntropyLoss()
    g = rng.standard_normal((4096, 512), dtype=np.float32)
    weight, bias, ones = np.empty((512, 512), np.float32), np.empty(512, np.float32), np.ones(4096, np.float32)
    alone, layer = [], []
    for _ in range(rounds):
        began = perf_counter()
        x.T.dot(g, weight)
        ones.dot(g, bias)
        alone.append(perf_counter() - began)
        with mf.Profiler(model) as profiler:
            optimizer.zero_grad()
            loss_function(model(x), y).backward()
            optimizer.step()
        rows = {row.layer: row for row in profiler.session.epochs[0].layers()}
        layer.append(rows["0"].backward_ns / 1e9)
    ratio = statistics.median(a / b for a, b in zip(layer, alone, strict=True))
    print("Dense(512, 512), Dense(512, 10), batch 4,096")
    print(f"  first layer's backward {statistics.median(layer) * 1e3:.2f} ms, its products alone "
          f"{statistics.median(alone) * 1e3:.2f} ms, ratio {ratio:.3f}")  # fmt: skip


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=41)
    rounds = parser.parse_args().rounds
    overhead(rounds)
    fits(rounds)
    replayed(rounds)
    attribution(min(rounds, 15))
