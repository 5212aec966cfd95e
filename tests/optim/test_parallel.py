"""Data-parallel training: two ranks of MPI, started for real."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import microfw as mf
from microfw import nn, optim
from microfw.errors import ArgumentError
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
