"""The phases of training: every nanosecond of a profiled epoch is in one of them."""

from __future__ import annotations

FORWARD, BACKWARD, UPDATE, EVALUATION, OTHER, DATA, CHECK, PREPARATION, SET_UP, UNOBSERVED, IDLE = range(11)
"""Numbers of the phases, as a `StepTimer` notes them.

FORWARD: from the first op or module of a step to its backward pass. EVALUATION: forwards under `no_grad`. OTHER:
between passes, updates and evaluations, and in hooks. CHECK: replays are compared with eager steps. PREPARATION: a
step is captured. SET_UP: a profiler computes the costs of new ops and graphs. UNOBSERVED: a step that is not observed.
IDLE: no step has begun; DATA if a step comes next, else OTHER.
"""

NAMES = ("forward", "backward", "update", "evaluation", "other", "data", "check", "preparation", "set-up", "unobserved")
"""Names by number. An IDLE phase that a step follows is data, any other one is in "other"."""

BEFORE_FORWARD = frozenset((IDLE, OTHER, PREPARATION))
"""Phases that end at an op or a module of a step: its forward pass begins."""

BEFORE_EVALUATION = frozenset((IDLE, OTHER, FORWARD, UNOBSERVED))
"""Phases that a module called under `no_grad` interrupts. In all others its time is part of the phase."""
