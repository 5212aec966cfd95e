"""The state of an optimizer in dicts, files and pickles; the base of `Optimizer`."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from microfw.autograd._tensor_base import writable
from microfw.errors import ArgumentError
from microfw.optim.checks import as_state, require_entries
from microfw.optim.flat import Flat
from microfw.optim.hyperparameter import Group, Settings, load_groups

DERIVED = {"_added", "_group_constants", "_group_of", "_missing", "_scratch", "_selections", "_square"}
DERIVED |= {"_all_settings", "_numbers", "same_count", "update_parts"}
"""Attributes that an update makes again if they are missing."""


class SavedState:
    """Saves and loads what an optimizer needs to continue."""

    STATE: ClassVar[tuple[str, ...]]
    NEEDS_STEP: ClassVar[bool]
    settings: Settings
    groups: list[Group]
    flat: Flat

    def _check(self, settings: dict[str, Any]) -> None:
        """Raise unless a group's hyperparameters are valid."""
        raise NotImplementedError

    def _state_names(self) -> tuple[str, ...]:
        return (*self.STATE, "counts") if self.NEEDS_STEP else self.STATE

    def state_dict(self) -> dict[str, Any]:
        """Return the optimizer's kind, hyperparameters, names and shapes of the parameters, and copies of the state."""
        groups = {"groups": [dict(group.own) for group in self.groups], "group_sizes": [g.count for g in self.groups]}
        arrays = {name: getattr(self, name).copy() for name in self._state_names()}
        kind = {"optimizer": type(self).__name__, **self.settings}
        return {**kind, **groups, "parameters": self.flat.named_shapes(), **arrays}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load what `state_dict` returned. Raise, with nothing changed, if an entry is missing or does not fit.

        Raises
        ------
        ArgumentError
            If it is of another kind of optimizer, of other parameters, or lacks an entry. Older states have no kind.
        """
        kind, where = type(self).__name__, f"{type(self).__name__}.load_state_dict"
        self.flat.check_same_parameters(state, where)
        if state.get("optimizer", kind) != kind:
            raise ArgumentError(where, f"the state of {kind}", f"that of {state['optimizer']}")
        require_entries(state, (*self.settings, *self._state_names()), where)
        settings, groups = load_groups(state, self.settings, self.groups, where)
        for group in groups:
            self._check(group.all())
        pairs = []
        for name in self._state_names():
            mine = getattr(self, name)
            array = as_state(state[name], mine.dtype, where, name)
            if array.shape != mine.shape:
                raise ArgumentError(where, f"{name} of shape {mine.shape}", array.shape)
            pairs.append((mine, array))
        self.settings, self.groups = settings, groups
        for mine, array in pairs:
            mine[...] = array

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name not in DERIVED}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update({k: writable(v) if isinstance(v, np.ndarray) else v for k, v in state.items()})
        self.settings.changed = True
