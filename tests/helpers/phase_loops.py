"""Training loops under a clock that only the loop moves: what `tests/profiler/test_phases.py` runs in a process of its own."""

from __future__ import annotations

import json
import sys
import time

NOW = [0]


def clock():
    NOW[0] += 1
    return NOW[0]


def spend(ms):
    NOW[0] += ms * 10**6


if __name__ == "__main__":
    time.perf_counter_ns = clock  # before anything imports it

import numpy as np  # noqa: E402

import microfw as mf  # noqa: E402
from microfw import nn, optim  # noqa: E402


@mf.op(vjp=lambda g: (spend(20), g)[1], name="slow")
def slow(x):
    spend(5)
    return x + 0


class Slow(nn.Module):
    def forward(self, x):
        return slow(x)


class SlowSGD(optim.SGD):
    def _update(self, *args):
        spend(100)
        super()._update(*args)


X, Y = np.ones((4, 3), np.float32), np.zeros(4, np.int64)
LOOPS = {}


def loop(f):
    LOOPS[f.__name__] = f
    return f


class Parts:
    def __init__(self):
        self.model = nn.Sequential(nn.Dense(3, 2, rng=0), Slow())
        self.loss = nn.CrossEntropyLoss()
        self.optimizer = SlowSGD(self.model.parameters(), lr=0.1)

    def forward(self):
        return self.loss(self.model(X), Y)


@loop
def with_modules():
    p = Parts()
    with mf.Profiler(p.model) as profiler:
        for _ in range(3):
            spend(1)  # a load
            p.optimizer.zero_grad()
            outputs = p.model(X)
            spend(2)  # between the model and the loss
            p.loss(outputs, Y).backward()
            spend(3)  # gradient work by hand
            p.optimizer.step()
        spend(4)  # what follows the last step
    return profiler, {"data": 3, "forward": 21, "backward": 60, "other": 13, "update": 300}


@loop
def without_modules():
    w = nn.Parameter(np.ones((3, 2), np.float32))
    optimizer = SlowSGD([w], lr=0.1)
    with mf.Profiler() as profiler:
        for _ in range(3):
            spend(1)
            optimizer.zero_grad()
            y = X @ w
            spend(2)
            slow(y).sum().backward()
            spend(3)
            optimizer.step()
    return profiler, {"data": 3, "forward": 21, "backward": 60, "other": 9, "update": 300}


@loop
def an_op_before_the_model():
    p, w = Parts(), nn.Parameter(np.ones((4, 3), np.float32))
    with mf.Profiler(p.model) as profiler:
        for _ in range(2):
            spend(1)
            x = slow(w * X)
            spend(2)
            p.loss(p.model(x), Y).backward()
            p.optimizer.step()
    return profiler, {"data": 2, "forward": 24, "backward": 80, "update": 200}


@loop
def lbfgs():
    p = Parts()
    optimizer = optim.LBFGS(p.model.parameters(), iterations=1, line_search=False)

    def closure():
        optimizer.zero_grad()
        loss = p.forward()
        loss.backward()
        spend(3)
        return loss

    with mf.Profiler(p.model) as profiler:
        for _ in range(3):
            spend(10)
            optimizer.step(closure)
    return profiler, {"data": 30, "forward": 30, "backward": 120, "other": 18, "update": 0}  # two evaluations a step


@loop
def accumulated_batches():
    p = Parts()
    with mf.Profiler(p.model) as profiler:
        for _ in range(2):
            for _ in range(3):
                spend(1)
                p.forward().backward()
            p.optimizer.step()
    return profiler, {"data": 2, "forward": 30, "backward": 120, "other": 4, "update": 200}


@loop
def two_optimizers():
    p, q = Parts(), Parts()
    with mf.Profiler(p.model) as profiler:
        for _ in range(2):
            spend(1)
            (p.forward() + q.forward()).backward()
            p.optimizer.step()
            spend(3)
            q.optimizer.step()
    assert profiler.session.epochs[0].steps == 2
    return profiler, {"data": 2, "forward": 20, "backward": 80, "other": 6, "update": 400}


@loop
def alternated_models():
    p, q = Parts(), Parts()
    with mf.Profiler(p.model) as profiler:
        for _ in range(2):
            for one in (p, q):
                spend(1)
                one.forward().backward()
                one.optimizer.step()
    assert profiler.session.epochs[0].steps == 4
    return profiler, {"data": 4, "forward": 20, "backward": 80, "update": 400}


@loop
def two_forwards_before_two_backwards():
    p = Parts()
    with mf.Profiler(p.model) as profiler:
        for _ in range(2):
            spend(1)
            first = p.forward()
            spend(2)
            second = p.forward()
            first.backward()
            spend(3)
            second.backward()
            p.optimizer.step()
    return profiler, {"data": 2, "forward": 24, "backward": 80, "other": 6, "update": 200}


@loop
def evaluations():
    p = Parts()
    with mf.Profiler(p.model) as profiler:
        for _ in range(3):
            spend(10)
            p.forward().backward()
            p.optimizer.step()
            spend(2)  # a load of what is evaluated
            with mf.no_grad():
                p.model(X)
    return profiler, {"data": 30, "forward": 15, "backward": 60, "update": 300, "evaluation": 15, "other": 6}


@loop
def evaluations_without_modules():
    w = nn.Parameter(np.ones((3, 2), np.float32))
    optimizer = SlowSGD([w], lr=0.1)
    with mf.Profiler() as profiler:
        for _ in range(3):
            spend(10)
            slow(X @ w).sum().backward()
            optimizer.step()
            with mf.no_grad():
                slow(X @ w)
    return profiler, {"data": 30, "forward": 15, "backward": 60, "update": 300, "evaluation": 15}


@loop
def a_teacher_within_the_step():
    p, teacher = Parts(), Parts()
    with mf.Profiler(p.model) as profiler:
        for _ in range(2):
            spend(1)
            outputs = p.model(X)
            with mf.no_grad():
                teacher.model(X)
            spend(2)
            p.loss(outputs, Y).backward()
            p.optimizer.step()
    return profiler, {"data": 2, "forward": 14, "evaluation": 10, "backward": 40, "update": 200}


@loop
def gradients_by_a_function():
    p = Parts()
    with mf.Profiler(p.model) as profiler:
        for _ in range(2):
            spend(1)
            gradients = mf.grad(lambda m: p.loss(m(X), Y))(p.model)
            spend(3)
            for name, parameter in p.model.named_parameters():
                parameter.grad = gradients[name] if isinstance(gradients, dict) else np.zeros_like(parameter.data)
            p.optimizer.step()
    return profiler, {"data": 2, "forward": 10, "backward": 0, "other": 46, "update": 200}


@loop
def a_hook_that_computes_within_backward():
    p = Parts()
    weight = p.model[0].weight
    weight.register_hook(lambda g: (slow(weight * 1.0), None)[1])
    with mf.Profiler(p.model) as profiler:
        for _ in range(2):
            p.forward().backward()
            p.optimizer.step()
    return profiler, {"data": 0, "forward": 10, "backward": 50, "update": 200}


@loop
def errors_in_a_forward():
    p = Parts()
    with mf.Profiler(p.model) as profiler:
        for _ in range(2):
            spend(1)
            try:
                p.model(X[:, :2])
            except mf.errors.MicrofwError:
                spend(6)
            p.forward().backward()
            p.optimizer.step()
    return profiler, {"data": 2, "forward": 10, "backward": 40, "other": 12, "update": 200}


@loop
def training_inside_a_forward():
    p = Parts()

    class Outer(nn.Module):
        def forward(self, x):
            spend(2)
            for _ in range(2):
                p.forward().backward()
                p.optimizer.step()
                spend(1)
            return x

    with mf.Profiler(p.model) as profiler:
        Outer()(X)
    return profiler, {"data": 1, "forward": 12, "backward": 40, "other": 1, "update": 200}


@loop
def checkpoints():
    p = Parts()
    with mf.Profiler(p.model) as profiler:
        for _ in range(2):
            spend(1)
            p.loss(mf.checkpoint(p.model, X), Y).backward()
            p.optimizer.step()
    return profiler, {"data": 2, "forward": 10, "backward": 50, "update": 200}  # it runs again in backward


@loop
def sampled():
    p = Parts()
    with mf.Profiler(p.model, every=3) as profiler:
        for k in range(7):
            spend(1)
            p.forward().backward()
            spend(3)
            p.optimizer.step()
            if k in (1, 3):
                with mf.no_grad():
                    p.model(X)
    wanted = {"data": 2, "forward": 10, "backward": 40, "other": 6, "update": 200, "evaluation": 10}
    return profiler, wanted | {"unobserved": 5 * 129}


@loop
def sampled_with_two_optimizers():
    p, q = Parts(), Parts()
    with mf.Profiler(p.model, every=2) as profiler:
        for _ in range(4):
            spend(1)
            (p.forward() + q.forward()).backward()
            p.optimizer.step()
            spend(3)
            q.optimizer.step()
    each = {"data": 1, "forward": 10, "backward": 40, "other": 3, "update": 200}
    return profiler, {phase: 2 * ms for phase, ms in each.items()} | {"unobserved": 2 * 254}


@loop
def a_trainer_with_hooks_and_validation():
    p = Parts()

    class Busy(mf.Hook):
        def on_step_end(self, state):
            spend(7)

        def on_validation_start(self, state):
            spend(11)

    profiler = mf.Profiler()
    trainer = mf.Trainer(p.model, p.loss, p.optimizer, hooks=[profiler, Busy()], compile=False)
    trainer.fit((X, Y), 2, batch_size=2, validation=(X, Y), rng=0, progress=False)
    profiler.session.epochs[0] = profiler.session.total()
    return profiler, {"data": 0, "forward": 20, "backward": 80, "update": 400, "evaluation": 10, "other": 28 + 22}


@loop
def replays():
    model = nn.Sequential(nn.Dense(3, 2, rng=0), nn.ReLU())
    loss = nn.CrossEntropyLoss()
    step = mf.compile(lambda x, y: loss(model(x), y), optim.SGD(model.parameters(), lr=0.1))
    with mf.Profiler(model) as profiler:
        for _ in range(30):
            spend(10)
            step(X, Y)
    epoch = profiler.session.epochs[0]
    assert epoch.replayed > 20 and epoch.preparation_ns > 0 and epoch.check_ns > 0
    return profiler, {"data": 300, "forward": 0, "backward": 0, "other": 0}


def main():
    mf.profiler.profiler.overhead = lambda session, recorder: {}  # which would wait for the clock
    found = {}
    for name, run in LOOPS.items():
        profiler, wanted = run()
        epoch = profiler.session.epochs[0]
        phases = ("data", "forward", "backward", "update", "evaluation", "other", "check", "unobserved")
        ns = {phase: getattr(epoch, f"{phase}_ns") for phase in phases}
        rows = [epoch.untagged_forward_ns, epoch.untagged_backward_ns, epoch.sum().nodes - epoch.sum().rules]
        found[name] = {"ns": ns, "total": epoch.total_ns, "wanted": wanted, "rows": rows}
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()
