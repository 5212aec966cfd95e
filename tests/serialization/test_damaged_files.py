"""Files that are damaged, or made to harm: one exception type, no code run, no more memory than the file is large."""

from __future__ import annotations

import hashlib
import json
import signal
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest

import microfw as mf
from microfw import nn
from microfw.errors import ArgumentError, CheckpointError, NonFiniteError
from microfw.profiler import Profiler
from microfw.serialization import npz, safetensors
from microfw.training import Checkpoint
from tests.helpers import damaged_files, resume_run
from tests.helpers.damaged_files import DIGEST, META, Mutator, campaign, content
from tests.helpers.paths import ROOT

FORMATS = [".npz", ".safetensors"]


def mutated(tmp_path, suffix, count, seed):
    came = campaign(tmp_path, suffix, count, seed)
    assert sum(came.values()) == count
    computed = sum(times for (_, _, again), times in came.items() if again)
    assert 0.4 < computed / count < 0.6
    assert sum(times for (end, _, _), times in came.items() if end == "loaded") > count / 50


@pytest.mark.parametrize("suffix", FORMATS)
def test_mutants_are_refused_or_are_what_they_say(tmp_path, suffix):
    mutated(tmp_path, suffix, 150, 1)


@pytest.mark.slow
@pytest.mark.parametrize("suffix", FORMATS)
def test_many_mutants_of_each_format(tmp_path, suffix):
    mutated(tmp_path, suffix, 2_000, 2)


def interrupt():
    signal.raise_signal(signal.SIGINT)


@pytest.mark.slow
@pytest.mark.parametrize("suffix", FORMATS)
def test_mutants_of_checkpoints_are_refused_or_go_on(tmp_path, suffix):
    path = tmp_path / f"run{suffix}"
    with pytest.raises(KeyboardInterrupt):  # in the middle of an epoch
        resume_run.run(tmp_path, Checkpoint(path), resume_run.Do(7, interrupt), stopping=None)
    mutator, ends = Mutator(path, 3), []
    for _ in range(40):
        path.write_bytes(mutator.mutant()[0])
        try:
            resume_run.run(tmp_path, resume=path, stopping=None)
            ends.append("went on")
        except (NonFiniteError, ArgumentError):  # weights drawn at random, with their checksums, or a rate of 0
            ends.append("went on")
        except CheckpointError as error:
            assert str(error).startswith("resuming from ")
            ends.append("refused")
    assert ends.count("refused") > 12


def test_no_code_is_run_and_nothing_imported(tmp_path):
    """Audit events while files are loaded, good ones and mutants: none but of files that are opened."""
    code = (
        "import sys; sys.path.append(sys.argv[2]); from tests.helpers import damaged_files; import microfw as mf, numpy as np\n"
        "from pathlib import Path\n"
        "from microfw.errors import CheckpointError\n"
        "events, listening = [], []\n"
        "for name in mf.nn.__all__: getattr(mf.nn, name)\n"  # the library's own layers, imported on first use
        "sys.addaudithook(lambda event, arguments: listening and events.append(event))\n"
        "for suffix in ('.npz', '.safetensors'):\n"
        "    path = Path(sys.argv[1], 'a' + suffix)\n"
        "    mf.save(path, damaged_files.sample())\n"
        "    mutator = damaged_files.Mutator(path, 4)\n"
        "    mf.load(path)\n"
        "    for k in range(150):\n"
        "        if k: path.write_bytes(mutator.mutant()[0])\n"
        "        listening.append(1)\n"
        "        try: mf.load(path)\n"
        "        except CheckpointError: pass\n"
        "        listening.clear()\n"
        "print(sorted(set(events)))"
    )
    command = [sys.executable, "-c", code, str(tmp_path), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    # object.__getattr__: `inspect.signature` reads the defaults of a layer's constructor
    expected = "['builtins.id', 'object.__getattr__', 'open']"
    assert done.stdout.strip() == expected, done.stdout + done.stderr


def test_files_are_read_without_pickle_and_without_evaluation():
    """The room of files uses none of what could run code."""
    import ast
    from pathlib import Path

    import microfw.serialization

    for path in Path(microfw.serialization.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            name = getattr(node, "id", getattr(node, "attr", getattr(node, "name", "")))
            if isinstance(node, ast.Attribute) and ast.unparse(node) == "re.compile":
                continue
            assert name not in (
                "pickle",
                "eval",
                "exec",
                "compile",
                "import_module",
                "__import__",
                "literal_eval",
                "load_module",
            ), path
            assert not (name == "load" and isinstance(node, ast.Attribute) and ast.unparse(node) == "np.load"), path


def packed(suffix, meta, arrays=None, notes=None):
    text = meta if isinstance(meta, str) else json.dumps(meta)
    notes = notes or {META: text, DIGEST: hashlib.sha256(text.encode()).hexdigest()}
    maker = npz if suffix == ".npz" else safetensors
    return b"".join(bytes(piece) for piece in maker.pieces(arrays or {}, notes))


def about(layers, **changes):
    model = {"layers": layers, "frozen": [], "evaluating": [], "random": []}
    return {"format": "microfw", "version": 1, "kind": "model", "model": model, "sha256": {}} | changes


def module(name, **settings):
    return {"$module": {"class": name, "settings": settings}}


@pytest.mark.parametrize("suffix", FORMATS)
def test_arrays_where_there_should_be_words(tmp_path, suffix):
    """An array compared with a word gives an array, which is neither true nor false."""
    path = tmp_path / f"model{suffix}"
    mf.save(path, damaged_files.sample())
    meta, arrays = content(path)
    meta["model"]["random"][0]["state"]["bit_generator"] = {"$array": "0.weight"}
    path.write_bytes(packed(suffix, meta, arrays))
    with pytest.raises(CheckpointError, match="expected a random generator among PCG64"):
        mf.load(path)

    path = tmp_path / f"run{suffix}"
    with pytest.raises(KeyboardInterrupt):
        resume_run.run(tmp_path, Checkpoint(path), resume_run.Do(7, interrupt), stopping=None)
    good, arrays = content(path)
    for change in ({"batch_size": {"$array": "0.weight"}}, {"hooks": [{}] * len(good["training"]["hooks"])}):
        path.write_bytes(packed(suffix, good | {"training": good["training"] | change}, arrays))
        with pytest.raises(CheckpointError, match="^resuming from .*: expected "):
            resume_run.run(tmp_path, resume=path, stopping=None)


def nested(depth):
    return "[" * depth + "]" * depth


HUGE = 2**40
MILLION = 1_000_000
BOMBS = {
    "sizes of a layer": about(module("nn.Dense", in_features=HUGE, out_features=HUGE, bias=True)),
    "features": about(module("nn.BatchNorm1D", features=HUGE, eps=1e-5, momentum=0.1, affine=False)),
    "slopes": about(module("nn.PReLU", features=2**30)),
    "a shape": about(module("nn.LayerNorm", shape={"$tuple": [2**30]}, eps=1e-5, affine=True)),
    "weights of classes": about(module("nn.NLLLoss", weight={"$like": [2**30]}, reduction="mean", ignore_index=None)),
    "heads": about(module("nn.MultiHeadAttention", embed_dim=2**20, num_heads=1, bias=True, causal=False, dropout=0.0)),
    "a recurrent layer": about(module("nn.LSTM", in_features=2**20, hidden=2**20, bias=True)),
    "layers": about(module("nn.Sequential", layers={"$tuple": [module("nn.ReLU")] * 200_000})),
    "nesting": '{"format": ' + nested(100_000) + "}",
    "nested lists": "[" + ",".join(["[]"] * MILLION) + "]",
    "nested values": "[" + ",".join(['{"a":{}}'] * MILLION) + "]",
    "one long text": '{"format": "' + "x" * (20 * MILLION) + '"}',
    "long integers": '{"format": ' + "9" * 4_000_000 + "}",
    "numbers": "[" + "1," * (5 * MILLION) + "1]",
}


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("bomb", BOMBS)
def test_files_that_claim_huge_arrays_take_little_memory(tmp_path, suffix, bomb):
    path = tmp_path / f"a{suffix}"
    path.write_bytes(packed(suffix, BOMBS[bomb]))
    tracemalloc.start()
    with pytest.raises(CheckpointError):
        mf.load(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2 * path.stat().st_size + (16 << 20)


WRONG = [
    (about(module("os.system")), "a layer of the library, or a class that was passed, got 'os.system'"),
    (about(module("Module")), "a layer of the library, or a class that was passed, got 'Module'"),
    (about(module("nn.Lambda", function={"$function": "eval"})), "a ufunc of NumPy, or a function that was passed, got 'eval'"),
    (about(module("nn.Lambda", function={"$function": "np.save"})), "a ufunc of NumPy, or a function that was passed"),
    (about(module("nn.Lambda", function={"$function": "np.ctypeslib"})), "a ufunc of NumPy, or a function that was passed"),
    (about(module("nn.Dropout", p=2)), "expected settings that nn.Dropout accepts, got Dropout: expected p from 0"),
    (about(module("nn.Dropout")), "expected the settings p of nn.Dropout, got {}"),
    (about(module("nn.Dropout", p=0.5)), "expected random generators"),
    (about(module("nn.Dense", in_features=1, out_features=1, bias=True)), r"an array weight of float32 \(1, 1\), got nothing"),
    (about(module("nn.ReLU"), version=2), "version 1 of the format, got 2; read it with the microfw that wrote it"),
    (about(module("nn.ReLU"), format="other"), "expected a file of microfw, got 'other'"),
    (about(module("nn.ReLU"), kind="other"), "a file of kind 'model' or 'training', got 'other'"),
    (about(module("nn.ReLU"), more=1), "the metadata of a model file"),
    (about(module("nn.ReLU"), sha256={"a": "b"}), "a checksum for each array, got a difference at 'a'"),
    (about({"$same": 0}), "a module, a shape or a function"),
    (about(3), "a model's architecture, got 3"),
    (about({"$array": "x"}), "settings without arrays"),
    ("[]", "an object"),
    ("{", "expected JSON"),
    ('{"a": 1, "a": 2}', "a key that comes twice"),
    ('{"a": NaN}', "NaN, which is not JSON"),
    ("\u00e4", "expected ASCII"),
]  # fmt: skip


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize(("meta", "match"), WRONG, ids=range(len(WRONG)))
def test_what_is_wrong_is_told(tmp_path, suffix, meta, match):
    path = tmp_path / f"a{suffix}"
    if suffix == ".safetensors" and match == "expected ASCII":
        match = "expected JSON"  # its header writes the letter by its number
    path.write_bytes(packed(suffix, meta))
    with pytest.raises(CheckpointError, match=match):
        mf.load(path)


def test_weights_of_other_software_are_told_from_models(tmp_path):
    path = tmp_path / "a.safetensors"
    path.write_bytes(packed(".safetensors", "", {"weight": np.ones(3)}, {"format": "pt"}))
    with pytest.raises(CheckpointError, match="for PyTorch's weights use mf.import_torch"):
        mf.load(path)
    np.savez(tmp_path / "a.npz", weight=np.ones(3))
    with pytest.raises(CheckpointError, match="an archive written by microfw"):
        mf.load(tmp_path / "a.npz")


def test_arrays_of_objects_are_refused(tmp_path):
    np.savez(tmp_path / "a.npz", weight=np.array([print], object))
    with pytest.raises(CheckpointError):
        mf.load(tmp_path / "a.npz")


@pytest.mark.parametrize("suffix", FORMATS)
def test_booleans_that_are_neither(tmp_path, suffix):
    from microfw.serialization import container

    path = tmp_path / f"a{suffix}"
    container.write(path, {"a": np.array([True, False])}, {})
    with container.opened(path, "reading") as contents:
        at = contents.places["a"].start
    data = bytearray(path.read_bytes())
    data[at] = 7
    path.write_bytes(data)
    with (
        pytest.raises(CheckpointError, match="booleans of 0 or 1, got 7"),
        container.opened(path, "reading") as contents,
    ):
        contents.array("a")


def test_cuts_of_a_file_are_refused(tmp_path):
    for suffix in FORMATS:
        path = tmp_path / f"a{suffix}"
        mf.save(path, nn.Dense(2, 1, rng=0))
        data = path.read_bytes()
        for end in (*range(0, len(data), 3), len(data) - 1):
            path.write_bytes(data[:end])
            with pytest.raises(CheckpointError):
                mf.load(path)


def test_the_bytes_of_a_file_are_guarded(tmp_path):
    for suffix in FORMATS:
        path = tmp_path / f"a{suffix}"
        mf.save(path, nn.Dense(2, 1, rng=0))
        data = path.read_bytes()
        first = content(path)
        for k in range(0, len(data), 3):
            path.write_bytes(data[:k] + bytes([data[k] ^ 1]) + data[k + 1 :])
            try:
                damaged_files.save_plainly(tmp_path / f"b{suffix}", mf.load(path))
            except CheckpointError:
                continue
            assert content(tmp_path / f"b{suffix}")[0] == first[0], k


@pytest.mark.parametrize(("state", "match"), [
    ({"session": "{}", "partial": None}, "expected a profile saved by microfw"),
    ({"session": 3, "partial": None}, "expected JSON as text, got int"),
    ({"session": Profiler(every=2).state_dict()["session"], "partial": None}, "expected every=1, got 2"),
])  # fmt: skip
def test_a_profile_that_is_none(state, match):
    with pytest.raises(mf.errors.DataError, match=match):
        Profiler().load_state_dict(state)
