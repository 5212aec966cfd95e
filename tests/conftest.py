"""What all tests share: Ctrl-C, ops that go with the test, and an observer that remembers what it was told."""

from __future__ import annotations

import itertools
import signal
import sys
from collections import Counter
from contextlib import AbstractContextManager

import numpy as np
import pytest

import microfw.ops.whole  # all of them, for tables of cases  # noqa: F401
from microfw import recording
from microfw.registry import OPS


@pytest.fixture(autouse=True, scope="session")
def ctrl_c_raises():
    """Let Ctrl-C raise, which a shell may have switched off for what it runs in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


class Watcher(recording.Observer):
    """An observer that counts what the engine does, and keeps it."""

    collects = True

    def __init__(self):
        self.ran = []  # (op, node, input shapes, params, output shape) of each op, forward
        self.visited = []  # each node, as backward visits it
        self.shares = []  # the partials of each
        self.timing, self.stale, self.stretches = True, False, []
        self.losses = None
        self.repeats = 0

    def forward(self, op, node, inputs, params, output, began):
        self.ran.append((op, node, [np.shape(a) for a in inputs], params, output.shape))

    def backward(self, node, gradient, partials, began):
        self.visited.append(node)
        self.shares.append(partials)

    def before_backward(self, loss):
        pass

    def replayed(self, began, middle, ended):
        self.stretches += ("forward", began, middle, "backward", middle, ended)

    def updated(self, began, ended, optimizer):
        self.stretches += ("update", began, ended)

    def repeated(self):
        self.repeats += 1

    def stepped(self, began, middle, ended, moved, done):
        self.replayed(began, middle, ended)
        self.updated(moved, done, None)
        self.repeated()

    @property
    def phases(self):
        """The phases of the stretches, in order, each of which began after the one before it ended."""
        parted = list(recording.triples(self.stretches))
        for (_, began, ended), (_, later, _) in itertools.pairwise([*parted, ("", sys.maxsize, 0)]):
            assert began <= ended <= later
        return [phase for phase, _, _ in parted]

    def on(self) -> AbstractContextManager[None]:
        return recording.mode(observer=self, watcher=self)

    @property
    def recorded(self):
        """The nodes recorded, in order."""
        return [node for _, node, *_ in self.ran if node is not None]

    @property
    def rules(self):
        """How often each op's node was walked."""
        return Counter(node.op.name for node in self.visited)

    def costs(self):
        """(forward, backward) matrix-product operations that ran, by the ops' own cost rules."""
        forward = backward = 0
        for op, node, shapes, params, shape in self.ran:
            cost = op.cost(shape, *shapes, **params)
            forward += cost.products_forward
            if node is not None and cost.products_derivatives:
                backward += sum(cost.products_derivatives[k] for k in indices(node))
        return forward, backward


def indices(node):
    """Which inputs of a node need a gradient; read before backward frees the edges."""
    return node.note or tuple(partial.index for _, partial, *_ in node.edges or ())


class Remembering(Watcher):
    """A watcher that notes a node's edges as it is recorded, since backward frees them."""

    def forward(self, op, node, inputs, params, output, began):
        super().forward(op, node, inputs, params, output, began)
        if node is not None:
            node.note = tuple(partial.index for _, partial, *_ in node.edges)


@pytest.fixture(autouse=True)
def ops():
    """What a test declares goes with it."""
    before = set(OPS)
    yield
    for name in OPS.keys() - before:
        del OPS[name]


@pytest.fixture
def quiet():
    """Nothing divides by zero, overflows or is undefined, unless it is expected."""
    with np.errstate(divide="raise", over="raise", invalid="raise"):
        yield


@pytest.fixture
def watcher():
    """Return a fresh observer; ``with watcher.on():`` attaches it."""
    return Remembering()
