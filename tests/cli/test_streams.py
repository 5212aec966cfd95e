"""Pipes, encodings, full disks, damaged profiles and Ctrl-C: no traceback, no lost file, the documented exit code."""

from __future__ import annotations

import contextlib
import functools
import io
import json
import os
import signal
import subprocess
import sys

import pytest

import microfw as mf
from microfw import nn, optim
from microfw.cli import main as cli
from microfw.errors import CheckpointError, FileError
from microfw.profiler import Session
from microfw.profiler.reports.formats import FORMATS
from microfw.training import Checkpoint
from tests.helpers.paths import ROOT

pytestmark = pytest.mark.skipif(os.name != "posix", reason="needs POSIX")
resource = pytest.importorskip("resource")

COMMANDS = {
    "profile": ["profile", "wine", "--epochs", "2", "--hidden", "8", "--json", "k.json", "--html", "k.html"],
    "law": ["law", "iris", "--hidden", "3", "--budget", "0.05", "--json", "l.json", "--html", "l.html"],
    "sweep": ["law", "--sweep", "depth", "--budget", "0.01", "--json", "s.json"],
    "report": ["report", "a.json"],
    "files": [
        "report",
        "a.json",
        *(part for name, made in FORMATS.items() for part in (f"--{name}", f"r{made.suffix}")),
    ],
    "compare": ["compare", "a.json", "b.json", "--markdown", "c.md"],
    "train": ["train", "wine", "--epochs", "2"],
    "help": ["profile", "--help"],
    "version": ["--version"],
    "usage": ["profile"],
    "missing": ["report", "none.json"],
}
WRONG = ("usage", "missing")

SHELLS = {
    "head": ('"$@" | head -1', {}),
    "no reader": ('"$@" | true', {}),
    "ascii": ('"$@"', {"PYTHONIOENCODING": "ascii"}),
    "latin-1": ('"$@"', {"PYTHONIOENCODING": "latin-1"}),
    "C": ('"$@"', {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}),
    "no stdout": ('"$@" >&-', {}),
    "no stderr": ('"$@" 2>&-', {}),
    "neither": ('"$@" >&- 2>&-', {}),
    "none": ('"$@" <&- >&- 2>&-', {}),
    "full": ('"$@" > /dev/full', {}),
    "both full": ('"$@" > /dev/full 2>&1', {}),
    "no errors": ('"$@" 2> /dev/full', {}),
    "full disk": ('ulimit -f 0; "$@"', {}),
}
FAST = [("profile", "full disk"), ("report", "full")]
SLOW = [(name, shell) for name in ("profile", "report") for shell in SHELLS]
SLOW += [("sweep", "head"), ("sweep", "full disk")]  # the longest command
SLOW += [
    (name, shell)
    for name in COMMANDS
    for shell in ("head", "ascii", "neither", "both full", "full disk")
    if name != "sweep"
]
EVERY = [
    *FAST,
    *(pytest.param(*pair, marks=pytest.mark.slow) for pair in dict.fromkeys(SLOW) if pair not in FAST),
]


@pytest.fixture(scope="module")
def profiles(tmp_path_factory):
    """Two saved profiles as text."""
    folder = tmp_path_factory.mktemp("profiles")
    for name, hidden in (("a", "8"), ("b", "12")):
        run = ["profile", "wine", "--epochs", "2", "--hidden", hidden, "--quiet", "--trace-steps", "1"]
        with contextlib.redirect_stdout(io.StringIO()):
            assert cli.main([*run, "--json", str(folder / f"{name}.json")]) == 0
    return {name: (folder / f"{name}.json").read_text() for name in "ab"}


@pytest.fixture
def here(profiles, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, text in profiles.items():
        (tmp_path / f"{name}.json").write_text(text)
    return tmp_path


@functools.cache
def scikit_learn_needs_a_disk():
    """Return True if scikit-learn cannot be imported where no file can grow, as with SciPy 1.13."""
    command = ["bash", "-c", 'ulimit -f 0; "$0" -c "import sklearn.datasets"', sys.executable]
    return subprocess.run(command, capture_output=True, timeout=60).returncode != 0


@pytest.mark.parametrize(("name", "shell"), EVERY)
def test_commands_survive_closed_full_and_foreign_streams(name, shell, here):
    if "/dev/full" in SHELLS[shell][0] and not os.path.exists("/dev/full"):
        pytest.skip("no /dev/full here")
    if shell == "full disk" and scikit_learn_needs_a_disk():
        pytest.skip("scikit-learn cannot be imported without a temporary file")
    arguments = COMMANDS[name]
    written = [x for x in arguments if "." in x and x not in ("a.json", "b.json", "none.json", "0.05", "0.01")]
    for file in written:
        (here / file).write_text("old")
    line, environment = SHELLS[shell]
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {line}", "bash", sys.executable, "-m", "microfw", *arguments],
        env=os.environ | {"PYTHONPATH": str(ROOT)} | environment,
        capture_output=True,
        timeout=120,
    )
    said = (done.stdout + done.stderr).decode(errors="replace")
    assert "Traceback" not in said and "Exception ignored" not in said, said
    full_disk = shell == "full disk" and written
    lost_output = shell in ("full", "both full") and name != "files" and name not in WRONG
    lost_output = lost_output or (shell in ("full", "both full") and name == "files")
    assert done.returncode == (2 if name in WRONG or full_disk or lost_output else 0), said
    for file in written:
        assert ((here / file).read_text() == "old") == bool(full_disk)
    assert not list(here.glob(".*"))
    if full_disk and name == "profile":
        assert "Median epoch " in said  # what was measured is shown, although it could not be saved
    if name in WRONG and shell not in ("no stderr", "neither", "none", "no errors", "both full"):
        assert len(done.stderr.splitlines()) == 1


def changed(**entries):
    def change(text):
        return json.dumps(json.loads(text) | entries)

    return change


def in_epoch(**entries):
    def change(text):
        data = json.loads(text)
        data["epochs"][0].update(entries)
        return json.dumps(data)

    return change


def in_row(**entries):
    def change(text):
        data = json.loads(text)
        data["epochs"][0]["rows"][0].update(entries)
        return json.dumps(data)

    return change


def without(key):
    def change(text):
        data = json.loads(text)
        del data["epochs"][0]["rows"][0][key]
        return json.dumps(data)

    return change


DAMAGED = {
    "empty": lambda text: "",
    "truncated": lambda text: text[: len(text) // 2],
    "binary": lambda text: b"\x00\xff\xfe\x80" * 99,
    "utf-16": lambda text: text.encode("utf-16"),
    "a mark of byte order": lambda text: b"\xef\xbb\xbf" + text.encode(),
    "null": lambda text: "null",
    "a list": lambda text: "[]",
    "an empty object": lambda text: "{}",
    "deep": lambda text: "[" * 200_000,
    "long number": lambda text: "9" * 9_999,
    "not a number": lambda text: text.replace('"loss": ', '"loss": NaN, "x": ', 1),
    "infinity": lambda text: text.replace('"loss": ', '"loss": -Infinity, "x": ', 1),
    "too large for a float": in_epoch(loss=10**400),
    "version": changed(version=99),
    "version of another type": changed(version=[4]),
    "epochs of another type": changed(epochs={"0": 1}),
    "a row that is no object": in_epoch(rows=[3]),
    "overhead without its keys": changed(overhead={"x": 1.0}),
    "settings of another type": changed(settings=[1]),
    "layers of another type": changed(layers="abc"),
    "an unknown entry": changed(more=1),
    "every 0": changed(every=0),
    "a trace without an end": changed(trace={"sites": [["a", "b"]], "events": [[0, 0, 9, 3]]}),
    "a negative count": in_row(nodes=-1),
    "a huge count": in_row(nodes=10**30),
    "a count as text": in_row(nodes="7"),
    "a fraction": in_row(forward_ns=0.5),
    "a missing name": without("layer"),
    "metrics of text": in_epoch(metrics={"accuracy": "high"}),
}


@pytest.mark.parametrize("kind", DAMAGED)
def test_a_damaged_profile_is_refused_in_one_line(kind, here, profiles, capsys):
    made = DAMAGED[kind](profiles["a"])
    (here / "bad.json").write_bytes(made if isinstance(made, bytes) else made.encode())
    (here / "old.html").write_text("old")
    for arguments in (
        ["report", "bad.json"],
        ["report", "bad.json", "--html", "old.html"],
        ["compare", "a.json", "bad.json"],
    ):
        assert cli.main(arguments) == 2
        out, err = capsys.readouterr()
        assert not out and err.startswith(f"microfw {arguments[0]}: profile bad.json: expected ")
        assert len(err.splitlines()) == 1
    assert (here / "old.html").read_text() == "old"


def test_what_is_no_file_is_refused_in_one_line(here, capsys):
    os.mkdir("folder.json")
    os.symlink("loop.json", "loop.json")
    for path, what in (
        ("folder.json", "Is a directory"),
        ("none.json", "No such file"),
        ("loop.json", "symbolic links"),
    ):
        assert cli.main(["report", path]) == 2
        assert what in capsys.readouterr().err
    (here / "secret.json").write_text("{}")
    os.chmod("secret.json", 0)
    if not os.access("secret.json", os.R_OK):  # root reads it
        assert cli.main(["report", "secret.json"]) == 2
        assert "Permission denied" in capsys.readouterr().err


HOSTILE = "\x1b[2J\x1b]0;title\x07\u202e\ud800 é漢 $\\frac{$ <script> |"


def test_names_with_terminal_escapes_are_spelled_out(here, profiles, capsys):
    data = json.loads(profiles["a"])
    data["name"] = data["model"] = HOSTILE
    for layer in data["layers"]:
        layer.update({key: HOSTILE for key, value in layer.items() if isinstance(value, str)})
    for epoch in data["epochs"]:
        epoch["metrics"] = {f"val_{HOSTILE}": 1e308}
        for row in epoch["rows"]:
            row["layer"] = row["op"] = HOSTILE
    (here / "h.json").write_text(json.dumps(data))
    for arguments in (
        ["report", "h.json"],
        ["compare", "a.json", "h.json"],
        COMMANDS["files"][:1] + ["h.json"] + COMMANDS["files"][2:],
    ):
        assert cli.main(arguments) in (0, 1)
        said = "".join(capsys.readouterr())
        assert said and not [c for c in said if not c.isprintable() and c != "\n"]
    assert not [c for c in (here / "r.md").read_text() if not c.isprintable() and c != "\n"]


@pytest.mark.parametrize("name", ["", "--help", "--version", "--json=x.json", "../x"])
def test_settings_of_a_file_are_no_options_of_the_command_line(name, here, profiles, capsys):
    (here / "s.json").write_text(changed(settings={"name": name})(profiles["a"]))
    assert cli.main(["compare", "s.json", "s.json", "--rerun"]) == 2
    out, err = capsys.readouterr()
    assert not out and "expected one of digits, iris" in err and repr(name) in err
    assert not (here / "x.json").exists()


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "utf-16"])
def test_every_report_in_every_encoding(encoding, here, monkeypatch):
    for arguments in (["report", "a.json"], ["compare", "a.json", "b.json"], ["--help"], ["law", "--help"]):
        stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
        monkeypatch.setattr(sys, "stdout", stream)
        assert cli.main(arguments) == 0
        stream.flush()
        assert len(stream.buffer.getvalue()) > 500


def interrupted(*arguments, wait):
    """Run a command, press Ctrl-C when standard error or output shows a text, return the code and what was said."""
    with subprocess.Popen(
        [sys.executable, "-u", "-m", "microfw", *arguments],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    ) as run:
        said = ""
        for line in run.stdout:
            said += line
            if wait in line:
                run.send_signal(signal.SIGINT)
                wait = "\0"
        return run.wait(60), said


def test_ctrl_c_keeps_the_epochs_that_are_complete(here):
    (here / "k.json").write_text("old")
    code, said = interrupted(
        "profile",
        "wine",
        "--hidden",
        "8",
        "--epochs",
        "1000",
        "--json",
        "k.json",
        "--html",
        "k.html",
        wait="epoch  100/",
    )
    assert code == 130 and "Traceback" not in said
    assert said.endswith("microfw profile: interrupted\n") and "saved to k.json" in said
    assert 100 <= len(Session.load("k.json").epochs) < 1000
    assert (here / "k.html").read_text().startswith("<!")
    assert not list(here.glob(".*"))


def test_a_fit_that_breaks_off_keeps_the_epochs_that_are_complete(here, capsys):
    assert cli.main(["profile", "wine", "--hidden", "8", "--lr", "1000", "--epochs", "9", "--json", "k.json"]) == 2
    out, err = capsys.readouterr()
    assert "saved to k.json" in out and "expected a finite loss, got nan" in err.splitlines()[-1]
    assert 1 <= len(Session.load("k.json").epochs) < 9


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "wait"),
    [
        (["law", "digits", "--hidden", "64,64", "--json", "a.json"], None),
        (["train", "digits", "--epochs", "5000"], "epoch  500/"),
        (["profile", "digits", "--law", "--html", "p.html"], "law of this model"),
        (["compare", "a.json", "b.json", "--rerun", "--rounds", "5000"], None),
    ],
)
def test_ctrl_c_in_other_commands(arguments, wait, here, profiles):
    if wait is None:  # nothing is printed before the end
        command = [sys.executable, "-m", "microfw", *arguments]
        run = subprocess.Popen(command, env=os.environ | {"PYTHONPATH": str(ROOT)}, stdout=-1, stderr=subprocess.STDOUT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            run.wait(15)  # so that imports are over on a busy machine, too
        run.send_signal(signal.SIGINT)
        said, code = run.communicate(timeout=60)[0].decode(), run.returncode
    else:
        code, said = interrupted(*arguments, wait=wait)
    assert code == 130 and "Traceback" not in said and said.endswith(": interrupted\n")
    assert (here / "a.json").read_text() == profiles["a"]


class OnlyWrite:
    def __init__(self):
        self.text = ""

    def write(self, text):
        self.text += text


class WriteAndFlush(OnlyWrite):
    def flush(self):
        pass


class Terminal(WriteAndFlush):
    def isatty(self):
        return True


class Full(WriteAndFlush):
    def write(self, text):
        raise OSError(28, "No space left on device")


def closed():
    stream = io.StringIO()
    stream.close()
    return stream


def trainer(hooks=()):
    model = nn.Dense(4, 3, rng=0)
    return mf.Trainer(model, nn.CrossEntropyLoss(), optim.SGD(model.parameters(), lr=0.1), hooks=hooks)


def iris():
    return mf.data.load("iris", rng=0)[0]


STREAMS = [
    lambda: None,
    OnlyWrite,
    WriteAndFlush,
    Terminal,
    Full,
    closed,
    lambda: io.TextIOWrapper(io.BytesIO(), "ascii"),
]


@pytest.mark.parametrize("make", STREAMS)
def test_a_fit_needs_no_standard_error(make, monkeypatch):
    stream = make()
    monkeypatch.setattr(sys, "stderr", stream)
    assert len(trainer().fit(iris(), epochs=3, rng=0)) == 3
    if isinstance(stream, OnlyWrite) and not isinstance(stream, Full):
        assert "3/3" in stream.text and "loss" in stream.text


@contextlib.contextmanager
def largest_file(size):
    """Let no file grow beyond a size: a disk that is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("name", ["p.json", *(f"p{made.suffix}" for made in FORMATS.values())])
def test_a_profile_that_finds_no_room_keeps_the_old_file(name, tmp_path):
    profiler = mf.Profiler(trace=1)
    trainer([profiler]).fit(iris(), epochs=2, rng=0, progress=False)
    path = tmp_path / name
    path.write_text("old")
    for save in (profiler.save, profiler.session.save):
        with largest_file(100), pytest.raises(FileError, match="File too large.*nothing was changed"):
            save(path)
        assert path.read_text() == "old" and os.listdir(tmp_path) == [name]


@pytest.mark.parametrize("name", ["m.npz", "m.safetensors"])
def test_a_model_and_a_run_that_find_no_room_keep_the_old_file(name, tmp_path):
    path = tmp_path / name
    made = trainer([Checkpoint(path)])
    made.fit(iris(), epochs=2, rng=0, progress=False)
    before = path.read_bytes()
    for save in (
        lambda: mf.save(path, made.model),
        lambda: made.save(path),
        lambda: made.fit(iris(), 3, progress=False),
    ):
        with largest_file(100), pytest.raises(CheckpointError, match="File too large.*nothing was changed"):
            save()
        assert path.read_bytes() == before and os.listdir(tmp_path) == [name]
    assert len(made.fit(iris(), epochs=4, rng=0, progress=False, resume=path)) == 4
