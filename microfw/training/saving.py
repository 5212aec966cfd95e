"""Save a training run in a file, and resume it bit for bit."""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from typing import Any

import numpy as np

from microfw.data.dataset import Dataset, epoch_range
from microfw.errors import ArgumentError, CheckpointError, MicrofwError
from microfw.nn import Module
from microfw.serialization import attributes, container, models, random, tree
from microfw.serialization.layout import fingerprint, plain
from microfw.serialization.output import path_text
from microfw.serialization.strict import FormatError, document, listed, short, table, whole
from microfw.training import modules
from microfw.training.history import History
from microfw.training.run import Run

Path = str | os.PathLike[str]

PREFIX = "training"
"""Prefix of the names of arrays that are not the model's."""

OTHERS = (f"{PREFIX}/", "random/", f"{models.CHANGED}/")
"""Prefixes of the names of arrays that are no parameters and buffers."""

# Names in files stay as they are: "tally" is the part that EpochTotals writes.
PARTS = ("batch_size", "data", "hooks", "history", "loss_function", "optimizer", "random", "state", "tally")

STATE = ("epoch", "steps", "loss", "stop", "epochs")

ODD = (TypeError, ValueError, LookupError, AttributeError, OverflowError)
"""Errors raised by invalid parts of a file."""


def save(path: Path, run: Run) -> None:
    """Save a run; see `Trainer.save`."""
    if reason := run.why_not_saved():
        raise CheckpointError(f"saving {path}", *reason)
    where = f"saving {path_text(path, 'Trainer.save', 'trainer.save(path)', CheckpointError)}"
    arrays: dict[str, Any] = dict(models.values(run.state.model))
    try:
        taken = next((name for name in arrays if name.startswith(f"{PREFIX}/")), None)
        if taken is not None:
            raise FormatError(f"no parameter's name to begin with {PREFIX}/", taken)
        found = attributes.parts(run.state.model)
        about = _describe(run, arrays, found)
        before = run.hooks.before_end
        now = attributes.apply(before.get("attributes", []))
        try:
            parts = capture(run)
        finally:
            attributes.apply(now)
        if before:
            parts |= {"before_end": before["model"], "loss_function": before.get("loss_function", {})}
        packed = tree.pack(parts, PREFIX, arrays)
    except FormatError as error:
        raise error.with_location(where) from None
    # at the first save, not after a night of training
    if isinstance(about, str):
        _warn(run, path, f"fit(..., resume=path) continues this run, but mf.load cannot read the model, since {about}")
    if lost := _lost(run, found):
        fix = "keep numbers, text and arrays there, or give the hook that changes it state_dict and load_state_dict"
        _warn(run, path, f"fit(..., resume=path) does not restore {lost}, which has changed since the fit began; {fix}")
    container.write(path, arrays, {"kind": "training", "model": about, "training": packed})


def _warn(run: Run, path: Path, text: str) -> None:
    """Warn once in a run."""
    if text not in run.warnings_given:
        run.warnings_given.add(text)
        warnings.warn(f"{path}: {text}", stacklevel=3)


def _lost(run: Run, parts: dict[str, Any]) -> str:
    """Return the name of an attribute that has changed since the fit began, and is not in the file; or ""."""
    loss, roots = attributes.parts(run.state.loss_function), (run.state.model, run.state.loss_function)
    for part, found, before in zip(roots, (parts, loss), run.attributes_at_start, strict=True):
        now = attributes.others(found)
        if now == before:
            continue
        for path in {**before, **now}:
            ours, theirs = now.get(path, {}), before.get(path, {})
            for name in {**theirs, **ours}:
                # what is plain now is in the file
                if ours.get(name) != theirs.get(name) and (name in ours or isinstance(theirs[name], type)):
                    return ".".join(filter(None, (type(part).__name__, path, name)))
    return ""


def _describe(run: Run, arrays: dict[str, Any], parts: dict[str, Any]) -> Any:
    """Return the model's architecture, for `mf.load`, or why it cannot be saved."""
    mine: dict[str, Any] = {}
    try:
        about = models.describe(run.state.model, mine, parts=parts)
        run.rebuilt = models.complete(about, parts, mine, run.rebuilt)  # builds the model again the first time
    except FormatError as error:
        return str(error.with_location(type(run.state.model).__name__))
    arrays |= mine
    return about


def capture(run: Run) -> dict[str, Any]:
    """Return the state of a run, without the model's parameters and buffers."""
    state, totals = run.state, run.totals
    held = {"model": state.model, "loss": state.loss_function}
    own = {name: attributes.plain(attributes.parts(part)) for name, part in held.items()}
    return {
        "state": {name: getattr(state, name) for name in STATE},
        "history": _text(list(state.history)),
        "optimizer": {"class": type(state.optimizer).__name__, "state": state.optimizer.state_dict()},
        "loss_function": models.values(state.loss_function) if isinstance(state.loss_function, Module) else {},
        "modules": {"model": modules.describe(state.model), "loss": modules.describe(state.loss_function)},
        "hooks": [{"class": type(hook).__name__, "state": hook.state_dict()} for hook in _stateful(run)],
        "random": random.states(_generators(run)),
        "tally": None if totals is None else {"order": run.order, **totals.state_dict()},
        "batch_size": _step_size(run),
        "options": run.options,
        "data": _digest(run, "train"),
        **_source(run),
        **({"attributes": own} if any(own.values()) else {}),
        **({} if run.evaluate is None else {"validation": _digest(run, "validation")}),
    }


class Saved:
    """A file to resume a run from; read and compared with the run before anything is changed.

    Raises
    ------
    CheckpointError
        If the file is damaged, or is of another model, optimizer, data or hooks.
    """

    def __init__(self, path: Path, run: Run) -> None:
        self.where = f"resuming from {path_text(path, 'Trainer.fit', 'fit(..., resume=path)', CheckpointError)}"
        with container.opened(path, "resuming from") as contents:
            if contents.meta.get("kind") != "training":
                raise FormatError("a checkpoint of training", "a model alone", "load it with mf.load")
            parts = tree.unpack(contents.meta.get("training"), contents.array)
            self.source = {"source": parts.pop("source")} if isinstance(parts, dict) and "source" in parts else {}
            before = parts.pop("before_end", None) if isinstance(parts, dict) else None
            self.modules, self.attributes, self.validation, self.options = (
                parts.pop(name, {}) if isinstance(parts, dict) else {}
                for name in ("modules", "attributes", "validation", "options")
            )  # not in older files
            self.parts = table(parts, *PARTS) | self.source
            names = [name for name in contents.places if not name.startswith(OTHERS)]
            self.values = {name: contents.array(name) for name in names}
            if before is not None:
                self.values |= table(before, *self.values)
            self.history = _rows(self.parts["history"])
            if isinstance(state := self.parts["state"], dict):  # not in files of older versions
                state.setdefault("epochs", state.get("epoch"))
            try:
                self._compare(run)
            except ODD as error:
                raise FormatError("a state that fits", " ".join(str(error).split())) from error
        self._check_epochs(run.state.epochs)

    def _check_epochs(self, epochs: int) -> None:
        begun, within = self.parts["state"]["epoch"], self.parts["tally"] is not None
        if epochs < begun:
            expected = f"epochs to be at least the {begun} that the saved run has {'begun' if within else 'done'}"
            fix = f"epochs counts these, too: for {epochs} more pass epochs={begun - within + epochs}"
            raise ArgumentError("Trainer.fit", expected, epochs, fix)

    def _compare(self, run: Run) -> None:
        parts, state = self.parts, run.state
        for hook in listed(parts["hooks"]):
            table(hook, "class", "state")
        own = models.values(state.model)
        mine: Any
        theirs: Any
        for name in [*own, *self.values]:
            mine, theirs = (f"{v[name].dtype} {v[name].shape}" if name in v else "none" for v in (own, self.values))
            if mine != theirs:
                raise FormatError(f"{name} of the model as it was saved, {theirs}", mine, "build the same model")
        for what, mine, theirs in (
            ("an optimizer", [type(state.optimizer).__name__], [table(parts["optimizer"], "class", "state")["class"]]),
            ("hooks", [type(h).__name__ for h in _stateful(run)], [h["class"] for h in parts["hooks"]]),
            ("steps of", _step_size(run), parts["batch_size"]),
            ("training data with the checksum", _digest(run, "train"), parts["data"]),
        ):
            if mine != theirs:
                raise FormatError(f"{what} {short(theirs)} as it was saved", short(mine), "fit with the same parts")
        for name, mine in run.options.items():
            if (theirs := table(self.options).get(name, mine)) != mine:
                fix = f"leave {name} out" if theirs is None else f"pass the same {name}"
                raise FormatError(f"the {name} of the saved run, {theirs or 'none'}", mine or "none", fix)
        if run.evaluate is None and any("val_loss" in row for row in self.history):
            raise FormatError("validation data, which the saved run had", "none", "pass validation")
        if run.evaluate is not None and self.validation not in ({}, mine := _digest(run, "validation")):
            expected = f"validation data with the checksum {short(self.validation)} as it was saved"
            raise FormatError(expected, short(mine), "fit with the same parts")
        self._changes(run)
        within = parts["tally"] is not None
        if (within and not run.train.resumes_anywhere) or self.source.keys() != _source(run).keys():
            fix = "give the source state_dict and load_state_dict, or resume a file from the end of an epoch"
            raise FormatError("a file that this source of batches can continue", "one of another source", fix)
        if parts["tally"] is not None:
            _compare_totals(table(parts["tally"], "order", "sums", "seconds", "outputs", "targets"), run)
        kinds = {name: type(getattr(state, name)) for name in STATE}
        if any(type(value) is not kinds[name] for name, value in table(parts["state"], *STATE).items()):
            raise FormatError("the state of a training run", short(parts["state"]))
        epoch, asked = parts["state"]["epoch"], parts["state"]["epochs"]
        if parts["state"]["stop"] and state.epochs <= max(epoch, asked):
            got = f"one that a hook ended after epoch {epoch} with state.stop, and epochs={state.epochs}"
            raise FormatError("a run that was not stopped", got, f"pass epochs above {max(epoch, asked)} to continue")

    def _changes(self, run: Run) -> list[attributes.Change]:
        """Return what makes settings and modes of model and loss those of the file; raise if these are others."""
        if not self.modules:
            return []
        texts, state = table(self.modules, "model", "loss"), run.state
        values = table(self.attributes or {"model": None, "loss": None}, "model", "loss")
        model = modules.changes(state.model, texts["model"], "model", values["model"])
        return model + modules.changes(state.loss_function, texts["loss"], "loss", values["loss"])

    def start(self, run: Run) -> None:
        """Restore the run, and start its hooks. History and counters come first, for ``on_fit_start``."""
        state = run.state
        state.history[:] = self.history
        for name in STATE[:3]:  # not stop and epochs, which are those of the new call
            setattr(state, name, self.parts["state"][name])
        run.hooks.start(state)
        self._restore(run)
        earlier = 0 if run.totals is None else run.totals.skipped
        state.skipped = earlier + sum(row.get("skipped", 0) for row in state.history)

    def _restore(self, run: Run) -> None:
        """Restore everything else. Raise, with nothing changed, if anything does not fit."""
        # Parts of a damaged file may fail after others were loaded, so everything is kept to be put back.
        before = capture(run), {name: array.copy() for name, array in models.values(run.state.model).items()}
        earlier: list[attributes.Change] = []
        try:
            earlier = attributes.apply(self._changes(run))
            _put(run, self.parts, self.values)
        except (FormatError, MicrofwError, *ODD) as error:
            attributes.apply(earlier)
            _put(run, *before)
            if isinstance(error, FormatError):
                raise error.with_location(self.where) from None
            raise CheckpointError(self.where, "a state that fits", " ".join(str(error).split())) from error


def _compare_totals(totals: dict[str, Any], run: Run) -> None:
    """Raise unless the saved sums of an epoch are of the rows of its steps."""
    own = run.Totals(run.stepper, run.metrics).state_dict()["sums"]
    sums = totals["sums"] = {
        "count": float(table(totals["sums"])["rows"]),
        "skipped": 0,
        **totals["sums"],
    }  # older files
    if {name: type(value) for name, value in sums.items()} != {name: type(value) for name, value in own.items()}:
        raise FormatError(f"the sums {', '.join(own)}", short(sums))
    rows, steps = whole(sums["rows"]), whole(sums["steps"])
    if run.train.counted:
        rows = epoch_range(len(run.train), run.step_rows, run.stepper.min_rows, run.drop_last, steps)[0]
    kept = [rows] * 2 if run.metrics and rows else [None] * 2
    lengths = [_length(totals[name]) for name in ("outputs", "targets")]
    if lengths in ([rows] * 2, [None] * 2) and lengths != kept:
        texts = ("no metrics", ", ".join(run.metrics)) if run.metrics else ("metrics", "none")
        fix = "pass the same metrics, or resume a file from the end of an epoch"
        raise FormatError(f"{texts[0]} within an epoch, as it was saved", texts[1], fix)
    if sums["rows"] != rows or lengths != kept or not isinstance(totals["seconds"], float):
        raise FormatError(f"the sums of {rows} rows", short(sums["rows"]))


def _length(part: Any) -> int | None:
    """Return the rows of saved outputs or targets: an array, or the arrays of nested ones."""
    part = part[0] if isinstance(part, list) else part
    return None if part is None else len(part)


def _source(run: Run) -> dict[str, Any]:
    """Return the state of a source of batches that has one."""
    return {"source": run.train.state_dict()} if run.train.stateful else {}


def _step_size(run: Run) -> int | str:
    """Return the rows of a step as saved in files: a run can only be resumed with the same."""
    return f"{run.step_rows}, drop_last" if run.drop_last else run.step_rows


def _digest(run: Run, name: str) -> str:
    """Return the checksum of the training or the validation data; computed once."""
    if name not in run.checksums:
        data: Any = run.train if name == "train" else getattr(run.evaluate, "data", None)
        arrays = [data.X, data.y] if isinstance(data, Dataset) else data.fingerprints()
        texts = [fingerprint(plain(array)) for array in arrays]
        run.checksums[name] = hashlib.sha256("".join(texts).encode()).hexdigest()
    return run.checksums[name]


def _put(run: Run, parts: dict[str, Any], values: dict[str, Any]) -> None:
    state = run.state
    state.model.load_state_dict(values)
    if isinstance(state.loss_function, Module):
        state.loss_function.load_state_dict(table(parts["loss_function"]))
    state.optimizer.load_state_dict(parts["optimizer"]["state"])
    for hook, saved in zip(_stateful(run), parts["hooks"], strict=True):
        hook.load_state_dict(saved["state"])
    if "source" in parts:
        run.train.load_state_dict(parts["source"])
    totals = parts["tally"]
    if totals is not None:  # in an epoch: draw its order again, before the generators are restored
        run.resume_epoch(dict(table(totals)))
    random.restore(parts["random"], _generators(run))


def _stateful(run: Run) -> list[Any]:
    return [h for h in run.hooks.hooks if hasattr(h, "state_dict") and hasattr(h, "load_state_dict")]


def _generators(run: Run) -> dict[str, np.random.Generator]:
    state = run.state
    found = {f"model.{name}": g for name, g in random.generators(state.model).items()}
    found |= {f"loss_function.{name}": g for name, g in random.generators(state.loss_function).items()}
    return found | {"fit.rng": run.rng}


def _text(rows: list[dict[str, Any]]) -> str:
    """Return a history as one JSON text."""
    arrays: dict[str, Any] = {}
    rows = [{name: x.item() if isinstance(x, np.generic) else x for name, x in row.items()} for row in rows]
    text = json.dumps(tree.pack(rows, "history", arrays), separators=(",", ":"))
    if arrays:
        raise FormatError("plain numbers in the history", next(iter(arrays)))
    return text


def _rows(text: Any) -> History:
    def no_array(name: str) -> Any:
        raise FormatError("plain numbers in the history", short(name))

    rows = tree.unpack(document(text), no_array)
    return History([table(row) for row in listed(rows)])
