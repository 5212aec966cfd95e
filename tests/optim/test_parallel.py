"""Data-parallel training: two ranks of MPI, started for real."""

from __future__ import annotations

import copy
import importlib.util
import os
import shutil
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import microfw as mf
from microfw import nn, optim
from microfw.errors import ArgumentError
from microfw.training import EarlyStopping, Hook, lr_range_test
from tests.helpers.paths import ROOT

MPIEXEC = shutil.which("mpiexec", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
needs_mpi = pytest.mark.skipif(
    importlib.util.find_spec("mpi4py") is None or MPIEXEC is None,
    reason='needs mpi4py and mpiexec: pip install ".[mpi]"',
)

START = """
import sys
import numpy as np
import microfw as mf
from microfw import nn, optim
from mpi4py import MPI

rank, size = MPI.COMM_WORLD.rank, MPI.COMM_WORLD.size
rng = np.random.default_rng(0)
X, y = rng.standard_normal((64, 5)), rng.integers(0, 3, 64)
model = nn.Sequential(nn.Dense(5, 8, rng=rank), nn.Tanh(), nn.Dense(8, 3, rng=rank)).astype(np.float64)
loss = nn.CrossEntropyLoss()
made = optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=0.01)
"""

TRAIN = """
with optim.DataParallel(made) as optimizer:
    for step in range(12):
        whole = np.arange(step % 3, 64, 3)[:20]
        mine = [whole[:14], whole[14:]][rank]  # not of one length
        if step == 11:
            mine = [whole, whole[:0]][rank]
        optimizer.zero_grad()
        if len(mine):
            loss(model(X[mine]), y[mine]).backward()
        optimizer.step(rows=len(mine))
np.save(sys.argv[1] + str(rank), made.flat.values)
"""

FAIL = """
with optim.DataParallel(made) as optimizer:
    for step in range(1000):
        optimizer.zero_grad()
        loss(model(X), y).backward()
        if rank == 1 and step == 3:
            raise OSError("the disk of rank 1 is full")
        optimizer.step()
"""


def mpiexec(script, *arguments, ranks=2):
    environment = os.environ | {
        "PYTHONPATH": str(ROOT), "OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
        "OMPI_MCA_rmaps_base_oversubscribe": "1", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1",
    }  # fmt: skip
    command = [MPIEXEC, "-n", str(ranks), sys.executable, "-c", script, *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100)


@pytest.mark.slow
@needs_mpi
def test_two_ranks_give_the_weights_of_one_process(tmp_path):
    done = mpiexec(START + TRAIN, f"{tmp_path}/weights")
    assert done.returncode == 0, done.stderr
    first, second = (np.load(tmp_path / f"weights{rank}.npy") for rank in (0, 1))
    np.testing.assert_array_equal(first, second)

    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((64, 5)), rng.integers(0, 3, 64)
    model = nn.Sequential(nn.Dense(5, 8, rng=0), nn.Tanh(), nn.Dense(8, 3, rng=0)).astype(np.float64)
    optimizer = optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=0.01)
    before = optimizer.flat.values.copy()
    for step in range(12):
        rows = np.arange(step % 3, 64, 3)[:20]
        optimizer.zero_grad()
        nn.CrossEntropyLoss()(model(X[rows]), y[rows]).backward()
        optimizer.step()
    np.testing.assert_allclose(first, optimizer.flat.values, rtol=1e-12, atol=1e-14)
    assert np.abs(first - before).max() > 0.1


@pytest.mark.slow
@needs_mpi
def test_a_rank_that_fails_stops_the_others():
    done = mpiexec(START + FAIL)
    assert done.returncode != 0
    assert "OSError: the disk of rank 1 is full" in done.stderr
    expected = (
        "RankError: DataParallel.step: expected all ranks to continue, rank 1 has failed: OSError: the disk of rank 1"
    )
    assert expected in done.stderr


class Alone:
    """What a DataParallel asks of MPI, for one rank."""

    rank, size = 0, 1

    def allgather(self, mine):
        return [mine]

    def Bcast(self, array, root):
        pass


class Waiting(Alone):
    """The sums that come back when a second rank has sent this."""

    def __init__(self, other=lambda sent: np.zeros_like(sent)):
        self.other = other

    def Iallreduce(self, place, sent):
        sent += self.other(sent)
        return self

    def Wait(self):
        pass


def test_a_parameter_without_a_gradient_anywhere_is_left_alone(mpi):
    used, unused = nn.Parameter([1.0]), nn.Parameter([1.0])
    optimizer = optim.DataParallel(optim.SGD([used, unused], lr=0.5, weight_decay=0.1), Waiting())
    (used * 2.0).sum().backward()
    optimizer.step()
    assert used.item() < 1 and unused.item() == 1 and unused.grad is None
    assert optimizer.lr == 0.5
    optimizer.lr = 0.25
    assert optimizer.optimizer.lr == 0.25 and optimizer.state_dict()["lr"] == 0.25


def test_it_is_an_optimizer_for_a_trainer(mpi):
    train, _ = mf.data.load("iris", rng=0)

    def trained(wrap):
        model = nn.Sequential(nn.Dense(4, 3, rng=0))
        made = wrap(optim.SGD(model.parameters(), lr=0.1))
        trainer = mf.Trainer(model, nn.CrossEntropyLoss(), made)
        trainer.fit(train, epochs=2, rng=0, progress=False)
        return np.concatenate([p.numpy().ravel() for p in model.parameters()])

    alone = trained(lambda made: made)
    np.testing.assert_array_equal(alone, trained(lambda made: optim.DataParallel(made, Waiting())))


def test_errors(mpi):
    with pytest.raises(ArgumentError, match="^DataParallel: expected an optimizer on one flat buffer, got list; pass"):
        optim.DataParallel([], Alone())
    p = nn.Parameter([1.0])
    differs = Alone()
    differs.allgather = lambda mine: [mine, (7, "float32")]
    with pytest.raises(ArgumentError, match="^DataParallel: expected the same parameters on every rank, got"):
        optim.DataParallel(optim.SGD([p], lr=0.1), differs)
    optimizer = optim.DataParallel(optim.SGD([p], lr=0.1), Waiting())
    for rows in (-1, np.nan, np.inf):
        with pytest.raises(ArgumentError, match="^DataParallel.step: expected rows of at least 0, finite, got"):
            optimizer.step(rows=rows)


# Two ranks in a Trainer: two threads


class Ranks:
    """What two ranks in two threads share."""

    def __init__(self):
        self.slots, self.barrier = [None, None], threading.Barrier(2, timeout=30)


class Comm:
    size = 2

    def __init__(self, shared, rank):
        self.shared, self.rank = shared, rank

    def allgather(self, value):
        self.shared.slots[self.rank] = value
        self.shared.barrier.wait()
        found = list(self.shared.slots)
        self.shared.barrier.wait()
        return found

    def Bcast(self, array, root):
        array[...] = self.allgather(array.copy())[root]

    def Iallreduce(self, place, sent):
        sent[...] = sum(self.allgather(sent.copy()))
        return self

    def Wait(self):
        pass


RNG = np.random.default_rng(0)
ROWS, LABELS = RNG.normal(size=(24, 4)), RNG.integers(0, 3, 24)
PART = np.arange(24).reshape(3, 2, 4)  # of each step, those of each rank


def fitted(rows, batch, comm=None, *, lr=0.5, epochs=3, hooks=(), **options):
    """Return the weights and the history of a fit in the order of the rows."""
    model = nn.Sequential(nn.Dense(4, 3, rng=0)).astype(np.float64)
    optimizer = optim.SGD(model.parameters(), lr=lr)
    optimizer = optimizer if comm is None else optim.DataParallel(optimizer, comm)
    loss = nn.CrossEntropyLoss(weight=[1.0, 2.0, 3.0])
    trainer = mf.Trainer(model, loss, optimizer, hooks=[hook() for hook in hooks], **options)
    data, order = (ROWS[rows], LABELS[rows]), lambda n, rng: np.arange(n)
    history = trainer.fit(data, epochs, batch, progress=False, sampler=order if epochs > 1 else None)
    return model[0].weight.data, history


def on_two_ranks(call):
    """Return what ``call(rank, comm)`` returns on each rank, or the error that it raises."""
    shared = Ranks()

    def run(rank):
        try:
            return call(rank, Comm(shared, rank))
        except Exception as error:
            return error

    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(run, (0, 1)))


class Decay(Hook):
    def on_epoch_start(self, state):
        state.optimizer.weight_decay = 0.5
        state.optimizer.groups[0]["momentum"] = 0.5


class HalveGradients(Hook):
    def on_gradients(self, state):
        for p in state.model.parameters():
            p.grad *= 0.5 * (p.grad > 0)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"clip_norm": 0.1},
        {"clip_value": 0.02},
        {"hooks": [Decay]},
        {"hooks": [HalveGradients]},
        {"lr": 4.0, "epochs": 8, "hooks": [lambda: EarlyStopping("loss", patience=9)]},
    ],
)
def test_two_ranks_in_a_trainer_give_weights_and_history_of_one_process(mpi, options):
    weights, history = fitted(np.arange(24), 8, **options)
    for found, row in on_two_ranks(lambda rank, comm: fitted(PART[:, rank].ravel(), 4, comm, **options)):
        np.testing.assert_allclose(found, weights, rtol=1e-12)
        for name in ("loss", "lr", "gradient_norm", *(["clipped"] if "clipped" in history[0] else [])):
            np.testing.assert_allclose(row.column(name), history.column(name), rtol=1e-12)


def test_ranks_with_other_numbers_of_steps_are_refused(mpi):
    for error in on_two_ranks(lambda rank, comm: fitted(np.arange([8, 16][rank]), 8, comm, epochs=1)):
        assert str(error) == (
            "Trainer.fit: expected as many steps in an epoch on all ranks, got [1, 2]; "
            "give each rank as many rows, or pass drop_last=True"
        )


def test_gradients_that_are_averaged_can_be_clipped_before_the_step(mpi):
    def step(rank, comm):
        p = nn.Parameter(np.zeros(2))
        optimizer = optim.DataParallel(optim.SGD([p], lr=1.0), comm)
        for _ in range(2):
            optimizer.zero_grad()
            p.grad = [[3.0, 0.0], [0.0, 4.0]][rank]
            assert optimizer.average(rows=[3, 1][rank])
            assert optim.clip_grad_norm(optimizer, 0.5) > 2
            assert optimizer.step()
        return p.numpy(), optimizer.gradient_norm

    for found, norm in on_two_ranks(step):
        np.testing.assert_allclose(found, -np.array([2.25, 1.0]) / np.hypot(2.25, 1.0), rtol=1e-6)
        assert abs(norm - 0.5) < 1e-6


def test_other_attributes_are_those_of_the_optimizer_within(mpi):
    model = nn.Dense(1, 1)
    optimizer = optim.DataParallel(optim.SGD(model.parameters(), lr=0.1, momentum=0.9), Waiting())
    assert optimizer.momentum == copy.copy(optimizer).momentum == 0.9
    with pytest.raises(AttributeError, match="expected a hyperparameter, got betas; use .optimizer.betas$"):
        optimizer.betas  # noqa: B018
    trainer = mf.Trainer(model, nn.MSELoss(), optimizer)
    with pytest.raises(ArgumentError, match="single steps in one process, got DataParallel$"):
        lr_range_test(trainer, (np.ones((4, 1)), np.ones((4, 1))))
