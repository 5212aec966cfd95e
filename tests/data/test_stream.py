"""`mf.data.stream`: order, memory and errors."""

from __future__ import annotations

import json
import subprocess
import sys
from itertools import chain
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pytest
import scipy.sparse

import microfw as mf
from microfw.errors import ArgumentError, DataError, DTypeError, ShapeError
from tests.helpers.errors import raises
from tests.helpers.paths import ROOT

X = np.arange(103, dtype=np.float32)[:, None]


def numbers(batches):
    return [y.leaves[0].tolist() for _, y, _ in batches]


def joined(parts):
    return list(chain.from_iterable(parts))


@pytest.mark.parametrize("block", [4, 64, 1 << 25])
def test_an_epoch_has_each_row_once_in_an_order_of_the_generator(block):
    train = mf.data.stream(X, np.arange(103), block_bytes=block)
    first, again, other = (numbers(train.batches(10, np.random.default_rng(seed))) for seed in (0, 0, 1))
    assert [len(part) for part in first] == [10] * 10 + [3]
    assert sorted(joined(first)) == list(range(103)) and joined(first) != list(range(103))
    assert first == again != other
    for features, targets, _ in train.batches(10, np.random.default_rng(0)):
        np.testing.assert_array_equal(features.leaves[0][:, 0], targets.leaves[0])


@pytest.mark.parametrize("block", [4, 64, 1 << 25])
@pytest.mark.parametrize("skip", [0, 1, 6, 10, 11])
@pytest.mark.parametrize("drop_last", [False, True])
def test_batches_are_skipped_as_if_they_had_been_read(block, skip, drop_last):
    train = mf.data.stream(X, np.arange(103), block_bytes=block)
    whole = numbers(train.batches(10, np.random.default_rng(0), drop_last=drop_last))
    assert numbers(train.batches(10, np.random.default_rng(0), skip=skip, drop_last=drop_last)) == whole[skip:]


def test_a_last_batch_that_is_too_small_joins_the_one_before():
    train = mf.data.stream(X[:21], np.arange(21), block_bytes=16)
    parts = numbers(train.batches(10, np.random.default_rng(0), min_rows=2))
    assert [len(part) for part in parts] == [10, 11] and sorted(joined(parts)) == list(range(21))


def test_without_shuffling_rows_come_in_order():
    train = mf.data.stream(X, np.arange(103), block_bytes=64, shuffle=False)
    assert joined(numbers(train.batches(10, np.random.default_rng(0)))) == list(range(103))


def test_runs_of_neighbouring_rows_are_read(tmp_path):
    class Counted:
        """An array in a file of another library, which counts what is read."""

        dtype, shape = X.dtype, X.shape
        read: ClassVar[list] = []

        def __getitem__(self, rows):
            self.read.append((rows.start, rows.stop))
            return X[rows]

    train = mf.data.stream(Counted(), X, block_bytes=16 * 8 * 4)  # 16 runs of 8 / 2 rows of two floats
    train.fingerprints()
    Counted.read.clear()
    list(train.batches(10, np.random.default_rng(0)))
    assert sorted(Counted.read) == [(k, min(k + 4, 103)) for k in range(0, 103, 4)]


def test_nested_arrays_weights_and_dtypes():
    images = np.arange(60, dtype=np.uint8).reshape(20, 3)
    train = mf.data.stream({"image": images, "word": np.arange(20)}, (np.ones(20), np.arange(20)), np.ones(20))
    assert repr(train) == "stream(20 rows of uint8 (3,), int64 (), float64 (), int64 (), float64 ())"
    features, (real, labels), weight = next(iter(mf.data.batches(train, 4, rng=0)))
    dtypes = [array.dtype.name for array in (*features.values(), real, labels, weight)]
    assert dtypes == ["float32", "int64", "float32", "int64", "float32"]
    np.testing.assert_array_equal(features["image"][:, 0] / 3, features["word"])


def test_one_array_may_be_features_and_targets():
    images = np.arange(60, dtype=np.uint8).reshape(20, 3)
    for targets in (images, images.copy()):
        features, same = next(iter(mf.data.batches(mf.data.stream(images, targets), 4, rng=0)))
        assert (features.dtype, same.dtype) == (np.float32, np.uint8)


class Foreign:
    """A tensor of another library."""

    shape = X.shape

    def __init__(self, dtype, error=None):
        self.dtype, self.error, self.requires_grad = dtype, error, error is not None

    def numpy(self):
        if self.error is not None:
            raise self.error
        return X


def test_tensors_of_other_libraries_are_read():
    data = Foreign("torch.float32"), Foreign("torch.float32")
    for other in (mf.data.stream(*data), (*data, Foreign("torch.float32"))):
        assert all(part.dtype == X.dtype for part in next(iter(mf.data.batches(other, 4, rng=0))))


@pytest.mark.parametrize("wrap", [mf.data.Dataset, mf.data.stream, lambda X, y: list(mf.data.batches((X, y, y), 4))])
def test_tensors_that_numpy_cannot_read(wrap):
    bad = Foreign("torch.bfloat16", RuntimeError("Can't call numpy()."))
    text = "Dataset: expected X that NumPy can read, got torch.bfloat16 (Can't call numpy()); pass tensor"
    with raises(DTypeError, f"{text}.detach().float().cpu()"):
        wrap(bad, X)


@pytest.mark.parametrize(
    ("arguments", "options", "kind", "text"),
    [
        (([[1.0]], X), {}, ArgumentError,
         "stream: expected arrays, got list as X; open files with np.load(path, mmap_mode='r')"),
        ((X, {"a": 3}), {}, ArgumentError,
         "stream: expected arrays, got int as y/a; open files with np.load(path, mmap_mode='r')"),
        ((scipy.sparse.csr_matrix(X), X), {}, DTypeError,
         "Dataset: expected a dense X, got csr_matrix; pass X.toarray()"),
        ((SimpleNamespace(dtype="torch.int8", shape=(3,)), X), {}, DTypeError,
         "stream: expected a dtype of NumPy, got torch.int8 of SimpleNamespace as X; pass an object whose slices are arrays"),
        ((X, X[:3]), {}, ShapeError, "stream: expected arrays of one length, got 103 rows of X and 3 of y"),
        ((X[:0], X[:0]), {}, DataError, "stream: expected at least one row, got none"),
        ((X, X), {"block_bytes": 0}, ArgumentError, "stream: expected block_bytes to be a positive integer, got 0"),
        ((X, X), {"shuffle": 1}, ArgumentError, "stream: expected shuffle to be True or False, got 1"),
    ],
)  # fmt: skip
def test_what_is_no_stream(arguments, options, kind, text):
    with raises(kind, text):
        mf.data.stream(*arguments, **options)


def test_rows_are_checked_when_they_are_read():
    bad = X.copy()
    bad[77] = np.nan
    train = mf.data.stream(bad, X, block_bytes=16 * 8 * 4, shuffle=False)
    model = mf.nn.Sequential(mf.nn.Dense(1, 1, rng=0))
    trainer = mf.Trainer(model, mf.nn.MSELoss(), mf.optim.SGD(model.parameters(), lr=1e-6))
    with raises(
        DataError,
        "Trainer.fit, in rows 64 to 67, 68 to 71, 72 to 75 and 7 more parts: Dataset: expected finite X, "
        "got nan at row 13, column 0; drop the row, or fill it in with sklearn.impute.SimpleImputer",
    ):
        trainer.fit(train, 1, 10, progress=False)


LARGE = """
import json, resource, sys, time
import numpy as np, microfw as mf
path, megabytes, limit = sys.argv[1], int(sys.argv[2]), sys.argv[3]
rows = (megabytes << 20) // (4 * 64)
X = np.lib.format.open_memmap(path + "/X.npy", "w+", np.float32, (rows, 64))
for k in range(0, rows, 1 << 16):
    X[k : k + (1 << 16)] = np.random.default_rng(k).standard_normal(X[k : k + (1 << 16)].shape, np.float32)
X.flush()
y = (X[:, 0] > 0).astype(np.intp)
np.save(path + "/y.npy", y)
del X, y
def status(name):
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(name)) / 1024
limit = int(limit) + int(status("VmData")) * limit.startswith("+")  # "+250": megabytes above the present ones
resource.setrlimit(resource.RLIMIT_DATA, (limit << 20, limit << 20))
class Memory(mf.Hook):
    most = 0
    def on_step_end(self, state):
        if state.step % 50 == 0:
            self.most = max(self.most, status("RssAnon"))
def trainer(*hooks):
    model = mf.nn.Sequential(mf.nn.Dense(64, 32, rng=0), mf.nn.ReLU(), mf.nn.Dense(32, 2, rng=1))
    return mf.Trainer(model, mf.nn.CrossEntropyLoss(), mf.optim.SGD(model.parameters(), lr=0.1), hooks=hooks)
X, y = np.load(path + "/X.npy", mmap_mode="r"), np.load(path + "/y.npy", mmap_mode="r")
memory = Memory()
start = time.process_time()
history = trainer(memory).fit(mf.data.stream(X, y), 1, 128, rng=0, progress=False)
seconds = time.process_time() - start  # another process of a busy machine does not count
part = min(rows, (64 << 20) // (4 * 64))
small = (np.array(X[:part]), np.array(y[:part]))
run = trainer()
start = time.process_time()
run.fit(small, 1, 128, rng=0, progress=False)
from_memory = (time.process_time() - start) * rows / part
print(json.dumps({"loss": history[-1]["loss"], "memory": memory.most, "speed": from_memory / seconds, "seconds": seconds}))
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.parametrize(("megabytes", "limit"), [(400, "+250")])
def test_a_training_set_larger_than_memory(megabytes, limit, tmp_path):
    """Train on a file that is larger than the limit of data; (4096, "1024") takes 4 GB of disk and minutes."""
    command = [sys.executable, "-c", LARGE, str(tmp_path), str(megabytes), limit]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=1800, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["loss"] < 0.3 and found["memory"] <= 300 and found["speed"] >= 0.6, found
