"""Datasets: what loading promises, what is checked, and how batches come."""

from __future__ import annotations

import pickle
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

import microfw as mf
from microfw.data import Dataset, batches, load, names
from microfw.errors import ArgumentError, DataError, DTypeError, MicrofwError, ShapeError
from tests.helpers.errors import raises

CLASSES = {"digits": 10, "iris": 3, "wine": 3, "breast_cancer": 2, "moons": 2, "circles": 2, "blobs": 4}
TARGETS = {"diabetes": 1, "linnerud": 3, "friedman1": 1}


# load


def test_names_are_the_promised_ones():
    assert set(names()) == {*CLASSES, *TARGETS}


@pytest.mark.parametrize("name", names())
def test_load_gives_arrays_ready_to_train_on(name):
    train, test = load(name, rng=1)
    for data in (train, test):
        assert data.X.dtype == np.float32
        assert data.X.flags.c_contiguous
        assert not data.X.flags.writeable
        assert not data.y.flags.writeable
        assert len(data.feature_names) == data.X.shape[1]
        assert len(data) == len(data.X) == len(data.y)
        if name in CLASSES:
            assert data.task == "classification"
            assert data.y.dtype == np.intp
            assert data.n_classes == len(data.target_names) == CLASSES[name]
        else:
            assert data.task == "regression"
            assert data.n_classes is None
            assert data.y.dtype == np.float32
            assert data.y.shape == (len(data), TARGETS[name])
            assert len(data.target_names) == TARGETS[name]
    assert len(test) == pytest.approx((len(train) + len(test)) / 4, abs=1)


@pytest.mark.parametrize("index", [-100, 255])
def test_an_ignored_label_is_no_class(index):
    data = pickle.loads(pickle.dumps(Dataset(np.ones((4, 1)), [0, 1, index, 1], ignore_index=index))).astype("f8")
    assert data.n_classes == len(data.target_names) == 2 and data.y.tolist() == [0, 1, index, 1]
    with pytest.raises(DataError, match="got -3 at row 0"):
        Dataset(np.ones((2, 1)), [-3, index], ignore_index=index)


@pytest.mark.parametrize("name", names())
def test_scaling_is_fitted_on_the_training_part_only(name):
    train, test = load(name, rng=0)
    np.testing.assert_allclose(train.X.mean(axis=0), 0, atol=1e-5)
    assert abs(test.X.mean(axis=0)).max() > 1e-3
    if name != "digits":
        np.testing.assert_allclose(train.X.std(axis=0), 1, rtol=1e-4)
    if name in TARGETS:
        np.testing.assert_allclose(train.y.mean(axis=0), 0, atol=1e-5)
        np.testing.assert_allclose(train.y.std(axis=0), 1, rtol=1e-4)
        assert abs(test.y.mean(axis=0)).max() > 1e-3


def test_pixels_of_digits_keep_their_sizes_relative_to_each_other():
    train, test = load("digits")
    X = np.concatenate((train.X, test.X))
    spread = np.ptp(X, axis=0)
    np.testing.assert_allclose(spread * 8, np.round(spread * 8), atol=1e-4)
    assert spread.max() == pytest.approx(2)


@pytest.mark.parametrize("name", CLASSES)
def test_splits_are_stratified(name):
    train, test = load(name, rng=3)
    shares = [np.bincount(data.y, minlength=CLASSES[name]) / len(data) for data in (train, test)]
    np.testing.assert_allclose(shares[0], shares[1], atol=1.5 / len(test))


@pytest.mark.parametrize("name", TARGETS)
def test_targets_come_back_in_their_units(name):
    from sklearn import datasets

    train, test = load(name, rng=0)
    if name == "friedman1":
        y = datasets.make_friedman1(1000, noise=1.0, random_state=0)[1]
    else:
        y = getattr(datasets, f"load_{name}")().target
    got = np.concatenate([data.to_original(data.y) for data in (train, test)])
    np.testing.assert_allclose(np.sort(got, axis=0), np.sort(y.reshape(len(y), -1), axis=0), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", ["digits", "moons", "friedman1"])
def test_same_seed_same_bits(name):
    a, b, c = load(name, rng=5)[0], load(name, rng=5)[0], load(name, rng=6)[0]
    assert a.X.tobytes() == b.X.tobytes()
    assert a.y.tobytes() == b.y.tobytes()
    assert a.X.tobytes() != c.X.tobytes()
    d, e = (load(name, rng=np.random.default_rng(5))[0] for _ in range(2))
    assert d.X.tobytes() == e.X.tobytes()


def test_numpys_global_state_is_left_alone():
    np.random.seed(0)  # noqa: NPY002
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    for rng in (0, None, np.random.default_rng(0)):
        train, _ = load("moons", rng=rng)
        list(batches(train, rng=rng))
    assert (np.random.get_state()[1] == before).all()  # noqa: NPY002


def test_test_size_is_a_share_or_a_number_of_rows():
    assert len(load("iris", test_size=0.5)[1]) == 75
    assert len(load("iris", test_size=30)[1]) == 30


def test_unknown_dataset():
    known = ", ".join(names())
    with raises(ArgumentError, f"load: expected one of {known}, got 'digit'; did you mean 'digits'?"):
        load("digit")
    fix = "for your own arrays use mf.data.Dataset(X, y)"
    with raises(ArgumentError, f"load: expected one of {known}, got 'zzz'; {fix}"):
        load("zzz")
    with pytest.raises(ArgumentError, match="got 3"):
        load(3)


@pytest.mark.parametrize("size", [0, 2.0, -1, "x", 10**6])
def test_bad_test_size(size):
    with pytest.raises(ArgumentError, match=f"^load: expected a test_size that splits, got {size!r}; .*$"):
        load("iris", test_size=size)


@pytest.mark.parametrize("rng", [-1, 2**32, True, "0"])
def test_bad_seed(rng):
    text = f"load: expected rng to be a Generator or an integer from 0 to 2**32 - 1, got {rng!r}"
    with raises(ArgumentError, text):
        load("iris", rng=rng)


def test_importing_imports_no_heavy_package():
    code = (
        "import sys, microfw, microfw.data, microfw.training;"
        "print([m for m in ('sklearn', 'tqdm', 'pandas', 'scipy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


# Dataset


def test_lists_arrays_and_frames_are_the_same_dataset():
    X, y = [[1, 2], [3, 4], [5, 6]], [0, 1, 1]
    frame = pd.DataFrame(X, columns=["height", "age"], index=[7, 8, 9])
    for data in (Dataset(X, y), Dataset(np.array(X, "f8", order="F"), np.array(y, "u1")), Dataset(frame, pd.Series(y))):
        assert data.X.tolist() == X
        assert data.X.dtype == np.float32
        assert data.X.flags.c_contiguous
        assert data.y.tolist() == y
        assert data.y.dtype == np.intp
    assert data.feature_names == ["height", "age"]
    assert data.target_names == ["0", "1"]
    assert repr(data) == "Dataset(3 rows, 2 features, classification into 2 classes)"


def test_pandas_types_of_its_own_are_numbers():
    frame = pd.DataFrame({"a": pd.array([1, 2], dtype="Int64"), "b": [True, False], "c": [0.5, 1.5]})
    data = Dataset(frame, pd.Series([3.5, 4.5], name="price"))
    assert data.X.tolist() == [[1, 1, 0.5], [2, 0, 1.5]]
    assert data.y.tolist() == [[3.5], [4.5]]
    assert data.target_names == ["price"]
    assert repr(data) == "Dataset(2 rows, 3 features, regression of price)"
    assert Dataset(frame, pd.DataFrame({"u": [0.0, 1], "v": [1.0, 2]})).target_names == ["u", "v"]
    assert Dataset(frame, pd.Series([0, 1], dtype="Int64"), task="classification").y.tolist() == [0, 1]


def test_arrays_are_copies_and_locked():
    X, y = np.zeros((3, 2), np.float32), np.array([0, 1, 2])
    data = Dataset(X, y)
    X[0, 0] = y[0] = 1
    assert data.X[0, 0] == data.y[0] == 0
    for array in (data.X, data.y, pickle.loads(pickle.dumps(data)).X):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1


def test_task_is_told_by_the_targets_unless_it_is_given():
    X = np.zeros((3, 1))
    assert Dataset(X, [True, False, True]).task == "classification"
    assert Dataset(X, [0.0, 1.0, 2.0]).task == "regression"
    assert Dataset(X, [[0], [1], [2]]).task == "regression"
    counts = Dataset(X, [0, -1, 5], task="regression")
    assert counts.y.tolist() == [[0], [-1], [5]]
    assert counts.y.dtype == np.float32


def test_class_names_may_tell_of_classes_that_do_not_occur():
    assert Dataset(np.zeros((2, 1)), [0, 1], target_names=["a", "b", "c"]).n_classes == 3


def test_images_and_float64():
    data = Dataset(np.zeros((2, 1, 4, 4)), [0, 1], feature_names=None, dtype="float64")
    assert data.X.shape == (2, 1, 4, 4)
    assert data.X.dtype == np.float64
    assert repr(data) == "Dataset(2 rows, features of shape (1, 4, 4), classification into 2 classes)"


FILL = "drop the row, or fill it in with sklearn.impute.SimpleImputer"
ENCODE = "encode it with np.unique(y, return_inverse=True)[1]"
TWO = [[1.0, 2.0], [3.0, 4.0]]
BAD = {
    "NaN": ([[1, 2], [3, np.nan]], [0, 1], {}, DataError, f"finite X, got nan at row 1, column 1; {FILL}"),
    "NaN in a frame": (
        pd.DataFrame({"height": [1.0, 2.0], "age": [np.nan, 1.0]}),
        [0, 1],
        {},
        DataError,
        f"finite X, got nan at row 0, column 1 ('age'); {FILL}",
    ),
    "missing": (
        pd.DataFrame({"a": pd.array([1, None], dtype="Int64"), "b": [1, 2]}),
        [0, 1],
        {},
        DataError,
        f"finite X, got <NA> at row 1, column 0 ('a'); {FILL}",
    ),
    "infinite target": (TWO, [0.5, np.inf], {}, DataError, f"finite y, got inf at row 1, column 0 ('y0'); {FILL}"),
    "too large": ([[1e39], [1]], [0, 1], {}, DataError,
                  "finite X, got 1e+39 at row 0, column 0; scale it down: float32 cannot hold it"),
    "empty": (np.zeros((0, 2)), [], {}, DataError,
              "at least one row, got X of shape (0, 2); look at the filter that made it"),
    "no columns": (np.zeros((2, 0)), [0, 1], {}, ShapeError,
                   "at least one column in X and y, got shapes (2, 0) and (2,)"),
    "lengths": (TWO, [0], {}, ShapeError, "X and y of the same length, got 2 and 1; pass one target for each row"),
    "one axis": ([1.0, 2.0], [0, 1], {}, ShapeError,
                 "X of shape (N, features), got (2,); pass X[:, None] for one feature"),
    "no axis": (TWO, 1, {}, ShapeError, "y of shape (N,) or (N, k), got (); pass a target for each row"),
    "ragged": ([[1, 2], [3]], [0, 1], {}, ShapeError,
               "X to be a full table, got rows of different lengths; give all rows the same length"),
    "several inputs": ([np.ones((2, 3)), np.ones((2, 4))], [0, 1], {}, ShapeError,
                       "X to be a full table, got a list of arrays of different shapes; give all rows the same length, or pass several inputs as a tuple"),
    "text": ([["a", "b"], ["c", "d"]], [0, 1], {}, DTypeError,
             "X to hold numbers, got dtype <U1; encode text as numbers before you pass X"),
    "text in a frame": (
        pd.DataFrame({"size": [1, 2], "colour": ["red", "blue"]}),
        [0, 1],
        {},
        DTypeError,
        "X to hold numbers, got 'red' at row 0, column 1 ('colour'); encode text as numbers first",
    ),
    "complex": ([[1j], [2]], [0, 1], {}, DTypeError, "X to hold numbers, got dtype complex128; convert it to floats"),
    "text labels": (TWO, ["cat", "dog"], {}, DTypeError, f"integer labels, got text such as 'cat'; {ENCODE}"),
    "text series": (TWO, pd.Series(["cat", "dog"]), {}, DTypeError,
                    f"integer labels, got text such as 'cat'; {ENCODE}"),
    "negative": (TWO, [0, -1], {}, DataError,
                 "labels 0, 1, 2, …, got -1 at row 1; "
                 "encode them with np.unique(y, return_inverse=True)[1], pass task='regression', or leave a label out by ignore_index"),
    "fraction": (TWO, [0, 0.5], {"task": "classification"}, DataError,
                 "integer labels, got 0.5 at row 1; for real targets pass task='regression'"),
    "NaN label": (TWO, [0, np.nan], {"task": "classification"}, DataError,
                  "integer labels, got nan at row 1; drop the row"),
    "float labels": (TWO, [0.0, 1.0], {"task": "classification"}, DTypeError,
                     "integer labels, got dtype float64; cast them with y.astype(int)"),
    "column of labels": (TWO, [[0], [1]], {"task": "classification"}, ShapeError,
                         "labels of shape (N,), got (2, 1); flatten them with y.ravel()"),
    "one-hot labels": (TWO, [[1, 0], [0, 1]], {"task": "classification"}, ShapeError,
                       "labels of shape (N,), got (2, 2); pass y.argmax(axis=1) if rows are one-hot"),
    "task": (TWO, [0, 1], {"task": "rank"}, ArgumentError, "task to be 'classification' or 'regression', got 'rank'"),
    "ignored": (TWO, [0, 1], {"ignore_index": "a"}, ArgumentError, "ignore_index to be an integer or None, got 'a'"),
    "scaler": (TWO, [[0.0], [1.0]], {"target_scaler": 3}, ArgumentError,
               "a target_scaler with inverse_transform, got 3"),
    "names": (TWO, [0, 1], {"feature_names": ["a"]}, ArgumentError, "2 feature names, got 1"),
    "class names": (TWO, [0, 1], {"target_names": ["a"]}, ArgumentError, "2 target names, got 1"),
    "dtype": (TWO, [0, 1], {"dtype": "int32"}, DTypeError, "dtype to be float32 or float64, got int32"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_data_is_named_with_its_place_and_its_fix(case):
    X, y, options, kind, text = BAD[case]
    with raises(kind, f"Dataset: expected {text}"):
        Dataset(X, y, **options)


def test_sparse_matrices_are_to_be_made_dense():
    from scipy.sparse import csr_matrix

    with raises(DTypeError, "Dataset: expected a dense X, got csr_matrix; pass X.toarray()"):
        Dataset(csr_matrix(np.eye(2)), [0, 1])


# batches


@pytest.fixture
def pair():
    X = np.arange(22, dtype=np.float32).reshape(11, 2)
    return X, np.arange(11)


@pytest.mark.parametrize("size", [1, 3, 11, 100])
@pytest.mark.parametrize("shuffle", [True, False])
def test_batches_are_all_rows_once(pair, size, shuffle):
    got = list(batches(pair, size, shuffle=shuffle, rng=0))
    assert [len(y) for _, y in got] == [size] * (11 // size) + [11 % size] * bool(11 % size)
    rows = np.concatenate([y for _, y in got])
    assert sorted(rows) == list(range(11))
    assert (rows.tolist() == list(range(11))) != (shuffle)
    np.testing.assert_array_equal(np.concatenate([X for X, _ in got]), pair[0][rows])


def test_batches_are_copies_that_can_be_written_to(pair):
    for shuffle in (True, False):
        for X, y in batches(Dataset(*pair), 4, shuffle=shuffle, rng=0):
            assert X.flags.c_contiguous
            assert y.flags.c_contiguous
            X[...] = y[...] = -1
    assert pair[0].min() == 0


def test_many_bytes_come_in_several_pieces(pair, monkeypatch):
    whole = list(batches(pair, 2, rng=0))
    monkeypatch.setattr("microfw.data.dataset.GATHER", 60)
    for (X, y), (other_X, other_y) in zip(whole, batches(pair, 2, rng=0), strict=True):
        np.testing.assert_array_equal(X, other_X)
        np.testing.assert_array_equal(y, other_y)


def test_drop_last(pair):
    assert [len(y) for _, y in batches(pair, 4, drop_last=True)] == [4, 4]
    assert list(batches(pair, 12, drop_last=True)) == []


def test_the_order_is_that_of_rng(pair):
    def order(rng):
        return [y.tolist() for _, y in batches(pair, 4, rng=rng)]

    assert order(1) == order(1) != order(2)
    rng = np.random.default_rng(1)
    assert order(1) == order(rng) != order(rng)


@pytest.mark.parametrize("skip", [-1, True, 2.0, None])
def test_skip_is_a_number_of_batches(pair, skip):
    with raises(ArgumentError, f"batches: expected skip to be an integer of at least 0, got {skip!r}"):
        batches(pair, 3, skip=skip)


@pytest.mark.parametrize("name", ["shuffle", "drop_last"])
@pytest.mark.parametrize("value", ["no", 1, None])
def test_flags_of_batches_are_true_or_false(pair, name, value):
    with raises(ArgumentError, f"batches: expected {name} to be True or False, got {value!r}"):
        batches(pair, 3, **{name: value})
    assert len(list(batches(pair, 3, **{name: np.bool(False)}))) == 4


@pytest.mark.parametrize("size", [0, -1, 2.0, True, "32", None])
def test_bad_batch_size_is_told_at_once(pair, size):
    text = f"batches: expected batch_size to be a positive integer, got {size!r}; 32 is a good start"
    with raises(ArgumentError, text):
        batches(pair, size)


def test_bad_pairs(pair):
    with raises(ArgumentError, "batches: expected a Dataset or a pair (X, y), got ndarray"):
        batches(pair[0])
    with raises(ShapeError, "batches: expected X and y of the same length, got shapes (11, 2) and (10,)"):
        batches((pair[0], pair[1][1:]))
    with raises(DataError, "batches: expected at least one row, got X of shape (0, 2)"):
        batches((pair[0][:0], pair[1][:0]))
    with pytest.raises(MicrofwError):
        batches((1.0, 2.0))


def test_masked_entries_are_not_trained_on():
    X = np.ma.masked_array(np.ones((3, 2)), [[0, 0], [0, 1], [0, 0]])
    with pytest.raises(
        DataError, match=r"^Dataset: expected X without masked entries, got some; pass X.filled\(value\)$"
    ):
        Dataset(X, [0, 1, 0])
    assert Dataset(X.filled(0.5), [0, 1, 0]).X[1, 1] == 0.5


def test_one_large_label_is_refused_before_memory_is_taken():
    with pytest.raises(DataError, match=r"labels below 1,000,000, got 4294967296; number the classes with np.unique"):
        mf.data.Dataset(np.ones((3, 2)), [0, 1, 2**32])
    with pytest.raises(DataError, match=r"labels below 1,000,000, got 9223372036854775808; number the classes"):
        mf.data.Dataset(np.ones((2, 2)), np.array([0, 2**63], np.uint64))
