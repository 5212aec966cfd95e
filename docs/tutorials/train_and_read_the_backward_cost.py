"""
Train a model and read what its backward pass costs
===================================================

Backpropagation is often explained in one sentence: *it computes all derivatives in about N + P steps; without the
graph the chain rule takes up to N × P.* :doc:`/n_plus_p` explains the sentence. On this page you train a network, count
its N and P, and check the sentence on a whole training run.

You need to know what a derivative is, to read a little Python, and a quarter of an hour. The page is a script, so you
can run it with your own model.

.. admonition:: Common misreadings

   - **"N is the number of neurons."** No: N is the number of nodes in the graph of computations. A neuron has several
     nodes: a product and an addition for each input, and its activation.
   - **"P is the number of features."** No: P is the number of trainable scalars, the entries of all weights
     and biases. The features are constants; no derivative is computed for them.
   - **"The derivatives are computed in the forward pass."** No: the forward pass computes values, and saves some of
     them. The backward pass computes derivatives.
   - **"N × P is what other methods cost."** Some take more, others far fewer: they need not compute everything
     again for each parameter.
"""

# %%
# Train
# -----
#
# The data are scikit-learn's digits, 64 pixels each. The profiler is one of the Trainer's hooks. Its counts are no
# estimates: the engine notifies the profiler of each op and of each derivative rule that runs.

import numpy as np

import microfw as mf
from microfw import nn, optim

rng = np.random.default_rng(0)
train, test = mf.data.load("digits", rng=0)

model = nn.Sequential(nn.Dense(64, 32, rng=rng), nn.ReLU(), nn.Dense(32, 10, rng=rng))
profiler = mf.Profiler(name="digits")
trainer = mf.Trainer(
    model,
    nn.CrossEntropyLoss(),
    optim.SGD(model.parameters(), lr=0.1, momentum=0.9),
    metrics=["accuracy"],
    hooks=[profiler],
)
options = {"validation": test, "rng": rng, "progress": False}
history = trainer.fit(train, epochs=8, batch_size=32, drop_last=True, **options)  # full batches: all steps are alike
print(f"test accuracy: {history[-1]['val_accuracy']:.1%}")

# %%
# The command ``microfw profile digits --epochs 8`` does nearly the same, and prints a short report. This page explains
# the full one:

print(profiler.report(full=True))

# %%
# N: a neuron is several nodes
# ----------------------------
#
# Take one neuron with three inputs, ``tanh(w · x + b)``, and compute it number by number. Each operation on numbers is
# a node, and the profiler counts the nodes. The profiler counts by steps, so the neuron gets an optimizer, and its
# output is the loss.

features = [0.5, -1.0, 2.0]
weights = [nn.Parameter(w) for w in (0.1, 0.2, 0.3)]
bias = nn.Parameter(0.4)
optimizer = optim.SGD([*weights, bias], lr=0.1)

with mf.Profiler() as neuron_profiler:
    so_far = bias
    for w, x in zip(weights, features, strict=True):
        so_far = so_far + w * x
    neuron = np.tanh(so_far)
    neuron.backward()
    optimizer.step()

one_neuron = neuron_profiler.session.epochs[0]
for row in one_neuron.rows:
    print(f"{row.op:9} {row.nodes} nodes, {row.accumulated} gradients added into parameters")
print(f"neurons 1, features {len(features)}, N {one_neuron.sum().nodes}, P {one_neuron.parameters}")

# %%
# For one neuron N counts the products, the additions and the activation. P counts the weights and the bias.
#
# A framework does not compute number by number. Its nodes are operations on whole arrays: one node has the dot
# products and biases of all neurons in a layer, for all rows of the batch. So you can count in two ways. The report
# shows both and never mixes them: **in tensors** (op nodes, and parameter arrays) and **in scalars** (a node for each
# operation on numbers, and trainable numbers).

total = profiler.session.total()
steps = total.observed
step = total.sum()
tensors, scalars = total.counts()
N, P = scalars.N, scalars.P
print(f"in tensors: N = {tensors.N}, P = {tensors.P}")
print(f"in scalars: N = {N:,}, P = {P:,}")
print(f"P from the model itself: {sum(p.size for p in model.parameters()):,}")

# %%
# In scalars N grows with the batch, because the model computes each row separately. P does not grow.
#
# Forward computes no derivative
# ------------------------------
#
# The forward pass applies each op once and reads each parameter: about N + P steps. It computes values, and saves those
# that the derivatives need (the column *saved*). To observe this, here is an op that prints a line when its value is
# computed, and another one when its derivative is computed. The example uses its output three times.


def derivative(g):
    print("    its derivative is computed")
    return g


@mf.op(vjp=derivative)
def printing(x):
    """Return a copy of a number, and print a line."""
    print("    its value is computed")
    return x.copy()


x = mf.tensor(3.0, requires_grad=True)
print("forward")
y = printing(x)
z = y * y + y
print("backward")
z.backward()
print("gradient:", x.grad)

# %%
# Backward visits each node once
# ------------------------------
#
# The backward pass starts at the loss and visits the nodes, the newest first. It visits a node after all nodes that use
# its output. Then the gradient of the node is complete, the pass calls the node's rule once, and passes the result on.
# So it differentiates nothing twice, for any number of paths through a node.
#
# To see why this matters, double a number repeatedly. Each doubling doubles the number of paths from the end to the
# start, and increases the number of rules called by one.

start = nn.Parameter(1.0)
optimizer = optim.SGD([start], lr=1e-12)
for doublings in (1, 2, 10, 40):
    optimizer.zero_grad()
    with mf.Profiler() as sum_profiler:
        end = start
        for _ in range(doublings):
            end = end + end
        end.backward()
        optimizer.step()
    counted = sum_profiler.session.epochs[0].sum()
    paths = 2**doublings
    print(f"{doublings:2} doublings: {paths:,} paths, {counted.rules} rules called, gradient {start.grad:,.0f}")

# %%
# The gradient is right, because the pass adds up the contributions of all paths before it visits the node. This is why
# backpropagation needs so few steps.
#
# N + P
# -----
#
# So, counted in tensors, one backward pass calls one rule for each of the N nodes, and adds gradients to each of the P
# arrays. That is N + P. This model uses each array once, so the pass adds to each array once:

print(f"N + P = {tensors.N} + {tensors.P} = {tensors.N + tensors.P}")
print(f"counted: {tensors.rules} rules called + {tensors.accumulated} gradients added = {tensors.steps}")
assert (tensors.rules, tensors.accumulated) == (tensors.N, tensors.P)

# %%
# Nodes that do not lead to the loss are not visited. If a model uses a parameter several times, each further use adds
# one addition.
# Nodes before which no trained parameter lies, as in a frozen first layer, are not part of N. A frozen *last* layer
# keeps its nodes: gradients must pass through it.
#
# In scalars each of the 32 rows uses each parameter, so each row adds a gradient to it: 32 × P additions in place of P.

print(f"N + P in scalars: {N + P:,}")
print(f"counted: {scalars.rules:,} rules + {scalars.accumulated:,} gradients added = {scalars.steps:,}")
print(f"{scalars.steps / (N + P):.2f} times N + P")
assert scalars.accumulated == 32 * P

# %%
# *Operations* are another number. A derivative can take more arithmetic than its node: a product of two numbers has two
# products as its derivatives, but is one node.

operations = step.flops_backward // steps
print(f"operations of one backward pass: {operations:,}")

# %%
# The cost of a backward pass is a small multiple of the cost of the forward pass, *for any P*. This is true in general;
# the sum N + P is its simplest form.
#
# Without the graph: N × P, as a bound
# ------------------------------------
#
# Without a graph you compute each derivative separately. The chain rule visits at most N nodes for each of P
# parameters. Differences change one parameter and compute all N nodes again: N × (P + 1) if one-sided, 2 × N × P if
# central.

print(f"N × P in scalars: {N * P:,}")
print(f"{N * P / scalars.steps:,.0f} times the steps of the backward pass")

# %%
# This is a product of two counts, and was not run, so the report labels it *predicted*. Starting over may take fewer: a
# weight of the last layer does not change the output of the first layer, so it is enough to compute again what comes
# after the parameter. For this model:

layers = total.layers()  # in the order in which they ran
careful = 0
for k, layer in enumerate(layers):
    own = sum(p.size for p in model[int(layer.layer)].parameters()) if layer.layer.isdigit() else 0
    after = sum(later.scalar_nodes // steps for later in layers[k:])
    print(f"{layer.layer:17} {own:5,} parameters, each with {after:9,} nodes from here to the loss")
    careful += own * after
print(f"redoing only what comes after: {careful:,}, {careful / (N * P):.0%} of N × P")
print(f"that is {careful / scalars.steps:,.0f} times the steps of the backward pass")

import matplotlib.pyplot as plt

ways = {
    "N: nodes": N,
    "N + P": N + P,
    "backward, counted": scalars.steps,
    "redoing what comes after": careful,
    "N × P": N * P,
}
figure, axes = plt.subplots(figsize=(7, 2.8), layout="constrained")
bars = axes.barh(
    list(ways), [count / 1e6 for count in ways.values()], color=["#0072b2", "#56b4e9", "#0072b2", "#e69f00", "#d55e00"]
)
axes.bar_label(bars, labels=[f"{count:,}" for count in ways.values()], padding=4)
axes.set(xlabel="nodes visited and gradients added, in millions")
axes.margins(x=0.25)
axes.invert_yaxis()
plt.show()

# %%
# The distance between N × P and the real count depends on the model. For every model one grows with the product, and
# the other with the sum.
#
# Both methods give the same derivatives. Here is one weight, by differences, with one forward pass for each side:

double = nn.Sequential(nn.Dense(64, 32, rng=1), nn.ReLU(), nn.Dense(32, 10, rng=2)).astype(np.float64)
X, y = train.X[:32].astype(np.float64), train.y[:32]
loss_function = nn.CrossEntropyLoss()
loss_function(double(X), y).backward()
weight, h = double[0].weight, 1e-5
values, sides = weight.data.copy(), []
for sign in (1, -1):
    moved = values.copy()
    moved[20, 3] += sign * h
    weight.data = moved
    with mf.no_grad():
        sides.append(loss_function(double(X), y).item())
print(f"by the graph {weight.grad[20, 3]:.9f}, by differences {(sides[0] - sides[1]) / (2 * h):.9f}")

# %%
# Reading the report, column by column
# ------------------------------------
#
# **Epochs.** *forward* is the time in the model and the loss, *backward* the time in ``loss.backward()``, *update* the
# time in ``optimizer.step()``, *data* the time between one step and the next, and *total* the time of the whole epoch
# with validation. The next two columns are backward / forward, *in time* and *in FLOP*, which are operations. *3F - F1*
# shows whether the number of matrix products matches the formula 3F − F₁; a section below explains it.
#
# **Counts.** The sums of the sections above, for one step, in tensors and in scalars. *E* is the number of edges with a
# gradient, from a node to one of its inputs.
#
# **Layers.** One row for each layer, per step. *nodes* and *P* are those of the layer. The first *forward* and
# *backward* are times; the backward time of a layer is the time of its nodes, measured in the engine. *share* is the
# layer's share of the backward pass. The second *forward* and *backward* are operations; a multiply-add counts as two.
# *FLOP/P* is the number of operations for one trainable number. *reuse* is the number of products in which a step uses
# each weight: in a dense layer one for each row of the batch. *saved* are the bytes kept for the backward pass. Each
# array counts where it was kept first, so a layer whose input an earlier layer has kept shows 0.
#
# *untagged* is the rest of the time: ``backward`` as a whole has its own clock, and the time that
# belongs to no node is spent between the nodes. So the rows together are the whole backward time, and count nothing
# twice:

for row in total.layers():
    print(f"{row.layer:17} {row.backward_ns:11,} ns")
print(f"{'between nodes':17} {total.untagged_backward_ns:11,} ns")
print(f"{'backward':17} {total.backward_ns:11,} ns")
assert total.untagged_backward_ns >= 0

# %%
# Profiling takes time, too. The last lines of the report have the cost on this machine.
#
# Backward / forward
# ------------------
#
# A rule of thumb says that backward costs twice as much as forward. Each matrix product of the forward pass needs two
# in the backward pass: one for the gradient of the weight, one for the gradient of the layer's input. But the input of
# the *first* layer is data, which needs no gradient. In a small network this is a large part:

print(f"in operations: {step.flops_backward / step.flops_forward:.2f}")
print(f"in seconds:    {total.backward_ns / total.forward_ns:.2f}")
for row in total.layers():
    if row.products_forward:
        print(f"layer {row.layer}: {row.products_backward / row.products_forward:.0f} products back for one forward")

# %%
# In a model of this size, seconds do not follow operations. A call of NumPy takes as long as the arithmetic, and the
# forward pass also checks labels, shapes and NaN. These are the seconds of profiled steps, most of them
# :term:`replayed <replay>`; :doc:`/n_plus_p` times eager steps without a profiler, and ``microfw law`` eager steps of
# one row, so their numbers differ. Cross-entropy's rule makes no NumPy call, so a replay leaves it out; an eager visit
# to its node takes some microseconds, as one to any node.
#
# The report shows (forward + backward) / forward too, which is 1 more.
#
# 3F − F₁
# -------
#
# So you can predict the operations in matrix products of a training step: F forward and 2F backward, less F₁, which the
# first layer does not need. In products backward / forward is 2 − F₁/F. Predict the operations from the shapes, and
# compare with the engine's count:

batch = 32
forward_products = {name: 2 * batch * w.shape[0] * w.shape[1] for name, w in model.named_parameters() if w.ndim == 2}
F, F1 = sum(forward_products.values()), next(iter(forward_products.values()))
counted = (step.products_forward + step.products_backward) // steps
print(f"predicted: 3F - F1 = 3 × {F:,} - {F1:,} = {3 * F - F1:,}")
print(f"counted:             {counted:,}")
assert counted == 3 * F - F1

# %%
# The limits of all this
# ----------------------
#
# - N + P counts steps. The time of a step depends on its size: a node may be one scalar or a million. So the report has
#   measured times, not times computed from counts.
# - Backpropagation is fast, but needs memory: it keeps the arrays that forward *saved* until the backward pass.
# - Backpropagation is fast for derivatives of *one* output. For m outputs it takes m backward passes. Forward mode
#   (``mf.jvp``) takes about one forward pass for each number that you differentiate by.
#
# Exercises
# ---------
#
# Guess first, then run.
#
# 1. Make the batch four times as large. Which of N and P, in tensors and in scalars, change?
# 2. Add a third ``Dense`` layer. How does backward / forward in operations change, and why?
# 3. Freeze the first layer with ``model[0].requires_grad_(False)``. How do N, P, E and 3F − F₁ change?
#    :ref:`sphx_glr_gallery_examples_plot_05_profile_your_own_loop.py` has the answer.
