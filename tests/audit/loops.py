"""Training loops under a clock that only the loop moves: how long each phase must have taken.

    python -m tests.audit.loops [--every=2] [NAME ...]    # prints what was expected and what a profile says, as JSON

A load takes 11 ns, an op 100, its derivative 1,000, an update 10,000, anything else 7. The clock replaces
`time.perf_counter_ns` before microfw is imported, so this file runs in a process of its own.
"""

from __future__ import annotations

import json
import sys
import time
from collections import Counter


class Clock:
    """Nanoseconds, moved by hand."""

    now = 10**9

    def __call__(self):
        return self.now

    def move(self, ns):
        self.now += ns


clock = Clock()
time.perf_counter_ns = clock

import numpy as np  # noqa: E402

import microfw as mf  # noqa: E402
from microfw import nn, optim  # noqa: E402
from microfw.optim.hyperparameter import POSITIVE, Hyperparameter  # noqa: E402
from tests.audit.recount import recount  # noqa: E402

LOAD, OP, RULE, UPDATE, OTHER = 11, 100, 1_000, 10_000, 7
DATA = np.random.default_rng(0).normal(size=(6, 4)).astype("f4")


def derivative(g):
    clock.move(RULE)
    return g


@mf.op(vjp=derivative, name="slow_in_audit")
def slow(x):
    """A copy, which takes its time."""
    clock.move(OP)
    return x + 0


class Slow(nn.Module):
    """The op as a layer."""

    def forward(self, x):
        return slow(x)


class SlowSGD(optim.Optimizer):
    """Plain descent, which takes its time."""

    lr = Hyperparameter(*POSITIVE)

    def __init__(self, parameters, lr=1e-3):
        super().__init__(parameters, lr=lr)

    def _update(self, constants, p, g, scratch):
        clock.move(UPDATE)
        p -= 1e-3 * g


def load(rows=6):
    clock.move(LOAD)
    return DATA[:rows]


def net(seed=0):
    return nn.Sequential(nn.Dense(4, 4, rng=seed), Slow(), nn.Dense(4, 2, rng=seed + 1))


def mean(t):
    return (t * t).mean()


LOOPS = {}


def loop(**phases):
    """Register a loop with what one run of it must take, by phase."""

    def registered(function):
        LOOPS[function.__name__] = function, phases
        return function

    return registered


class Books:
    """What the graphs of a loop hold, walked before each backward."""

    def __init__(self):
        self.counts = Counter()

    def backward(self, *losses):
        for loss in losses:
            counts = recount(loss)
            for name in ("nodes", "edges", "rules", "accumulated"):
                self.counts[name] += counts[name]
        for loss in losses:
            loss.backward()


@loop(data=4 * LOAD, forward=4 * OP, backward=4 * RULE, update=4 * UPDATE)
def plain(profiler, model, books):
    optimizer = SlowSGD(model.parameters())
    for _ in range(4):
        x = load()
        optimizer.zero_grad()
        books.backward(mean(model(x)))
        optimizer.step()


@loop(data=4 * LOAD, forward=4 * OP, backward=4 * RULE, update=4 * UPDATE)
def alternated_losses(profiler, model, books):
    optimizer = SlowSGD(model.parameters())
    for k in range(4):
        out = model(load())
        optimizer.zero_grad()
        books.backward(mean(out) if k % 2 else abs(out).sum())
        optimizer.step()


@loop(data=3 * LOAD, forward=3 * 5 * OP, backward=3 * 4 * RULE, update=3 * 2 * UPDATE)
def two_nets_against_each_other(profiler, model, books):
    """The first net's output, without its graph, trains the second; then the first, through both."""
    other = nn.Sequential(nn.Dense(2, 3, rng=5), Slow(), nn.Dense(3, 1, rng=6))
    first, second = SlowSGD(model.parameters()), SlowSGD(other.parameters())
    for _ in range(3):
        x = load()
        made = model(x)
        second.zero_grad()
        books.backward(mean(other(made.detach())) + mean(other(np.ones((6, 2), "f4"))))
        second.step()
        first.zero_grad()
        out = other(model(x))
        books.backward(mean(out))
        first.step()


@loop(data=3 * LOAD, other=3 * LOAD, forward=6 * OP, backward=6 * RULE, update=3 * UPDATE)
def accumulation(profiler, model, books):
    """A load between two parts of one step belongs to that step."""
    optimizer = SlowSGD(model.parameters())
    for _ in range(3):
        optimizer.zero_grad()
        for _ in range(2):
            books.backward(mean(model(load())))
        optimizer.step()


@loop(data=3 * LOAD, forward=6 * OP, backward=6 * RULE, update=3 * UPDATE)
def two_forwards_then_two_backwards(profiler, model, books):
    optimizer = SlowSGD(model.parameters())
    for _ in range(3):
        x = load()
        optimizer.zero_grad()
        books.backward(mean(model(x)), abs(model(x)).sum())
        optimizer.step()


@loop(data=4 * LOAD, forward=4 * OP, backward=4 * RULE, update=8 * UPDATE)
def two_optimizers_after_one_backward(profiler, model, books):
    body, head = SlowSGD(model[0].parameters()), SlowSGD(model[2].parameters())
    for _ in range(4):
        out = model(load())
        body.zero_grad()
        head.zero_grad()
        books.backward(mean(out))
        body.step()
        head.step()


@loop(data=4 * LOAD, forward=4 * OP, backward=4 * RULE, update=4 * UPDATE, other=4 * OTHER)
def gradients_by_hand(profiler, model, books):
    optimizer = SlowSGD(model.parameters())
    for _ in range(4):
        out = model(load())
        optimizer.zero_grad()
        books.backward(mean(out))
        clock.move(OTHER)  # clips them, say
        optimizer.step()


@loop(data=4 * LOAD, forward=4 * OP, backward=4 * RULE, update=4 * UPDATE)
def no_modules(profiler, model, books):
    w = nn.Parameter(np.ones((4, 2), "f4"))
    optimizer = SlowSGD([w])
    for _ in range(4):
        x = load()
        optimizer.zero_grad()
        books.backward(mean(slow(x @ w)))
        optimizer.step()


@loop(data=4 * LOAD, forward=8 * OP, backward=8 * RULE, update=4 * UPDATE)
def an_op_before_the_model(profiler, model, books):
    shift = nn.Parameter(np.zeros(4, "f4"))
    optimizer = SlowSGD([shift, *model.parameters()])
    for _ in range(4):
        x = load()
        optimizer.zero_grad()
        books.backward(mean(model(slow(x + shift))))
        optimizer.step()


@loop(data=4 * LOAD, forward=4 * OP, backward=4 * RULE, update=4 * UPDATE, evaluation=4 * OP, other=4 * LOAD)
def evaluation_inside(profiler, model, books):
    """A load for an evaluation is no step's."""
    optimizer = SlowSGD(model.parameters())
    for _ in range(4):
        x = load()
        optimizer.zero_grad()
        books.backward(mean(model(x)))
        optimizer.step()
        x = load()
        with mf.no_grad():
            model(x)


@loop(data=4 * LOAD, forward=4 * OP, backward=4 * (OP + RULE), update=4 * UPDATE)
def a_checkpoint(profiler, model, books):
    """What it runs again is part of backward. Its inner graph is made there: its counts are not in the books."""
    optimizer = SlowSGD(model.parameters())
    books.counts = None
    for _ in range(4):
        x = load()
        optimizer.zero_grad()
        mean(model[2](mf.checkpoint(model[1], model[0](x)))).backward()
        optimizer.step()


def frozen(place):
    def run(profiler, model, books):
        model[place].requires_grad_(False)
        optimizer = SlowSGD([p for p in model.parameters() if p.requires_grad])
        for _ in range(4):
            x = load()
            optimizer.zero_grad()
            books.backward(mean(model(x)))
            optimizer.step()

    return run


LOOPS["the_first_layer_frozen"] = frozen(0), {"data": 4 * LOAD, "forward": 4 * OP, "update": 4 * UPDATE}
LOOPS["the_last_layer_frozen"] = frozen(2), LOOPS["plain"][1]


@loop(data=4 * LOAD, forward=12 * OP, backward=12 * RULE, update=4 * UPDATE)
def shared(profiler, model, books):
    optimizer = SlowSGD(model.parameters())
    for _ in range(4):
        x = load()
        optimizer.zero_grad()
        books.backward(mean(model[2](model[1](model[1](model[1](model[0](x)))))))
        optimizer.step()


@loop(data=6 * LOAD, forward=6 * OP, backward=6 * RULE, update=6 * UPDATE)
def replayed(profiler, model, books):
    """No check is due in so few replays; the first steps run as they are, in part twice."""
    step = mf.compile(lambda x: mean(model(x)), SlowSGD(model.parameters()))
    for _ in range(5):  # before the profile begins
        step(DATA)
    profiler.__exit__(None, None, None)
    profiler.__init__(model)
    profiler.__enter__()
    books.counts = None
    for _ in range(6):
        step(load())


@loop(data=3 * LOAD, forward=3 * OP, backward=3 * RULE, update=3 * UPDATE, other=LOAD)
def an_exception_in_the_middle(profiler, model, books):
    """The second step fails before its first op, so that its load is no step's."""
    optimizer = SlowSGD(model.parameters())
    for k in range(4):
        x = load()
        optimizer.zero_grad()
        try:
            out = model(x[:, :3] if k == 1 else x)
        except mf.errors.ShapeError:
            continue
        books.backward(mean(out))
        optimizer.step()


@loop(data=3 * LOAD)
def lbfgs(profiler, model, books):
    """How often it computes the loss depends on the line search: what the closure took is counted there."""
    optimizer = optim.LBFGS(model.parameters(), iterations=3)
    expected = LOOPS["lbfgs"][1]
    expected.update(forward=0, backward=0)

    def closure():
        optimizer.zero_grad()
        loss = mean(model(x))
        books.backward(loss)
        expected["forward"] += OP
        expected["backward"] += RULE
        return loss

    for _ in range(3):
        x = load()
        optimizer.step(closure)


class Loading(mf.Hook):
    """A hook of a user's own, which takes its time at the end of each epoch."""

    def on_epoch_end(self, state):
        clock.move(OTHER)


@loop(forward=12 * OP, backward=12 * RULE, update=12 * UPDATE, evaluation=3 * OP, other=3 * OTHER)
def trainer(profiler, model, books):
    """Each evaluation is one forward."""
    fit(profiler, model, compile=False)
    books.counts = None


@loop(evaluation=3 * OP, data=0)
def trainer_replayed(profiler, model, books):
    """How often a step runs before its plan is trusted is not said here: only that the phases add up."""
    fit(profiler, model, compile=True)
    books.counts = None


def fit(profiler, model, **settings):
    profiler.__exit__(None, None, None)
    profiler.__init__(every=profiler.session.every)
    x, y = np.tile(DATA, (4, 1)), np.zeros((24, 2), "f4")
    mf.Trainer(model, nn.MSELoss(), SlowSGD(model.parameters()), hooks=[Loading(), profiler], **settings).fit(
        (x, y), epochs=3, batch_size=6, validation=(x[:12], y[:12]), rng=0, progress=False
    )


def run(name, every=1):
    """Run a loop under the profiler; return what was expected and what its profile says."""
    function, expected = LOOPS[name]
    model, books, profiler = net(), Books(), None
    profiler = mf.Profiler(model, every=every)
    profiler.__enter__()
    began = clock.now
    function(profiler, model, books)
    taken = clock.now - began
    if profiler._recorder is not None:
        profiler.__exit__(None, None, None)
    total = profiler.session.total()
    phases = ("data", "forward", "backward", "update", "evaluation", "check", "other")
    says = {phase: getattr(total, f"{phase}_ns", 0) for phase in phases}
    sums = total.sum()
    return {
        "expected": (dict.fromkeys(phases, 0) if "forward" in expected else {}) | expected,
        "got": says,
        "total": total.total_ns,
        "taken": taken,
        "epochs": [
            [e.total_ns, sum(getattr(e, f"{phase}_ns", 0) for phase in phases)] for e in profiler.session.epochs
        ],
        "layers": [sum(row.forward_ns for row in total.rows), sum(row.backward_ns for row in total.rows)],
        "books": books.counts,
        "steps": total.steps,
        "observed": total.observed,
        "counts": {name: getattr(sums, name) for name in ("nodes", "edges", "rules", "accumulated")},
    }


if __name__ == "__main__":
    every = [int(a.removeprefix("--every=")) for a in sys.argv if a.startswith("--every=")] or [1]
    chosen = [a for a in sys.argv[1:] if not a.startswith("--")] or LOOPS
    json.dump({name: run(name, *every) for name in chosen}, sys.stdout)
