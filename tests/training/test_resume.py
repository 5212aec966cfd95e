"""Training continues as if it had never stopped: after SIGKILL, Ctrl-C at any line, and errors of hooks."""

from __future__ import annotations

import copy
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import microfw as mf
from microfw import nn, optim
from microfw.errors import ArgumentError, CheckpointError
from microfw.training import Checkpoint, Hook
from tests.helpers import resume_run
from tests.helpers.resume_run import EPOCHS, STEPS, Do, data, left, run
from tests.helpers.thinning import thinned
from tests.helpers.training import At, make, values


def killing(tmp_path, every, kind):
    code = [sys.executable, resume_run.__file__, str(tmp_path), str(every), kind]
    done = subprocess.run(code, capture_output=True, text=True, timeout=300)
    expected = [f"{k} 9 True [] ['order.txt', 'run.npz']" for k in range(1, EPOCHS * STEPS + 1)]
    if every > 1:
        for k in range(1, min(every, EPOCHS * STEPS + 1)):  # killed before the first checkpoint: from the beginning
            assert done.stdout.splitlines()[k - 1].startswith(f"{k} 9 True []")
        expected[: every - 1] = done.stdout.splitlines()[: every - 1]
    assert done.stdout.splitlines() == expected, done.stdout + done.stderr


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs POSIX")
@pytest.mark.parametrize(("every", "kind"), thinned([(3, "shared"), (1, "apart"), (1, "library")], 3))
def test_a_run_killed_after_any_batch_resumes_bit_for_bit(tmp_path, every, kind):
    killing(tmp_path, every, kind)


@pytest.mark.slow
@pytest.mark.parametrize(("every", "kind"), [(1, "shared"), (3, "apart"), (100, "shared"), (4, "library")])
def test_a_run_killed_after_any_batch_resumes_in_more_configurations(tmp_path, every, kind):
    killing(tmp_path, every, kind)


def test_early_stopping_stops_where_it_would_have(tmp_path):
    whole, _ = run(tmp_path, epochs=30, stopping=2)
    stopped = len(whole["history"])
    assert 3 < stopped < 30
    path = tmp_path / "run.safetensors"
    run(tmp_path, Checkpoint(path), epochs=stopped - 1, stopping=2)
    again, trainer = run(tmp_path, epochs=30, stopping=2, resume=path)
    assert again == whole
    trainer.save(path)
    with pytest.raises(CheckpointError, match=f"a hook ended after epoch {stopped} with state.stop.*epochs above 30"):
        run(tmp_path, epochs=30, stopping=2, resume=path)
    longer, _ = run(tmp_path, epochs=31, stopping=2, resume=path)
    assert longer["history"][:stopped] == whole["history"] and len(longer["history"]) > stopped


@pytest.mark.parametrize("compiled", [None, True])
def test_a_copy_of_a_trainer_from_within_a_fit_saves_the_run(tmp_path, compiled, iris):
    copies = []
    data = {"batch_size": 16, "rng": 0, "progress": False}
    whole = make(hooks=[At(6, lambda state: copies.append(copy.deepcopy(whole)))], compile=compiled)
    whole.fit(iris[0], 2, **data)
    copies[0].save(tmp_path / "run.npz")
    again = make(hooks=[At()], compile=compiled)
    again.fit(iris[0], 2, resume=tmp_path / "run.npz", **data)
    assert values(again) == values(whole)


def test_more_epochs_than_were_planned(tmp_path):
    whole, _ = run(tmp_path, epochs=4, stopping=9)
    path = tmp_path / "run.npz"
    run(tmp_path, Checkpoint(path), epochs=2, stopping=9)
    assert run(tmp_path, epochs=4, stopping=9, resume=path)[0] == whole


class Interrupted(Hook):
    """Traces the third step, and raises Ctrl-C at one of its lines."""

    def __init__(self, line):
        self.line, self.lines, self.where = line, 0, ""

    def on_step_end(self, state):
        if state.steps == 2:
            sys.settrace(self.trace)
            frame = sys._getframe().f_back
            while "microfw" in frame.f_code.co_filename:  # those that are running already: the epoch and fit
                frame.f_trace = self.trace
                frame = frame.f_back

    def trace(self, frame, event, argument):
        if "microfw" not in frame.f_code.co_filename or frame.f_code.co_name == "_handle":
            return None
        if event == "line":
            self.lines += 1
            if self.lines == self.line:
                sys.settrace(None)
                self.where = f"{frame.f_code.co_filename}:{frame.f_lineno}"
                signal.raise_signal(signal.SIGINT)
        return self.trace


class End(Hook):
    """Ends the trace with the step."""

    last = True

    def on_step_end(self, state):
        if state.steps == 3:
            sys.settrace(None)


def interrupted(tmp_path, line, whole, states):
    hook = Interrupted(line)
    (tmp_path / "order.txt").write_text("")
    rng = np.random.default_rng(0)
    trainer = small(rng, hook, Counted(), End())
    train, _ = data()
    try:
        trainer.fit(train, 2, 6, rng=rng, progress=False)
        assert hook.lines < line, hook.where
        return False
    except KeyboardInterrupt:
        assert hook.lines == line
    finally:
        sys.settrace(None)
    steps = trainer._run.state.steps
    assert steps in (2, 3), hook.where
    assert weights(trainer.model) == states[steps], hook.where  # wholly before, or wholly after
    path = tmp_path / "run.npz"
    trainer.save(path)
    rng = np.random.default_rng(9)
    again = small(rng, Interrupted(-1), Counted(), End())
    history = again.fit(train, 2, 6, rng=rng, progress=False, resume=path)
    assert all_of(again, history) == whole, hook.where
    return True


class Counted(resume_run.Schedule):
    pass


def small(rng, *hooks):
    model = nn.Sequential(nn.Dense(4, 3, rng=0), nn.BatchNorm1D(3), nn.Dropout(0.2, rng=rng), nn.Dense(3, 3, rng=1))
    optimizer = optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    return mf.Trainer(model, nn.CrossEntropyLoss(), optimizer, metrics=["accuracy"], hooks=hooks)


def weights(model):
    return [(k, v.tobytes()) for k, v in model.state_dict().items()]


def all_of(trainer, history):
    state = trainer.optimizer.state_dict()
    return (
        weights(trainer.model),
        {k: v.tobytes() if isinstance(v, np.ndarray) else v for k, v in state.items()},
        trainer.hooks[1].told,
        trainer.model[2].rng.bit_generator.state,
        [{k: v for k, v in row.items() if k != "seconds"} for row in history],
    )


def interrupting(tmp_path, stride, first=1):
    train, _ = data()
    states = {}

    class Keep(Hook):
        def on_step_end(self, state):
            states[state.steps] = weights(state.model)

    rng = np.random.default_rng(0)
    trainer = small(rng, Keep(), Counted(), End())
    whole = all_of(trainer, trainer.fit(train, 2, 6, rng=rng, progress=False))
    line = first
    while interrupted(tmp_path, line, whole, states):
        line += stride
    return line


def test_ctrl_c_at_lines_of_a_step_leaves_it_whole(tmp_path):
    assert interrupting(tmp_path, 17, 5) > 200


@pytest.mark.slow
def test_ctrl_c_at_every_line_of_a_step_leaves_it_whole(tmp_path):
    assert interrupting(tmp_path, 1) > 200


def test_a_checkpoint_is_written_when_ctrl_c_ends_training(tmp_path):
    whole, _ = run(tmp_path)
    path = tmp_path / "run.npz"

    def interrupt():
        signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, Checkpoint(path), Do(8, interrupt))
    again, trainer = run(tmp_path, resume=path)
    assert again == whole
    # An epoch that was cut in two is whole in the profile: its rules are those of all its steps.
    assert [e.steps for e in trainer.profiler.session.epochs] == [STEPS] * EPOCHS


def test_an_error_in_training_leaves_the_checkpoint_as_it_was(tmp_path):
    path = tmp_path / "run.npz"

    def fail():
        raise ZeroDivisionError

    run(tmp_path, Checkpoint(path), epochs=1)
    before = path.read_bytes()
    with pytest.raises(ZeroDivisionError):
        run(tmp_path, Checkpoint(path), Do(8, fail), resume=path)
    assert path.read_bytes() == before


def test_a_run_that_a_hook_broke_is_not_saved(tmp_path):
    class Breaks(Hook):
        def on_step_end(self, state):
            raise ZeroDivisionError

    trainer = small(np.random.default_rng(0), Breaks())
    with pytest.raises(CheckpointError, match="Trainer.save: expected a run of fit, got none"):
        trainer.save(tmp_path / "a.npz")
    with pytest.raises(ZeroDivisionError):
        trainer.fit(data()[0], 1, progress=False)
    with pytest.raises(CheckpointError, match="expected a run at the end of a step"):
        trainer.save(tmp_path / "a.npz")
    assert not list(tmp_path.iterdir())


def test_a_second_ctrl_c_is_not_held_back():
    class Slow(Hook):
        def on_step_end(self, state):
            signal.raise_signal(signal.SIGINT)
            reached.append(1)
            signal.raise_signal(signal.SIGINT)
            reached.append(2)

    reached = []
    with pytest.raises(KeyboardInterrupt):
        small(np.random.default_rng(0), Slow()).fit(data()[0], 1, progress=False)
    assert reached == [1]


@pytest.mark.parametrize(("change", "match"), [
    ({"model": nn.Dense(4, 3)}, "of the model as it was saved"),
    ({"batch_size": 7}, "steps of 6 as it was saved, got 7"),
    ({"optimizer": "Other"}, "an optimizer .'SGD'. as it was saved, got .'Other'."),
    ({"hooks": []}, "hooks .'Counted'. as it was saved, got .."),
    ({"data": 1}, "training data with the checksum"),
    ({"rng": None}, "random generators"),
])  # fmt: skip
def test_another_run_is_refused_and_nothing_is_changed(tmp_path, change, match):
    rng = np.random.default_rng(0)
    path = tmp_path / "run.npz"
    small(rng, Counted(), Checkpoint(path)).fit(data()[0], 1, 6, rng=rng, progress=False)
    rng = np.random.default_rng(0)
    trainer = small(rng, *change.get("hooks", [Counted()]))
    if "model" in change:
        model = change["model"]
        trainer = mf.Trainer(model, nn.CrossEntropyLoss(), optim.SGD(model.parameters(), lr=0.1), hooks=[Counted()])
    if "optimizer" in change:
        trainer.optimizer.__class__ = type(change["optimizer"], (optim.SGD,), {})
    X, y = data()[0]
    before = weights(trainer.model), repr(trainer.optimizer.state_dict())
    rng = change.get("rng", rng)
    with pytest.raises(CheckpointError, match=match):
        trainer.fit(
            (X + change.get("data", 0), y), 3, change.get("batch_size", 6), rng=rng, progress=False, resume=path
        )
    assert (weights(trainer.model), repr(trainer.optimizer.state_dict())) == before


def test_a_model_file_is_no_checkpoint_and_a_checkpoint_is_a_model_file(tmp_path):
    rng = np.random.default_rng(0)
    trainer = small(rng, Checkpoint(tmp_path / "run.npz"))
    trainer.fit(data()[0], 1, 6, rng=rng, progress=False)
    mf.save(tmp_path / "model.npz", trainer.model)
    with pytest.raises(
        CheckpointError, match="expected a checkpoint of training, got a model alone; load it with mf.load"
    ):
        trainer.fit(data()[0], 1, 6, progress=False, resume=tmp_path / "model.npz")
    assert weights(mf.load(tmp_path / "run.npz")) == weights(trainer.model)
    with pytest.raises(CheckpointError, match="expected a file that can be read, got FileNotFoundError"):
        trainer.fit(data()[0], 1, 6, progress=False, resume=tmp_path / "none.npz")


def test_a_checkpoint_of_a_model_that_cannot_be_described_says_so_at_once(tmp_path):
    class Own(nn.Module):
        def __init__(self, secret):
            self.layer = nn.Dense(4, 3, rng=0)

        def forward(self, x):
            return self.layer(x)

    def trainer(*hooks):
        model = Own(1)
        return mf.Trainer(model, nn.CrossEntropyLoss(), optim.SGD(model.parameters(), lr=0.1), hooks=hooks)

    path = tmp_path / "run.npz"
    with pytest.warns(UserWarning, match="mf.load cannot read the model, since Own: expected Own to have") as warned:
        trainer(Checkpoint(path)).fit(data()[0], 2, progress=False)
    assert len(warned) == 1
    with pytest.raises(CheckpointError, match="Own to have an attribute for its parameter 'secret'"):
        mf.load(path)
    assert len(trainer().fit(data()[0], 3, progress=False, resume=path)) == 3


def test_checkpoint_checks_its_settings(tmp_path):
    for every in (0, 1.5, True):
        with pytest.raises(ArgumentError, match="Checkpoint: expected every to be a positive integer"):
            Checkpoint(tmp_path / "a.npz", every)
    with pytest.raises(CheckpointError, match="ends with .safetensors or .npz"):
        Checkpoint(tmp_path / "a.pkl")


def test_hooks_that_are_last_are_told_last_and_first_of_the_end():
    told = []

    class Tells(Hook):
        def __init__(self, name, last):
            self.name, self.last = name, last

        def on_epoch_end(self, state):
            told.append(self.name)

        def on_fit_end(self, state):
            told.append(self.name.upper())

    hooks = [Tells("a", True), Tells("b", False), Tells("c", True), Tells("d", False)]
    small(np.random.default_rng(0), *hooks).fit(data()[0], 1, progress=False)
    assert "".join(told) == "bdacACBD"


def test_the_left_overs_of_a_run_are_compared_whole(tmp_path):
    """The comparison sees a difference of one bit."""
    whole, trainer = run(tmp_path)
    trainer.model[0].bias.data = np.nextafter(trainer.model[0].bias.data, 9, dtype=np.float32)
    assert left(trainer, trainer._run.state.history) != whole
    assert Path(tmp_path, "order.txt").read_text().count("\n") == EPOCHS * STEPS


@pytest.mark.parametrize("metrics", [(), ("accuracy",)])
def test_from_the_middle_of_an_epoch_with_and_without_metrics(tmp_path, metrics):
    X, y = np.random.default_rng(0).random((40, 4), np.float32), np.arange(40) % 3
    path = tmp_path / "run.npz"

    class Save(Hook):
        last = True

        def on_step_end(self, state):
            if (state.epoch, state.step) == (1, 2):
                state.save(path)

    def fit(**options):
        model = nn.Dense(4, 3, rng=0)
        hooks, optimizer = [Save()], optim.SGD(model.parameters(), lr=0.1)
        trainer = mf.Trainer(model, nn.CrossEntropyLoss(), optimizer, hooks=hooks, metrics=metrics)
        rows = trainer.fit((X, y), 3, batch_size=8, rng=0, progress=False, **options)
        return [{k: v for k, v in row.items() if k != "seconds"} for row in rows]

    whole = fit()
    assert fit(resume=path) == whole
