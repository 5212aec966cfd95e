"""
Backward cost in CI
===================

A model can become slower although all tests pass. Seconds make a bad test, because they differ from machine to machine
and from run to run. Counts make a good test: the number of :term:`nodes <node>` of a step, of :term:`operations` in its
backward pass, and of bytes that it keeps are the same on every machine. On this page you write such a test, break it,
and compare two profiles as in a pull request.
"""

# %%
# A stable test
# -------------

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
# To find the numbers, run the test once with wrong ones. Check the numbers in its message, and copy them.

try:
    assert_cost(model(), X, y, nn.CrossEntropyLoss(), flops=0, saved_bytes=0)
except AssertionError as error:
    print(error)

# %%
# A change of the model
# ---------------------
#
# The activation is now written by hand. It computes the same values, so all tests of values pass.


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
# The layer now has three nodes in place of one, and keeps their arrays. The test reports it at once. The drawing shows
# them: the output of the first layer goes into two nodes.

mf.draw(nn.CrossEntropyLoss()(changed()(X), y), direction="LR")

# %%
# In a pull request
# -----------------
#
# In a workflow keep the profile of the main branch, and compare the profile of the pull request with it::
#
#     microfw profile digits --quiet --json branch.json
#     microfw compare main.json branch.json --fail-above 10% --markdown comment.md
#
# The command exits with code 1 if a count, the whole step or a layer really grew by more than 10 %, or if new layers
# take more than 10 % of the step. Times of two runs made one after the other are corrected for the drift of the
# machine, so only large changes are found. To compare times closely, add ``--rerun``, which runs both again in
# turns. The same in Python:


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
