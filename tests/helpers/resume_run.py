"""A training run that uses all that can be lost, killed after each of its steps, and continued.

Run as a program it kills: ``python tests/helpers/resume_run.py FOLDER EVERY KIND`` prints a line for each step. EVERY is how
often a checkpoint is written, KIND "shared" where layers and fit share one Generator, "library" for the
library's own hooks and accumulated gradients, and "apart".
"""

from __future__ import annotations

import hashlib
import os
import signal
import sys
from pathlib import Path

import numpy as np

import microfw as mf
from microfw import nn, optim
from microfw.training import Checkpoint, EarlyStopping, Hook, LearningRate, WeightAveraging

EPOCHS, STEPS = 3, 5  # steps of an epoch


class Schedule(Hook):
    """A learning rate that depends on how many steps it was notified of."""

    def __init__(self):
        self.told = 0

    def on_step_end(self, state):
        self.told += 1
        state.optimizer.lr = 0.1 * 0.9**self.told

    def state_dict(self):
        return {"told": self.told}

    def load_state_dict(self, state):
        self.told = int(state["told"])


class Stopping(Hook):
    """Keeps the best weights, brings them back at the end, and stops where nothing gets better."""

    def __init__(self, patience=2):
        self.patience, self.best, self.waited, self.weights = patience, float("inf"), 0, None

    def on_fit_start(self, state):
        self.best, self.waited, self.weights = float("inf"), 0, None

    def on_epoch_end(self, state):
        loss = state.history[-1]["val_loss"]
        self.waited = 0 if loss < self.best else self.waited + 1
        if loss < self.best:
            self.best, self.weights = loss, state.model.state_dict()
        state.stop = state.stop or self.waited >= self.patience

    def on_fit_end(self, state):
        if self.weights is not None:
            state.model.load_state_dict(self.weights)

    def state_dict(self):
        return {"best": self.best, "waited": self.waited, "weights": self.weights}

    def load_state_dict(self, state):
        self.best, self.waited, self.weights = state["best"], state["waited"], state["weights"]


class Noted(nn.CrossEntropyLoss):
    """Notes which labels it gets in training, in a file: the order of the data."""

    def __init__(self, path):
        super().__init__()
        self.path = path

    def forward(self, logits, labels, sample_weight=None):
        if logits.requires_grad:
            with open(self.path, "a") as file:
                file.write(hashlib.sha256(labels.numpy().tobytes() + logits.data.tobytes()).hexdigest() + "\n")
        return super().forward(logits, labels, sample_weight)


class Do(Hook):
    """Does something after a step, after all else was done."""

    last = True

    def __init__(self, step, action):
        self.step, self.action = step, action

    def on_step_end(self, state):
        if state.steps == self.step:
            self.action()


def data():
    rng = np.random.default_rng(7)
    X = rng.standard_normal((2, STEPS * 6 - 1, 4)).astype(np.float32)  # the last batch is smaller
    y = (X.sum(axis=2) > 0).astype(int) + (X[:, :, 0] > 1)
    return (X[0], y[0]), (X[1], y[1])


def run(folder, *hooks, kind="apart", resume=None, epochs=EPOCHS, stopping=2, log="order.txt"):
    """Train, and return (all that is left, the trainer)."""
    shared, library = kind == "shared", kind == "library"
    rng = np.random.default_rng(3)
    model = nn.Sequential(
        nn.Dense(4, 8, rng=0),
        nn.BatchNorm1D(8),
        nn.ReLU(),
        nn.Dropout(0.3, rng=rng if shared else 5),
        nn.Dense(8, 3, rng=1),
    )
    optimizer = optim.SGD(model.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=1e-3)
    own = [Schedule(), *([Stopping(stopping)] if stopping else [])]
    options = {}
    if library:  # what the library has, in steps of two batches
        optimizer = optim.AdamW(model.parameters(), lr=0.05, weight_decay=0.01)
        own = [
            LearningRate(optim.schedules.ReduceOnPlateau(0.05, patience=0), of="val_loss"),
            EarlyStopping(patience=5),
            WeightAveraging(0.8, keep=False),
        ]
        options = {"clip_norm": 0.5, "accumulate": 2}
    profiler = mf.Profiler()
    # The one that saves is first in the list, and is called last.
    trainer = mf.Trainer(
        model,
        Noted(Path(folder, log)),
        optimizer,
        metrics=["accuracy"],
        hooks=[*hooks, *own, profiler],
        **options,
    )
    trainer.profiler = profiler
    train, test = data()
    history = trainer.fit(
        train, epochs, 3 if library else 6, validation=test, rng=rng if shared else 2, progress=False, resume=resume
    )
    return left(trainer, history), trainer


def plain(value):
    """Return nested values with the bytes of arrays in their place."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return (value.dtype.str, value.tobytes()) if isinstance(value, np.ndarray) else repr(value)


def left(trainer, history):
    """Return what must be equal, in plain values."""
    state = trainer.optimizer.state_dict()
    return {
        "weights": {k: (v.dtype.str, v.tobytes()) for k, v in trainer.model.state_dict().items()},
        "optimizer": plain(state),
        "hooks": [
            plain(h.state_dict()) for h in trainer.hooks if hasattr(h, "state_dict") and not isinstance(h, mf.Profiler)
        ],
        "random": [m.rng.bit_generator.state for m in trainer.model if isinstance(m, nn.Dropout)],
        "history": [{k: v for k, v in row.items() if k != "seconds"} for row in history],
        "profile": [(e.epoch, e.steps, e.sum().nodes, e.sum().rules) for e in trainer.profiler.session.epochs],
    }


def killed(folder, step, every, kind):
    """Train in a process that is killed after a step; return how it ended."""
    child = os.fork()
    if not child:
        try:
            path = Path(folder, "run.npz")
            run(folder, Checkpoint(path, every), Do(step, lambda: os.kill(os.getpid(), signal.SIGKILL)), kind=kind)
        finally:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def main(folder, every, kind):
    whole, _ = run(folder, kind=kind, log="whole.txt")
    straight = Path(folder, "whole.txt").read_text().splitlines()
    for step in range(1, EPOCHS * STEPS + 1):
        here = Path(folder, str(step))
        here.mkdir()
        code = killed(here, step, every, kind)
        path = here / "run.npz"
        written = max(step // every * every, (step - 1) // STEPS * STEPS)
        seen = (here / "order.txt").read_text().splitlines()[: written * (2 if kind == "library" else 1)]
        (here / "order.txt").write_text("")
        again, _ = run(here, Checkpoint(path, every), kind=kind, resume=path if path.exists() else None)
        seen += (here / "order.txt").read_text().splitlines()
        wrong = [name for name in again if again[name] != whole[name]]
        print(step, -code, seen == straight, wrong, sorted(p.name for p in here.iterdir()))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3])
