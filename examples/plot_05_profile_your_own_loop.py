"""
Profile a loop of your own
==========================

You need no Trainer to profile. In your own loop, ``with mf.Profiler(model)`` observes the engine: a step ends at
``optimizer.step()``, an epoch at ``end_epoch()``.
"""

# %%
# The loop
# --------

import numpy as np

import microfw as mf
from microfw import nn, optim

train, test = mf.data.load("digits", rng=0)
loss_function = nn.CrossEntropyLoss()


def network():
    rng = np.random.default_rng(0)
    return nn.Sequential(nn.Dense(64, 32, rng=rng), nn.ReLU(), nn.Dense(32, 10, rng=rng))


def profiled(model, epochs=5):
    optimizer = optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1, momentum=0.9)
    with mf.Profiler(model, name="digits") as profiler:
        for epoch in range(epochs):
            for X, y in mf.data.batches(train, batch_size=32, rng=epoch, drop_last=True):
                optimizer.zero_grad()
                loss = loss_function(model(X), y)
                loss.backward()
                optimizer.step()
            profiler.end_epoch()
    return profiler


model = network()
profiler = profiled(model)
print(profiler.report())

# %%
# Reading the session
# -------------------
#
# The report is computed from ``profiler.session``, plain data that your script can read. The backward time of a layer
# is the time of its nodes, measured in the engine around their derivative rules. ``backward`` as a whole has its own
# clock. The time that belongs to no layer is spent between the nodes.


def shares(profiler):
    """Return the share of the backward time of each layer, and of the time between nodes."""
    total = profiler.session.total()
    by_layer = {row.layer: row.backward_ns for row in total.layers()}
    by_layer["between nodes"] = total.untagged_backward_ns
    assert total.untagged_backward_ns >= 0
    return {name: ns / total.backward_ns for name, ns in by_layer.items()}


for name, share in shares(profiler).items():
    print(f"{name:18} {share:6.1%} of the backward time")

# %%
# Freezing a layer
# ----------------
#
# A frozen parameter gets no gradient. If you freeze the first layer, nothing before the last layer needs a gradient, so
# the first layer and its ReLU record no node. If you freeze the last layer, the gradient must still pass through it to
# the layers before: its nodes stay, and only the product for its own weight is not needed.


def counts(profiler):
    """Return nodes, P, steps and the operations of one backward pass, all counted while training ran."""
    epoch = profiler.session.epochs[0]
    tensors, scalars = epoch.counts()
    return tensors.N, scalars.N, scalars.P, scalars.steps, epoch.sum().flops_backward // epoch.observed


table = {"nothing frozen": counts(profiler)}
for k in (0, 2):
    frozen = network()
    frozen[k].requires_grad_(False)
    table[f"layer {k} frozen"] = counts(profiled(frozen, epochs=1))

print(f"{'':15} {'N, tensors':>10} {'N, scalars':>10} {'P':>6} {'steps':>8} {'backward FLOP':>14}")
for name, (ops, nodes, p, steps, flops) in table.items():
    print(f"{name:15} {ops:10} {nodes:10,} {p:6,} {steps:8,} {flops:14,}")

# %%
# Freezing the last layer keeps all nodes. P, steps and operations decrease in both cases:

_, _, *before = table.pop("nothing frozen")
for name, (_, _, *after) in table.items():
    assert all(a < b for a, b in zip(after, before, strict=True)), name
print("freezing a layer lowered P, the steps and the backward FLOP")

# %%
# A figure, if Matplotlib is installed: the backward time of each layer.

try:
    import matplotlib.pyplot as plt
except ImportError:
    print('No figure: it needs Matplotlib, pip install ".[plot]"')
else:
    found = shares(profiler)
    figure, axes = plt.subplots(figsize=(6, 3), layout="constrained")
    bars = axes.barh(list(found), [100 * share for share in found.values()], color="#0072b2")
    axes.bar_label(bars, fmt="%.0f %%", padding=3)
    axes.invert_yaxis()
    axes.set(xlabel="% of the backward time", title="Backward time by layer")
    axes.margins(x=0.12)
    plt.show()
