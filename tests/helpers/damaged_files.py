"""Files that are wrong in a way that has structure, and what must come of them.

Run as a program it makes as many as are asked for: ``python tests/helpers/damaged_files.py 1000000 [SEED]``.
"""

from __future__ import annotations

import copy
import hashlib
import io
import json
import random
import sys
import tempfile
import tracemalloc
import warnings
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np

import microfw as mf
from microfw import nn
from microfw.errors import CheckpointError

META, DIGEST = "microfw.json", "microfw.sha256"
CODES = {"<f4": "F32", "<f8": "F64", "<i8": "I64", "|b1": "BOOL"}
ODD = [
    None, True, False, 0, 1, -1, 3, 2**31, 2**62, 2**63, 10**30, 0.5, 1e308, -0.0, "", "nan", "F64", "<f8", "|O", "nn.Dense",
    "nn.Lambda", "os.system", "np.sin", "np.ctypeslib", "__class__", "\ud800", "0.weight", "x" * 50, [], [[]], {}, [2**40, 2**40],
    [0, 10**18], [-1, 4], {"$array": "0.weight"}, {"$tuple": [1]}, {"$float": "inf"}, {"$same": 0}, {"$like": [2**40]}, {"$function": "eval"},
    {"$module": {"class": "nn.BatchNorm1D", "settings": {"features": 2**28, "eps": 1e-5, "momentum": 0.1, "affine": True}}},
    {"$module": {"class": "nn.Dense", "settings": {"in_features": 2**20, "out_features": 2**20, "bias": True}}},
    {"$module": {"class": "nn.ReLU", "settings": {}}},
]  # fmt: skip


def sample():
    """Return a model with some of everything that a file can hold."""
    rng = np.random.default_rng(5)
    model = nn.Sequential(
        nn.Dense(4, 3, rng=0),
        nn.BatchNorm1D(3),
        nn.Dropout(0.25, rng=rng),
        nn.Residual(nn.Sequential(nn.Dense(3, 3, bias=False, rng=1), nn.Lambda(np.tanh), nn.LayerNorm((3,)))),
        nn.Dropout(0.5, rng=rng),
    )
    model[0].requires_grad_(False)
    model[1].eval()
    return model


def content(path):
    """Return what a file says, read by other means than the library's: metadata and arrays."""
    data = Path(path).read_bytes()
    if Path(path).suffix == ".npz":
        with np.load(io.BytesIO(data), allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        return json.loads(arrays.pop(META)), {k: v for k, v in arrays.items() if k != DIGEST}
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    meta = json.loads(header.pop("__metadata__")[META])
    names = {code: name for name, code in CODES.items()}
    body = data[8 + length :]
    return meta, {
        name: np.frombuffer(body[slice(*entry["data_offsets"])], names[entry["dtype"]]).reshape(entry["shape"])
        for name, entry in header.items()
    }


def plain(path):
    meta, arrays = content(path)
    return json.dumps(meta, sort_keys=True), {k: (v.dtype.str, v.shape, v.tobytes()) for k, v in arrays.items()}


def digest(array):
    text = f"{array.dtype.str} {','.join(map(str, array.shape))}\n".encode()
    return hashlib.sha256(text + array.tobytes()).hexdigest()


class Mutator:
    """Makes mutants of one file."""

    def __init__(self, path, seed):
        self.data = Path(path).read_bytes()
        self.suffix = Path(path).suffix
        self.meta, self.arrays = content(path)
        self.random = random.Random(seed)

    def mutant(self):
        """Return (bytes, whether checksums were recomputed, what was done)."""
        again = self.random.random() < 0.5
        if again:
            kind = self.random.choice([self.change_meta] * 3 + [self.change_arrays] * 2 + [self.change_layout])
            return *kind(True), True, kind.__name__
        kind = self.random.choice([self.change_bytes] * 3 + [self.change_meta, self.change_arrays, self.change_layout])
        return *kind(False), False, kind.__name__

    # What is mutated

    def change_bytes(self, again):
        data = bytearray(self.data)
        r = self.random
        for _ in range(r.choice([1, 1, 1, 2, 5])):
            at = r.choice(
                [
                    r.randrange(len(data) + 1),
                    len(data) - min(r.randrange(60), len(data)),
                    r.randrange(min(64, len(data) + 1)),
                ]
            )
            what = r.randrange(7)
            if what == 0 and at < len(data):
                data[at] ^= 1 << r.randrange(8)
            elif what == 1 and at < len(data):
                data[at] = r.choice([0, 255, 127, 128, r.randrange(256)])
            elif what == 2:
                del data[at:]
            elif what == 3:
                data[at:at] = r.randbytes(r.choice([1, 4, 100]))
            elif what == 4:
                del data[at : at + r.choice([1, 4, 50])]
            elif what == 5:
                data[at : at + 8] = r.choice([0, 1, 2**32 - 1, 2**63 - 1, 2**64 - 1, 10**8, len(data)]).to_bytes(
                    8, "little"
                )
            else:
                other = r.randrange(len(data) + 1)
                data[at : at + 16], data[other : other + 16] = data[other : other + 16], data[at : at + 16]
        return (bytes(data),)

    def change_meta(self, again):
        meta = copy.deepcopy(self.meta)
        for _ in range(self.random.choice([1, 1, 2])):
            meta = self.change_json(meta)
        return (self.pack(meta, self.arrays, again),)

    def change_arrays(self, again):
        arrays = dict(self.arrays)
        r = self.random
        name = r.choice(list(arrays))
        array = arrays[name]
        what = r.randrange(6)
        if what == 0:
            array = np.frombuffer(r.randbytes(array.nbytes), array.dtype).reshape(array.shape)
        elif what == 1:
            array = array.astype(r.choice(list(CODES)))
        elif what == 2:
            array = np.resize(array, r.choice([(2, 2), (0,), (1, 1, 1, 1), (4, 3), (3,)]))
        elif what == 3:
            del arrays[name]
        elif what == 4:
            arrays[r.choice(["extra", "", "../../etc/x", "0.weight ", "1.running_mean", "ä"])] = array
        else:
            array = array.T
        if name in arrays:
            arrays[name] = np.ascontiguousarray(array).reshape(array.shape)
        meta = copy.deepcopy(self.meta)
        if again:
            meta["sha256"] = {k: digest(v) for k, v in arrays.items()}
        return (self.pack(meta, arrays, again),)

    def change_layout(self, again):
        """Change how the file is laid out: its header, or its archive."""
        r = self.random
        if self.suffix == ".npz":
            return (self.other_archive(again),)
        length = int.from_bytes(self.data[:8], "little")
        header = self.change_json(json.loads(self.data[8 : 8 + length]))
        text = json.dumps(header)
        if r.random() < 0.2:
            text = r.choice(
                [text[:-1] + ',"0.weight":1}', "[" * 3000 + text, text * 2, " " + text, text.replace(":", ": ")]
            )
        return (len(text.encode()).to_bytes(8, "little") + text.encode() + self.data[8 + length :],)

    def other_archive(self, again):
        r = self.random
        made = io.BytesIO()
        method = r.choice([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
        source = zipfile.ZipFile(io.BytesIO(self.data))
        with warnings.catch_warnings(), zipfile.ZipFile(made, "w", method) as archive:
            warnings.simplefilter("ignore")  # of names that come twice
            names = source.namelist()
            r.shuffle(names)
            for name in names:
                data = source.read(name)
                if r.random() < 0.2 and name.endswith(".npy"):
                    old, new = r.choice(
                        [
                            (b"<f4", b"|O8"),
                            (b"<f4", b"<f8"),
                            (b"False", b"True "),
                            (b"(3,)", b"(9,)"),
                            (b"(3,)", b"(10**9,)"),
                            (b"}", b","),
                            (b"\x01\x00", b"\x03\x00"),
                            (b"NUMPY", b"NUMPI"),
                        ]
                    )
                    data = data.replace(old, new)
                if r.random() < 0.1:
                    name = r.choice([name + "/", name.upper(), "a/" + name, names[0]])
                if r.random() < 0.02:
                    data += bytes(3_000_000)  # a bomb, where it is compressed
                archive.writestr(name, data)
            if r.random() < 0.2:
                archive.comment = b"hello"
        return made.getvalue()

    def change_json(self, value):
        """Change one place of a JSON value, each as likely."""
        r = self.random
        places = []

        def walk(holder):
            for key in holder if isinstance(holder, dict) else range(len(holder)):
                places.append((holder, key))
                if isinstance(holder[key], dict | list):
                    walk(holder[key])

        walk(value)
        if not places:
            return r.choice(ODD)
        holder, key = r.choice(places)
        what = r.randrange(8)
        if what <= 3:
            holder[key] = copy.deepcopy(r.choice(ODD))
        elif what == 4:
            del holder[key]
        elif what == 5 and isinstance(holder, dict):
            holder[r.choice(["x", "$tuple", "$array", "training", "class", "0.bias", "__metadata__"])] = holder[key]
        elif what == 6:
            other, there = r.choice(places)
            holder[key] = (
                copy.deepcopy(other[there])
                if there in (other if isinstance(other, dict) else range(len(other)))
                else None
            )
        else:
            old = holder[key]
            holder[key] = old + r.choice([1, -1, 1000]) if type(old) in (int, float) else {"$tuple": [old]}
        return value

    # Packing

    def pack(self, meta, arrays, again):
        text = json.dumps(meta, separators=(",", ":"))
        checksum = hashlib.sha256(
            (text if again else json.dumps(self.meta, separators=(",", ":"))).encode()
        ).hexdigest()
        notes = {META: text, DIGEST: checksum}
        from microfw.serialization import npz, safetensors

        maker = npz if self.suffix == ".npz" else safetensors
        return b"".join(bytes(piece) for piece in maker.pieces(arrays, notes))


def campaign(folder, suffix, count, seed, memory=True):
    """Load mutants, and return how often each result occurred.

    Raises
    ------
    AssertionError
        If one loads as something else than it says, raises something else, or takes too much memory.
    """
    original = Path(folder, f"sample{suffix}")
    mf.save(original, sample())
    mutator = Mutator(original, seed)
    first = plain(original)
    path, again = Path(folder, f"mutant{suffix}"), Path(folder, f"again{suffix}")
    came = Counter()
    if memory:
        tracemalloc.start()
    for k in range(count):
        data, computed, what = mutator.mutant()
        path.write_bytes(data)
        if memory:
            tracemalloc.reset_peak()
            before = tracemalloc.get_traced_memory()[0]
        try:
            model = mf.load(path)
        except CheckpointError as error:
            came["refused", what, computed] += 1
            assert str(error).startswith(f"loading {path}: expected "), error
            model = None
        except BaseException as error:
            raise AssertionError(f"mutant {k} of seed {seed}, {what}: {type(error).__name__}: {error}") from error
        if memory:
            used = tracemalloc.get_traced_memory()[1] - before
            assert used < 2 * len(data) + (16 << 20), f"mutant {k} of seed {seed}, {what}: {used:,} bytes"
        if model is not None:
            came["loaded", what, computed] += 1
            save_plainly(again, model)
            # Without recomputed checksums it must be the original, with them it must be what it says.
            assert plain(again) == (plain(path) if computed else first), f"mutant {k} of seed {seed}, {what}"
    if memory:
        tracemalloc.stop()
    return came


def save_plainly(path, model):
    """Save without forcing to the disk, for speed."""
    from microfw.serialization import atomic_write as durable

    kept = durable.atomic_write
    durable.atomic_write = lambda path, pieces: Path(path).write_bytes(b"".join(bytes(piece) for piece in pieces))
    try:
        mf.save(path, model)
    finally:
        durable.atomic_write = kept


if __name__ == "__main__":
    count, seed = int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0
    with tempfile.TemporaryDirectory() as folder:
        for suffix in (".npz", ".safetensors"):
            for (end, what, computed), times in sorted(campaign(folder, suffix, count // 2, seed, False).items()):
                print(f"{suffix:12} {what:13} checksums {'new' if computed else 'old'}  {end:8} {times:8,}")
