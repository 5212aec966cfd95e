"""A random training program: what it builds, and what is done before and in each step."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Step:
    """One step: statements that run before it, its batch, and what is wrong with it."""

    rows: int
    data: int
    changes: list[str] = field(default_factory=list)
    kinds: list[str] = field(default_factory=list)
    fault: str = ""
    context: str = ""

    def __str__(self) -> str:
        parts = [f"rows={self.rows}", *self.changes]
        parts += [f"fault: {self.fault}"] if self.fault else []
        return "; ".join([*parts, *([f"with {self.context}"] if self.context else [])])


@dataclass
class Program:
    """A program.

    Attributes
    ----------
    setup : str
        Python text that makes ``model``, ``criterion``, ``optimizer`` and the step's function ``f``.
    steps : list of Step
        What is done.
    shape : tuple of int
        A row of the input; tokens if ``vocabulary`` is above 0.
    target : str
        What targets are, see `batches.target`.
    free : bool
        Whether no shape, branch or constant depends on data, on a generator or on a count of steps.
    trainer : dict
        Options of a Trainer that can run it too; None if none can.
    steps_alone : bool
        Whether it can run outside of a Trainer.
    """

    seed: int
    setup: str
    steps: list[Step]
    shape: tuple[int, ...]
    vocabulary: int
    outputs: int
    target: str
    dtype: str
    free: bool
    trainer: dict | None
    steps_alone: bool = True

    def __str__(self) -> str:
        rows = [f"{k:3}: {step}" for k, step in enumerate(self.steps) if step.changes or step.fault or step.context]
        what = f"rows of shape {self.shape}" + (f", tokens below {self.vocabulary}" if self.vocabulary else "")
        title = f"# program {self.seed}: {what}, targets: {self.target}, {len(self.steps)} steps"
        if self.trainer is not None:
            title += f", Trainer with {self.trainer}"
        rest = "".join(f"\n  {row}" for row in rows)
        return f"{title}\n{self.setup}# before steps\n# rows: {[s.rows for s in self.steps]}{rest}"
