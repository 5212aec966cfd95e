"""What all tests share: Ctrl-C, ops that go with the test, and an observer that remembers what it was told."""

from __future__ import annotations

import gc
import os
import signal
import sys
import tempfile
from collections import Counter
from contextlib import AbstractContextManager

import numpy as np
import pytest

import microfw.ops.whole  # all of them, for tables of cases  # noqa: F401
from microfw.autograd.mode import MODE, mode
from microfw.autograd.observer import Observer, StepTimer
from microfw.autograd.phases import OTHER
from microfw.autograd.registry import OPS
from microfw.autograd.scope import THREAD_SCOPE
from microfw.profiler.recorder.overhead import MEASURED


def pytest_configure(config):
    """Set the environment of each process of pytest-xdist and of the processes that tests start.

    They use one BLAS thread, and a cache folder that is removed at the end.
    """
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(name, "1")
    if not hasattr(config, "workerinput"):  # workers get the environment of the process that starts them
        folder = tempfile.TemporaryDirectory(prefix="microfw-cache-", ignore_cleanup_errors=True)
        os.environ["MICROFW_CACHE"] = folder.name
        config.add_cleanup(folder.cleanup)


def pytest_collection_finish():
    """Take what was imported and collected out of the sight of the garbage collector."""
    gc.collect()
    gc.freeze()  # a gc.collect() of a test takes 5 ms instead of 200


@pytest.fixture(autouse=True, scope="session")
def ctrl_c_raises():
    """Let Ctrl-C raise, which a shell may have switched off for what it runs in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def measured_overhead():
    """Profiles of this test measure their overhead; those of other tests do not, which takes 0.1 s for each."""


@pytest.fixture(autouse=True)
def nothing_leaks(request):
    """Fail a test that leaves a module's scope or another mode behind, and put both right for the next."""
    mode, measured = MODE.get(), MEASURED.set("measured_overhead" in request.fixturenames)
    yield
    MEASURED.reset(measured)
    scope, THREAD_SCOPE.scope = THREAD_SCOPE.scope, None
    after = MODE.get()
    MODE.set(mode)
    assert scope is None, f"the test has left the scope of {scope}"
    assert after is mode, "the test has left another mode"


class Phases(StepTimer):
    """A timer that keeps the phases that it is notified of."""

    def __init__(self):
        self.phases = []  # in order; an update once it has ended

    def on_module_start(self, recording):
        self.phases.append("forward" if recording else "evaluation")

    def on_backward_start(self, loss):
        self.phases.append("backward")
        return OTHER

    def on_update(self, optimizer, began):
        self.phases.append("update")

    def on_update_error(self, began):
        self.phases.append("update")

    def on_replay(self, began, middle, ended):
        assert began <= middle <= ended
        self.phases += ["forward", "backward"]

    def on_replayed_step(self, began, middle, ended, updating, updated):
        assert ended <= updating <= updated
        self.on_replay(began, middle, ended)
        self.phases.append("update")
        self.on_replay_end()


class Watcher(Phases, Observer):
    """An observer that counts what the engine does, and keeps it."""

    wants_grad_inputs = True

    def __init__(self):
        self.ran = []  # (op, node, input shapes, params, output shape) of each op, forward
        self.visited = []  # each node, as backward visits it
        self.shares = []  # the partials of each
        self.repeats = 0
        super().__init__()

    def forward(self, op, node, inputs, params, output, began):
        self.ran.append((op, node, [np.shape(a) for a in inputs], params, output.shape))

    def backward(self, node, gradient, partials, began):
        self.visited.append(node)
        self.shares.append(partials)

    def on_replay_end(self):
        self.repeats += 1

    def on(self) -> AbstractContextManager[None]:
        return mode(observer=self, timer=self)

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
    return node.metadata or tuple(partial.index for _, partial, *_ in node.edges or ())


class Remembering(Watcher):
    """A watcher that notes a node's edges as it is recorded, since backward frees them."""

    def forward(self, op, node, inputs, params, output, began):
        super().forward(op, node, inputs, params, output, began)
        if node is not None:
            node.metadata = tuple(partial.index for _, partial, *_ in node.edges)


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


@pytest.fixture
def mpi(monkeypatch):
    monkeypatch.setitem(sys.modules, "mpi4py.MPI", type(sys)("mpi4py.MPI"))
    sys.modules["mpi4py.MPI"].IN_PLACE = object()
