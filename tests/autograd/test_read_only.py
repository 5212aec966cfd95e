"""Arrays that were read from a Tensor or handed to it: no write to them reaches the graph."""

from __future__ import annotations

import io
import itertools
import pickle
import struct
import threading
import warnings

import numpy as np
import pytest

import microfw as mf
from microfw import nn, optim
from microfw.errors import ArgumentError, GraphError
from tests.helpers.arrays import SUBJECTS, used
from tests.helpers.thinning import thinned

READ_ONLY = {
    "data of a leaf": lambda x: x.data,
    "numpy() of a leaf": lambda x: x.numpy(),
    "np.asarray of a leaf": lambda x: np.asarray(x),
    "data of a result": lambda x: (x * 2.0).data,
    "numpy() of a result": lambda x: (x * 2.0).numpy(),
    "data of a view": lambda x: x[:2].data,
    "data of a transposed leaf": lambda x: x.T.data,
    "data of a broadcast leaf": lambda x: np.broadcast_to(x, (2, 3)).data,
    "a view of data": lambda x: x.data[:2],
    "data of a detached leaf": lambda x: x.detach().data,
    "data of a detached result": lambda x: (x * 2.0).detach().data,
    "data of a reshaped result": lambda x: (x * 2.0).reshape(3, 1).data,
}


@pytest.mark.parametrize("name", READ_ONLY)
@pytest.mark.parametrize("kind", ["leaf", "parameter", "owned parameter", "not trained"])
def test_arrays_that_were_read_are_read_only(name, kind):
    x = mf.tensor([1.0, 2.0, 3.0], requires_grad=kind != "not trained")
    if "parameter" in kind:
        x = nn.Parameter([1.0, 2.0, 3.0], np.float64)
    if kind == "owned parameter":
        optim.SGD([x], lr=0.1)
    with mf.no_grad():
        array = READ_ONLY[name](x)
    with pytest.raises(ValueError, match="read-only"):
        array[...] = 0
    with pytest.raises(ValueError, match=r"read-only|cannot be"):
        np.add(array, 1, out=array)
    if name != "data of a leaf":
        with pytest.raises(ValueError, match="read-only"):
            array += 1


def test_operators_in_place_on_the_data_of_a_leaf_write_to_the_leaf():
    p = nn.Parameter([1.0, 2.0], np.float64)
    y = (p * p).sum()
    values = p.data
    values -= 0.5
    assert p.numpy().tolist() == values.tolist() == [0.5, 1.5]
    with pytest.raises(GraphError, match="written"):
        y.backward()
    with pytest.raises(ValueError, match="read-only"):
        p.data[:1] -= 0.5


def test_the_error_for_a_write_to_entries_of_a_leaf_says_how_to_assign_them():
    p = nn.Parameter([2.0, 1.0])
    text = (
        "^Tensor.data: expected no writes to entries, .*, values = t.data.copy\\(\\), and assign it: t.data = values$"
    )
    for write in (
        lambda: p.data.__setitem__(0, 42),
        lambda: p.data.fill(0),
        lambda: p.data.sort(),
        lambda: p.data[:].__iadd__(1),
    ):
        with pytest.raises(ArgumentError, match=text):
            write()
    assert p.tolist() == [2.0, 1.0]
    made = np.empty_like(p.data)
    made[0], made[1:] = 3, 4
    made += 1
    assert made.tolist() == [4.0, 5.0]


# Each way that NumPy and Python offer to write to an array


def unlock(array):
    array.setflags(write=True)
    array[...] = 77


def write_to_base(array):
    base = array.base
    while base is not None:
        try:
            base[...] = 77
        except (TypeError, ValueError, NotImplementedError):
            base.setflags(write=True)  # a memoryview has none
            base[...] = 77
        base = getattr(base, "base", None)


def flag(array):
    array.flags.writeable = True
    array.fill(77)


def reshape_in_place(array):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        array.shape = (array.size,)
        array.dtype = np.int64
        array.strides = (0,)


def in_a_thread(array):
    thread = threading.Thread(target=lambda: unlock(array), daemon=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        thread.run()  # raises here what it would there


class Pretend:
    """An object that shows an array's memory without its flags, as NumPy's own `as_strided` does."""

    def __init__(self, array):
        self.__array_interface__ = array.__array_interface__
        self.base = array


WAYS = {
    "assignment": lambda a: a.__setitem__(..., 77),
    "setflags": unlock,
    "flags.writeable": flag,
    "base": write_to_base,
    "setflags of a slice": lambda a: unlock(a[:1]),
    "setflags of a view": lambda a: unlock(a.view()),
    "setflags of a transposed view": lambda a: unlock(a.T),
    "setflags of a reshaped view": lambda a: unlock(a.reshape(-1)),
    "setflags of a diagonal": lambda a: unlock(np.diagonal(np.atleast_2d(a))),
    "base of a slice": lambda a: write_to_base(a[:1]),
    "as_strided": lambda a: np.lib.stride_tricks.as_strided(a, writeable=True).__setitem__(..., 77),
    "as_strided, unlocked": lambda a: unlock(np.lib.stride_tricks.as_strided(a)),
    "sliding windows": lambda a: np.lib.stride_tricks.sliding_window_view(a, 1, 0, writeable=True).__setitem__(..., 77),
    "broadcast_arrays": lambda a: np.broadcast_arrays(a, a)[0].__setitem__(..., 77),
    "array interface": lambda a: unlock(np.asarray(Pretend(a))),
    "dlpack": lambda a: unlock(np.from_dlpack(a)),
    "memoryview": lambda a: memoryview(a).cast("B").__setitem__(0, 77),
    "data of the array": lambda a: np.asarray(a.data).__setitem__(..., 77),
    "buffer of a new array": lambda a: unlock(np.ndarray(a.shape, a.dtype, a)),
    "frombuffer": lambda a: unlock(np.frombuffer(np.ascontiguousarray(a), a.dtype)),
    "flat": lambda a: a.flat.__setitem__(0, 77),
    "base of flat": lambda a: unlock(a.flat.base),
    "real": lambda a: unlock(a.real),
    "nditer": lambda a: [x.__setitem__(..., 77) for x in np.nditer(a, op_flags=["readwrite"])],
    "out of a ufunc": lambda a: np.add(a, 77, out=a),
    "out of a reduction": lambda a: np.cumsum(a, 0, out=a),
    "out of matmul": lambda a: np.matmul(np.ones((3, 3)), np.ones((3, 2)), out=np.atleast_2d(a)),
    "ufunc.at": lambda a: np.add.at(a, 0, 77),
    "in-place operator": lambda a: a.__iadd__(77),
    "copyto": lambda a: np.copyto(a, 77),
    "put": lambda a: np.put(a, 0, 77),
    "place": lambda a: np.place(a, a == a, 77),
    "putmask": lambda a: np.putmask(a, a == a, 77),
    "put_along_axis": lambda a: np.put_along_axis(a, np.zeros((1,) * a.ndim, int), 77, 0),
    "fill_diagonal": lambda a: np.fill_diagonal(np.atleast_2d(a), 77),
    "nan_to_num": lambda a: np.nan_to_num(np.log(a - a, out=a), copy=False),
    "sort": lambda a: a[::-1].sort(0),
    "partition": lambda a: a[::-1].partition(1, 0),
    "byteswap": lambda a: a.byteswap(inplace=True),
    "resize": lambda a: a.resize(1),
    "generator.random": lambda a: np.random.default_rng(0).random(out=a),
    "generator.shuffle": lambda a: np.random.default_rng(0).shuffle(a),
    "shape, dtype and strides": reshape_in_place,
    "__setstate__": lambda a: a.__setstate__((1, (1,), np.dtype(float), False, b"\0" * 8)),
    "a read of a file": lambda a: io.BytesIO(b"\1" * 999).readinto(a),
    "struct.pack_into": lambda a: struct.pack_into("d", a, 0, 77.0),
    "pickled without a copy": lambda a: unlock(pickle.loads(pickle.dumps(a, 5, buffer_callback=(kept := []).append), buffers=kept)),
    "from another thread": in_a_thread,
}  # fmt: skip

READS = {"data": lambda t: t.data, "numpy()": lambda t: t.numpy(), "asarray": np.asarray}


def _read(read, t):
    """Read the values where no gradient can be lost."""
    with mf.no_grad():
        return read(t)


@pytest.mark.parametrize(("subject", "way"), thinned(itertools.product(SUBJECTS, WAYS), 5))
def test_writes_to_arrays_that_were_read_do_not_reach_a_tensor(way, subject):
    """None of them changes a value, or the gradient is refused."""
    for read in READS.values():
        t = SUBJECTS[subject]()
        before = np.array(t.data)
        other, y = used(t)
        try:
            WAYS[way](_read(read, t))
        except (ValueError, TypeError, BufferError, IndexError, AttributeError, NotImplementedError):
            pass  # each in its own words
        if way == "in-place operator" and not np.array_equal(t.data, before):  # as in p.data += 77, which a leaf allows
            assert subject in ("leaf", "parameter", "owned parameter", "constant")
            with pytest.raises(GraphError, match="written"):
                y.backward()
            continue
        y.backward()
        np.testing.assert_array_equal(t.data, before)
        assert t.shape == before.shape and t.dtype == before.dtype
        np.testing.assert_array_equal(other.grad, before**2)


def test_views_taken_before_a_write_do_not_reach_the_graph():
    p = mf.tensor([1.0, 2.0], requires_grad=True)
    view = p.data
    y = (p * p).sum()
    p.data = [5.0, 6.0]
    np.testing.assert_array_equal(view, [5, 6])  # a view shows the new values
    with pytest.raises(GraphError, match="a leaf of shape"):
        y.backward()
