"""Data-parallel training over MPI: each rank has the same model; gradients are averaged before each update."""

from __future__ import annotations

import sys
import time
from typing import Any, Self

import numpy as np

from microfw.autograd.mode import MODE
from microfw.autograd.phases import OTHER, UPDATE
from microfw.errors import ArgumentError, MicrofwError

PATIENCE = 60.0
"""Seconds that a failed rank waits for the others to receive its error, before it aborts them."""


class RankError(MicrofwError, RuntimeError):
    """Another rank has failed."""


class DataParallel:
    """An optimizer that averages the gradients over all MPI ranks before each step.

    Every rank has the same model and a part of the data. A step equals, up to rounding, that of one process on the
    batches of all ranks joined: gradients are weighted by the denominators of the mean losses, if they are passed, else
    equally. A `Trainer` passes them. All ranks start with the parameters of rank 0.

    Parameters
    ----------
    optimizer : SGD
        Any optimizer with flat buffers, made on every rank in the same way.
    comm : mpi4py.MPI.Comm, optional
        The ranks; all by default. Needs the extra ``mpi``.

    Raises
    ------
    ArgumentError
        If the optimizer has no flat buffers, or ranks have different numbers of parameters.
    RankError
        In `step`, on all other ranks, if an exception ended the ``with`` block of one rank.

    Notes
    -----
    Hyperparameters and ``groups`` are those of the optimizer: set them on every rank. To clip, call `average` first. In
    a `Trainer`, clipping and hooks have the averaged gradients, the losses in the History are those of all rows, and
    other entries the means of the ranks. So hooks such as `EarlyStopping` decide alike. All ranks must have the same
    number of steps.

    A step costs one Allreduce of the gradients and a few more numbers: denominators, which parameters have a gradient,
    and which rank has failed. The loss must be a mean. Layers that normalise over a batch use the rank's own batch, and
    random numbers differ between ranks. Start with ``python -m mpi4py train.py`` so that errors outside of the block
    stop all ranks.

    Examples
    --------
    In a file ``train.py``, started by ``mpiexec -n 4 python train.py``::

        from mpi4py import MPI
        rank, size = MPI.COMM_WORLD.rank, MPI.COMM_WORLD.size
        with optim.DataParallel(optim.SGD(model.parameters(), lr=0.1)) as optimizer:
            for X, y in mf.data.batches((X[rank::size], y[rank::size]), rng=0):
                optimizer.zero_grad()
                loss_fn(model(X), y).backward()
                optimizer.step(rows=loss_fn.denominator(y))
    """

    def __init__(self, optimizer: Any, comm: Any = None) -> None:
        if not hasattr(getattr(optimizer, "flat", None), "gradients"):
            fix = "pass optim.SGD(model.parameters(), lr=...)"
            raise ArgumentError("DataParallel", "an optimizer on one flat buffer", type(optimizer).__name__, fix)
        object.__setattr__(self, "optimizer", optimizer)  # first: other attributes are looked for among its settings
        self.flat = optimizer.flat
        self.comm = world() if comm is None else comm
        sizes = self.comm.allgather((self.flat.values.size, str(self.flat.values.dtype)))
        if len(set(sizes)) > 1:
            raise ArgumentError("DataParallel", "the same parameters on every rank", sizes)
        size, leaves = self.flat.values.size, len(self.flat.leaves)
        # One buffer, so that a step has one Allreduce: each further message would cost its latency.
        self._sent = np.zeros(size + leaves + 1 + self.comm.size, self.flat.values.dtype)
        self._gradients = self._sent[:size]
        self._present = self._sent[size : size + leaves]
        self._rows = self._sent[size + leaves : size + leaves + 1]
        self._failed = self._sent[-self.comm.size :]
        self._averaged = False
        self.comm.Bcast(self.flat.values, root=0)
        for leaf in self.flat.leaves:
            leaf.version += 1

    def __getattr__(self, name: str) -> Any:
        """Return a hyperparameter of the optimizer, its ``settings``, ``groups`` or ``gradient_norm``."""
        within = self.__dict__.get("optimizer")  # None while a copy is made
        if within is not None and (name in ("settings", "groups", "gradient_norm") or name in within.settings):
            return getattr(within, name)
        raise AttributeError(f"DataParallel: expected a hyperparameter, got {name}; use .optimizer.{name}")

    def __setattr__(self, name: str, value: Any) -> None:
        if name in self.optimizer.settings:
            setattr(self.optimizer, name, value)
        else:
            object.__setattr__(self, name, value)

    def zero_grad(self) -> None:
        """Set the gradients to None."""
        self._averaged = False
        self.optimizer.zero_grad()

    takes_denominator = True
    """Whether `step` takes the denominator of the mean loss."""

    def step(self, rows: float = 1) -> bool:
        """Average the gradients, unless `average` has, and make the same update on every rank.

        Parameters
        ----------
        rows : float
            As in `average`; ignored after it.

        Returns
        -------
        bool
            Whether there was an update; False if the denominators of all ranks are 0.

        Raises
        ------
        RankError
            If another rank has failed.
        """
        updates = self._averaged or self.average(rows)
        self._averaged = False
        if updates:
            self.optimizer.step()
        return updates

    def average(self, rows: float = 1) -> bool:
        """Average the gradients of all ranks: before `step`, to change or clip those of the joined batch.

        Parameters
        ----------
        rows : float
            Denominator of the mean loss of this rank's batch, ``loss.denominator(targets)``: for most losses the
            number of rows. 0 if the rank had no batch, as in a last step, or if no row counts.

        Returns
        -------
        bool
            Whether rows count; False, with no gradient changed, if the denominators of all ranks are 0.

        Raises
        ------
        RankError
            If another rank has failed.
        """
        if not 0 <= rows < np.inf:
            raise ArgumentError("DataParallel.step", "rows of at least 0, finite", rows)
        timer = MODE.get().timer
        before = timer.switch(UPDATE) if timer is not None else OTHER
        try:
            self._averaged = self._average(rows)
        finally:
            if timer is not None:
                timer.switch(before)
        return self._averaged

    def gather(self, value: Any) -> list[Any]:
        """Return the values of all ranks, in their order.

        Raises
        ------
        RankError
            If another rank has failed.
        """
        self._sent[...] = 0
        self._reduce()  # a rank that fails answers this call, not the next one
        self._check_failed()
        found: list[Any] = self.comm.allgather(value)
        return found

    def _average(self, rows: float) -> bool:
        """Average the gradients of all ranks; return False if no row counts."""
        self._write(rows)
        self._reduce()
        self._check_failed()
        if not self._rows > 0:
            return False
        if self.comm.size > 1:  # one rank keeps its gradients to the last bit
            np.divide(self._gradients, self._rows, out=self.flat.gradients)
        for leaf, present in zip(self.flat.leaves, self._present.tolist(), strict=True):
            leaf.grad = leaf.grad_buffer if present else None
        return True

    def _check_failed(self) -> None:
        """Raise if a rank has failed."""
        if self._failed.any():
            rank = int(np.flatnonzero(self._failed)[0])
            reason = self.comm.bcast(None, root=rank)
            raise RankError(f"DataParallel.step: expected all ranks to continue, rank {rank} has failed: {reason}")

    def _write(self, rows: float) -> None:
        """Write gradients, denominator and flags of this rank into one buffer."""
        self._sent[...] = 0
        self._rows[0] = rows
        if not rows:
            return
        if self.flat.owner.handed_out:
            self.flat.collect()
        # A sum of gradients times denominators, divided by their sum, is the gradient of the mean over all ranks.
        np.multiply(self.flat.gradients, rows, out=self._gradients)
        for k, (leaf, span) in enumerate(zip(self.flat.leaves, self.flat.spans, strict=True)):
            if leaf.grad is None:  # the buffer may hold the gradient of an earlier step
                self._gradients[span] = 0
            else:
                self._present[k] = 1

    def _reduce(self, patience: float = np.inf) -> bool:
        """Sum the buffers of all ranks; return False if the others did not join within ``patience`` seconds."""
        request = self.comm.Iallreduce(sys.modules["mpi4py.MPI"].IN_PLACE, self._sent)
        if patience == np.inf:
            request.Wait()
            return True
        until = time.monotonic() + patience
        while not request.Test():
            if time.monotonic() > until:
                return False
            time.sleep(0.01)
        return True

    # A rank that fails

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        """Send an exception to the other ranks, which are waiting for this rank's gradients."""
        if error is None or isinstance(error, RankError) or self.comm.size == 1:
            return
        import traceback  # only if a rank fails

        reason = "".join(traceback.format_exception_only(error)).strip()
        self._sent[...] = 0
        self._failed[self.comm.rank] = 1
        if not self._reduce(PATIENCE):
            print(f"DataParallel: rank {self.comm.rank} has failed, and so all are stopped: {reason}", file=sys.stderr)
            sys.stderr.flush()
            self.comm.Abort(1)
        self.comm.bcast(reason, root=int(np.flatnonzero(self._failed)[0]))

    # State

    def state_dict(self) -> dict[str, Any]:
        """Return the optimizer's state; it is the same on every rank."""
        return self.optimizer.state_dict()  # type: ignore[no-any-return]

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load the optimizer's state."""
        self.optimizer.load_state_dict(state)

    def __repr__(self) -> str:
        return f"DataParallel({self.optimizer!r}, rank {self.comm.rank} of {self.comm.size})"


def world() -> Any:
    """Return all ranks."""
    try:
        from mpi4py import MPI
    except ImportError as error:
        raise ArgumentError(
            "DataParallel", "mpi4py and an MPI library", str(error), 'pip install "microfw[mpi]"'
        ) from None
    return MPI.COMM_WORLD
