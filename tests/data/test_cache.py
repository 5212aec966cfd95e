"""The cache of `load`: the same bits without scikit-learn, and no error if something is wrong with the folder."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from sklearn.preprocessing import StandardScaler

from microfw.data import cache, load, names
from microfw.data.cache import TargetScaler
from microfw.errors import ArgumentError, ShapeError
from tests.helpers.errors import raises

ROOT = Path(__file__).parents[2]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Set an empty folder, of which the parent does not exist either."""
    place = tmp_path / "a" / "b"
    monkeypatch.setenv("MICROFW_CACHE", str(place))
    return place


@pytest.fixture
def loaded(monkeypatch):
    """Return the list of datasets that scikit-learn made."""
    from microfw.data import toys

    make, made = toys._make, []

    def noted(toy, *arguments):
        made.append(toy.task)
        return make(toy, *arguments)

    monkeypatch.setattr(toys, "_make", noted)
    return made


def same(first, second):
    for a, b in zip(first, second, strict=True):
        assert (a.X.dtype, a.y.dtype, a.X.strides) == (b.X.dtype, b.y.dtype, b.X.strides)
        assert a.X.tobytes() == b.X.tobytes()
        assert a.y.tobytes() == b.y.tobytes()
        assert (a.feature_names, a.target_names, a.task) == (b.feature_names, b.target_names, b.task)
        assert a.n_classes == b.n_classes
        assert a.to_original(a.y).tobytes() == b.to_original(b.y).tobytes()


@pytest.mark.parametrize("name", names())
def test_the_second_load_reads_the_file_and_has_the_same_bits(name, folder, loaded):
    first, second = load(name, rng=1), load(name, rng=1)
    assert len(loaded) == 1
    assert len(list(folder.iterdir())) == 1
    same(first, second)
    same(first, load(name, rng=1, cache=False))
    assert len(loaded) == 2
    assert not second[0].X.flags.writeable


def test_each_argument_and_version_has_its_file(folder, loaded, monkeypatch):
    load("iris"), load("iris", 30), load("iris", 0.2), load("iris", rng=1), load("wine")
    load("iris", rng=np.random.default_rng(3)), load("iris", rng=np.random.default_rng(3))
    assert len(list(folder.iterdir())) == len(loaded) == 6
    monkeypatch.setattr(cache.metadata, "version", lambda package: "99.0")
    load("iris")
    assert len(list(folder.iterdir())) == len(loaded) == 7
    monkeypatch.setattr(np, "__version__", "99.0")
    load("iris")
    assert len(list(folder.iterdir())) == len(loaded) == 8


def test_a_file_belongs_to_the_code_that_made_it(folder, tmp_path):
    (tmp_path / "code.py").write_text("a")
    first = cache.path_of("iris", str(tmp_path / "code.py"), 0.25, 0)
    (tmp_path / "code.py").write_text("b")
    assert first != cache.path_of("iris", str(tmp_path / "code.py"), 0.25, 0)
    assert cache.path_of("iris", str(tmp_path / "none.py"), 0.25, 0) is None


def test_the_cache_can_be_switched_off(folder, loaded, monkeypatch):
    load("iris", cache=False), load("iris", rng=None)
    assert not folder.exists()
    monkeypatch.setenv("MICROFW_CACHE", "")
    load("iris"), load("iris")
    assert len(loaded) == 4
    assert cache.folder() is None
    with raises(ArgumentError, "load: expected cache to be True or False, got 'no'"):
        load("iris", cache="no")


def test_a_damaged_file_is_replaced(folder, loaded):
    first = load("diabetes")
    (file,) = folder.iterdir()
    whole = file.read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 1
    for damaged in (b"", whole[:-7], bytes(flipped), whole + b"x", b"PK" * 500):
        file.write_bytes(damaged)
        same(first, load("diabetes"))
        assert file.read_bytes() == whole
    assert len(loaded) == 6


@pytest.mark.parametrize("kind", ["a file", "a folder in its place", "no home"])
def test_a_place_that_cannot_be_written_is_no_error(kind, folder, loaded, monkeypatch):
    expected = load("iris", cache=False)
    if kind == "a file":
        folder.parent.parent.joinpath("a").write_text("in the way")
    elif kind == "a folder in its place":
        load("iris")
        (file,) = folder.iterdir()
        file.unlink()
        file.mkdir()
    else:
        monkeypatch.delenv("MICROFW_CACHE")
        monkeypatch.setattr(cache.os.path, "expanduser", lambda path: path)
        monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
        monkeypatch.delenv("LOCALAPPDATA", raising=False)
        assert cache.folder() is None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(2):
            same(expected, load("iris"))


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root writes everywhere")
def test_a_folder_without_permission_is_no_error(folder):
    folder.mkdir(parents=True)
    folder.chmod(0o500)
    same(load("iris"), load("iris"))
    assert not list(folder.iterdir())


@pytest.mark.parametrize(
    ("platform", "variables", "expected"),
    [
        ("linux", {}, "~/.cache/microfw"),
        ("linux", {"XDG_CACHE_HOME": "/x"}, "/x/microfw"),
        ("darwin", {"XDG_CACHE_HOME": "/x"}, "~/Library/Caches/microfw"),
        ("linux", {"MICROFW_CACHE": "~/x"}, "~/x"),
        ("win32", {"LOCALAPPDATA": "/l"}, "/l/microfw"),
        ("win32", {}, "~/AppData/Local/microfw"),
    ],
)
@pytest.mark.skipif(os.name == "nt", reason="paths of POSIX")
def test_the_folder_is_the_platforms(platform, variables, expected, monkeypatch):
    for name in ("MICROFW_CACHE", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "platform", platform)
    assert cache.folder() == os.path.expanduser(expected)


def test_the_oldest_files_are_removed_and_no_others(folder, monkeypatch):
    monkeypatch.setattr(cache, "MAX_FILES", 2)
    folder.mkdir(parents=True)
    for name in ("mine.npz", "microfw-iris.npz"):
        (folder / name).write_bytes(b"kept")
    for seed in range(3):
        load("iris", rng=seed)
        newest = cache.path_of("iris", str(ROOT / "microfw/data/toys.py"), 0.25, seed)
        os.utime(newest, (seed, seed))
    left = {path.name for path in folder.iterdir()}
    assert len(left) == 4
    assert {"mine.npz", "microfw-iris.npz", os.path.basename(newest)} < left


def test_targets_are_scaled_back_as_by_scikit_learn():
    rng = np.random.default_rng(0)
    fitted = StandardScaler().fit(rng.normal(3, 20, (50, 3)))
    scaler = TargetScaler(fitted.mean_, fitted.scale_)
    for values in (rng.normal(size=(9, 3)), rng.normal(size=(9, 3)).astype("float32"), np.arange(6).reshape(2, 3)):
        mine, theirs = scaler.inverse_transform(values), fitted.inverse_transform(values)
        assert mine.dtype == theirs.dtype
        np.testing.assert_allclose(mine, theirs, rtol=1e-6)
    with raises(ShapeError, "to_original: expected targets of shape (N, 3), got (9,)"):
        scaler.inverse_transform(np.ones(9))


WATCHED = """
import hashlib, sys
{script}
data = [part.tobytes() for half in (train, test) for part in (half.X, half.y)]
weights = [p.data.tobytes() for p in model.parameters()]
print("digest", hashlib.sha256(b"".join(data + weights)).hexdigest())
print("imported", sorted({{"sklearn", "scipy", "joblib", "pandas", "matplotlib", "numpy.ma"}} & sys.modules.keys()))
"""


def run(folder, *command):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "MICROFW_CACHE": str(folder)}
    done = subprocess.run(
        [sys.executable, *command], env=environment, capture_output=True, encoding="utf-8", timeout=100
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_second_run_of_a_script_imports_no_scikit_learn(folder):
    script = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)[0]
    first, second = (run(folder, "-c", WATCHED.format(script=script)).splitlines()[-2:] for _ in range(2))
    assert "'sklearn'" in first[1]
    assert second == [first[0], "imported []"]


@pytest.mark.slow
def test_the_second_profile_imports_no_scikit_learn(folder):
    code = "import sys; from microfw.cli.main import main; main(['profile', 'iris', '--epochs', '1']); {}"
    run(folder, "-c", code.format("assert 'sklearn' in sys.modules"))
    run(folder, "-c", code.format("assert not {'sklearn', 'scipy'} & sys.modules.keys()"))
