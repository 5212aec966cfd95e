"""What generated code of an op saves: a forward and backward pass of one op, generated and by `apply` and `visit_edges`.

python benchmarks/bench_codegen.py [--rounds 31]
"""

from __future__ import annotations

import os

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(name, "1")

import argparse
import statistics
import timeit

import numpy as np

import microfw as mf
from microfw.autograd.apply import apply
from microfw.autograd.backward import backward_pass
from microfw.autograd.registry import OPS

RNG = np.random.default_rng(0)


def leaf(*shape):
    return mf.tensor(RNG.normal(size=shape).astype("f4"), requires_grad=True)


CASES = {
    "linear (32, 64) x (64, 64)": (
        "linear",
        (mf.tensor(RNG.normal(size=(32, 64)).astype("f4")), leaf(64, 64), leaf(64)),
    ),
    "add of 3 entries": ("add", (leaf(3), leaf(3))),
}


def both_passes(call, inputs):
    y = call(*inputs)
    backward_pass([(y._node, np.ones(y.shape, y.dtype))])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=31)
    rounds = parser.parse_args().rounds
    print(f"{'op':30}{'generated':>12}{'apply':>12}{'ratio':>8}")
    for title, (name, inputs) in CASES.items():
        op = OPS[name]
        calls = op.call, lambda *xs, op=op: apply(op, xs, {})
        times = [[timeit.timeit(lambda call=call, inputs=inputs: both_passes(call, inputs), number=300) / 300 for call in calls]
                 for _ in range(rounds)]  # fmt: skip
        fast, plain = (statistics.median(column) * 1e6 for column in zip(*times, strict=True))
        print(f"{title:30}{fast:9.1f} us{plain:9.1f} us{plain / fast:8.2f}")


if __name__ == "__main__":
    main()
