"""
Backward cost in CI
===================

A model can become slower without any test failing. Seconds make a bad test: the machine that runs it is never the
same. Counts make a good one: how many nodes a step records, how many operations its backward pass takes and how many
bytes it keeps are the same everywhere, each time. This page writes such a test, breaks it, and then compares two
profiles the way a pull request would.
"""

# %%
# A test that holds still
# -----------------------

import numpy as np

import microfw as mf
from microfw import nn
from microfw.profiler import assert_cost

X, y = np.zeros((32, 64), np.float32), np.zeros(32, int)


def model():
    return nn.Sequential(nn.Dense(64, 32, rng=0), nn.ReLU(), nn.Dense(32, 10, rng=1))


def test_cost():
    assert_cost(model(), X, y, nn.CrossEntropyLoss(), nodes=4, parameters=2410, steps=8)


test_cost()

# %%
# What to expect in it? Run it once with a wrong number, look whether what it says is right, and copy it.

try:
    assert_cost(model(), X, y, nn.CrossEntropyLoss(), flops=0, saved_bytes=0)
except AssertionError as error:
    print(error)

# %%
# Somebody changes the model
# --------------------------
#
# The activation is now written out by hand. It computes the same, and the tests of values all pass.


class ByHand(nn.Module):
    def forward(self, x):
        return (x + abs(x)) / 2


def changed():
    return nn.Sequential(nn.Dense(64, 32, rng=0), ByHand(), nn.Dense(32, 10, rng=1))


assert np.allclose(model()(X).data, changed()(X).data)
try:
    assert_cost(changed(), X, y, nn.CrossEntropyLoss(), nodes=4, parameters=2410, steps=8)
except AssertionError as error:
    print(error)

# %%
# Three nodes where there was one, and the arrays that they keep. The test says so before anyone waits for it.
#
# In a pull request
# -----------------
#
# In a workflow the profile of the main branch is kept, and the one of the branch is compared with it::
#
#     microfw profile digits --quiet --json branch.json
#     microfw compare main.json branch.json --fail-above 10% --markdown comment.md
#
# It ends with 1 if a count grew by more than 10 %, or if a layer's share of the step really did. It does not compare
# seconds, since the two runs were not made on one machine at one time. Where it should, ``--rerun`` makes both runs
# again, alternately. The same in Python:


def profile(model):
    profiler = mf.Profiler(model)
    optimizer = mf.optim.SGD(model.parameters(), lr=0.1)
    with profiler:
        for _ in range(12):
            for _ in range(20):
                optimizer.zero_grad()
                nn.CrossEntropyLoss()(model(X), y).backward()
                optimizer.step()
            profiler.end_epoch()
    return profiler.session


found = mf.profiler.compare(profile(model()), profile(changed()))
print(found.markdown())
