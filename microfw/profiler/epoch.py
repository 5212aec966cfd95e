"""Epoch of a profile: counts and times of one epoch, and sums of epochs."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, fields

from microfw.profiler.node_count import NodeCount
from microfw.profiler.ratio import Ratio, ratio_of
from microfw.profiler.row import Row

WITHOUT_UPDATES = "No optimizer has made an update: each backward pass counts as a step."
UNFINISHED = "Counts of a step include backward passes after the last update of an epoch."
NOT_RECORDED = "Ops that ran before the profiler was attached are not counted: attach it before the forward pass."
LOSS_OF_PASSES = "The loss is the mean over backward passes, which are more than the steps."
INTERRUPTED = "The last epoch of a fit is unfinished: it was interrupted, or failed. It has the steps before that."
WITHOUT_BACKWARD = "No step ran backward(): gradients of mf.grad are not counted, and their time is in forward."
VARYING = "P, reuse and FLOP/P are left out for layers that were frozen in a part of the profile."
"""Notes of an epoch."""

MAXIMA = ("parameters", "parameter_tensors", "saved_peak_bytes")
"""Fields of an epoch that are the maximum over its steps, not the sum."""


@dataclass(repr=False)
class Epoch:
    """One epoch.

    Attributes
    ----------
    epoch : int
        Number of the epoch.
    steps, observed : int
        Steps taken, and how many of them were observed. Without any update of an optimizer: backward passes.
    loss : float or None
        With a Trainer, its loss: a mean over rows. In your own loop, the mean over backward passes, if finite.
    metrics : dict
        Metrics of the Trainer.
    rows : list of Row
        One row for each op of each layer, in order of first use.
    parameters, parameter_tensors : int
        P: trainable scalars that the backward passes of a step reach together, and the arrays that contain them.
    saved_peak_bytes : int
        Maximum bytes that ops had saved when a backward pass began, without recomputed ops of checkpoints.
    data_ns : int
        Time before a step: since the last step, the last evaluation, or the start of the epoch.
    forward_ns : int
        Time from the first op or module of a step to its backward pass.
    backward_ns : int
        Time in ``backward``.
    update_ns : int
        Time in ``optimizer.step()``.
    evaluation_ns : int
        Time of forward passes under ``no_grad``; in unobserved steps those of modules.
    other_ns : int
        Time in no other phase: work between ``backward`` and ``step``, loads between accumulated batches, hooks.
    preparation_ns : int
        Part of ``other_ns`` in which replays were prepared.
    set_up_ns : int
        Part of ``other_ns`` in which the profiler computed the costs of new ops and graphs.
    check_ns : int
        Time in which replays were compared with eager steps; in no other phase.
    total_ns : int
        Time of the whole epoch: the sum of all phases and of the unobserved steps.
    replayed : int
        Replayed steps, see `mf.compile`.
    notes : list of str
        Sentences on what counts as a step, and on what is not counted.
    """

    epoch: int
    steps: int = 0
    observed: int = 0
    loss: float | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    parameters: int = 0
    parameter_tensors: int = 0
    forward_ns: int = 0
    backward_ns: int = 0
    update_ns: int = 0
    data_ns: int = 0
    evaluation_ns: int = 0
    total_ns: int = 0
    rows: list[Row] = field(default_factory=list)
    saved_peak_bytes: int = 0
    replayed: int = 0
    check_ns: int = 0
    other_ns: int = 0
    preparation_ns: int = 0
    set_up_ns: int = 0
    notes: list[str] = field(default_factory=list)

    def __repr__(self) -> str:
        loss = "" if self.loss is None else f", loss {self.loss:.4g}"
        backward, total = (f"{ns / 1e6:.3g}" for ns in (self.backward_ns, self.total_ns))
        if self.observed < self.steps:
            steps, times = f"{self.observed:,} of {self.steps:,} steps observed", f"total {total} ms"
            times = f"backward {backward} ms in these, {times}" if self.observed else times
        else:
            steps, times = f"{self.steps:,} steps", f"backward {backward} of {total} ms"
        return f"Epoch({self.epoch}, {steps}{loss}, {times})"

    def _repr_html_(self) -> str:
        from microfw.profiler.reports.notebook import notebook
        from microfw.profiler.session import Session

        return notebook(Session(epochs=[self], every=1 if self.observed == self.steps else 2))  # not 1: sampled

    def layers(self) -> list[Row]:
        """Return one row for each layer, summed over ops, in order of first use."""
        return self._summed(lambda row: Row(row.layer))

    def ops(self) -> list[Row]:
        """Return one row for each op, summed over layers, in order of first use."""
        return self._summed(lambda row: Row("", row.op))

    def _summed(self, start: Callable[[Row], Row]) -> list[Row]:
        """Return sums of rows: those for which ``start`` returns the same layer and op are added to that row."""
        found: dict[tuple[str, str], Row] = {}
        for row in self.rows:
            total = start(row)
            found.setdefault((total.layer, total.op), total).add(row)
        return list(found.values())

    def sum(self) -> Row:
        """Return one row, summed over layers and ops."""
        total = Row("total")
        for row in self.rows:
            total.add(row)
        return total

    def counts(self) -> list[NodeCount]:
        """Return N, P and steps of one backward pass, in tensors and in scalars: the mean over the observed steps.

        The counts in scalars are left out if an op has none, see `Row.scalar_uncounted`, or if an older version has
        saved the profile.
        """
        total, n = self.sum(), self.observed or 1
        nodes, rules, added, edges = (round(v / n) for v in (total.nodes, total.rules, total.accumulated, total.edges))
        found = [NodeCount("tensors", nodes, self.parameter_tensors, rules, added, edges)]
        if total.scalar_rules and not total.scalar_uncounted:
            scalars = (total.scalar_nodes, total.scalar_rules, total.scalar_accumulated)
            N, rules, added = (round(v / n) for v in scalars)
            operations = round((total.flops_forward + total.flops_backward) / n)
            found.append(NodeCount("scalars", N, self.parameters, rules, added, operations=operations))
        return found

    def taken(self, phase: str, sampled: bool) -> float:
        """Return nanoseconds of a phase: of the epoch, or if the profile is sampled, of one observed step."""
        ns: int = getattr(self, f"{phase}_ns")
        return ns / (self.observed or 1) if sampled else ns

    def ratio(self) -> Ratio:
        """Return backward against forward."""
        return ratio_of(self.rows, self.forward_ns, self.backward_ns)

    @property
    def unobserved_ns(self) -> int:
        """Time of unobserved steps: the part of ``total_ns`` in no phase."""
        step = self.data_ns + self.forward_ns + self.backward_ns + self.update_ns
        return self.total_ns - step - self.evaluation_ns - self.other_ns - self.check_ns

    @property
    def untagged_forward_ns(self) -> int:
        """Forward time outside of ops."""
        return self.forward_ns - sum(row.forward_ns for row in self.rows)

    @property
    def untagged_backward_ns(self) -> int:
        """Backward time outside of derivative rules: the engine itself."""
        return self.backward_ns - sum(row.backward_ns for row in self.rows)


def merged(epochs: Iterable[Epoch]) -> Epoch:
    """Return the sum of epochs."""
    total = Epoch(0)
    rows: dict[tuple[str, str], Row] = {}
    for epoch in epochs:
        for f in fields(Epoch):
            if f.type == "int" and f.name != "epoch":
                add = max if f.name in MAXIMA else int.__add__
                setattr(total, f.name, add(getattr(total, f.name), getattr(epoch, f.name)))
        total.loss = epoch.loss
        total.notes += [note for note in epoch.notes if note not in total.notes]
        for row in epoch.rows:
            rows.setdefault((row.layer, row.op), Row(row.layer, row.op)).add(row)
    total.rows = list(rows.values())
    return total


def joined_epochs(first: Epoch, rest: Epoch) -> Epoch:
    """Return the sum of two parts of an epoch. Its loss is that of the Trainer, or a mean weighted by steps."""
    whole = merged([first, rest])
    whole.epoch, whole.metrics = rest.epoch, rest.metrics
    if "loss" not in rest.metrics:
        parts = [(e.loss, e.steps) for e in (first, rest) if e.steps]
        losses = [loss * steps for loss, steps in parts if loss is not None]
        whole.loss = sum(losses) / whole.steps if losses and len(losses) == len(parts) else None
    return whole
