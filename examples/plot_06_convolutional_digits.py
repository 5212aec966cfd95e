"""
Read digits with a convolutional net
====================================

A convolution applies the same few weights at every position of an image. So it has far fewer parameters than a dense
layer with the same number of outputs, and does far more arithmetic for each parameter. Here a small convolutional net
reads handwritten digits better than the dense nets of the other examples, and the profile shows what a parameter costs
in both kinds of layers.
"""

# %%
# Images
# ------
#
# Layers for images take arrays of shape (N, C, H, W): images, channels, rows, columns. The digits come as rows of
# 64 numbers, so they are reshaped to one channel of 8 × 8.

import numpy as np

import microfw as mf
from microfw import nn, optim

train, test = mf.data.load("digits", test_size=0.25, rng=0)
images, labels = train.X.reshape(-1, 1, 8, 8), train.y
print(f"{len(images)} images to learn from, {len(test)} to test on, each of shape {images.shape[1:]}")

# %%
# Model
# -----
#
# Padding "same" keeps the size of the images; pooling halves it. After two convolutions, the dense layer gets 32
# channels of 4 × 4 positions.

rng = np.random.default_rng(0)
model = nn.Sequential(
    nn.Conv2D(1, 16, 3, padding="same", rng=rng),
    nn.ReLU(),
    nn.MaxPool2D(2),
    nn.Conv2D(16, 32, 3, padding="same", rng=rng),
    nn.ReLU(),
    nn.Flatten(),
    nn.Dropout(0.5, rng=rng),
    nn.Dense(32 * 4 * 4, 10, rng=rng),
)
print(model)

# %%
# Training
# --------
#
# A net of this size can overfit. Four methods prevent it: dropout, weight decay, label smoothing of 0.1, and random
# changes of the images. Each time an image is used, it is moved by a fraction of a pixel along both axes, and gets some
# noise. The settings were chosen by cross-validation within the training part; the test part was not used for this.


def moved(images, rng, most=0.4):
    """Move each image by at most ``most`` pixels along both axes, by interpolation."""
    for axis in (2, 3):
        around = np.pad(images, [(0, 0), (0, 0), *((int(k == axis),) * 2 for k in (2, 3))], mode="edge")
        before, here, after = (around.take(range(start, start + 8), axis) for start in (0, 1, 2))
        by = rng.uniform(-most, most, (len(images), 1, 1, 1)).astype(np.float32)
        images = (1 - abs(by)) * here + np.maximum(by, 0) * after + np.maximum(-by, 0) * before
    return images


def disturbed(images, rng):
    return moved(images, rng) + np.float32(0.1) * rng.standard_normal(images.shape, np.float32)


def accuracy(images, labels):
    model.eval()
    with mf.no_grad():
        found = model(images).numpy().argmax(axis=1)
    model.train()
    return np.mean(found == labels)


# %%
# The example writes its own loop, because it changes the batches. The learning rate decreases to zero, epoch by epoch.

epochs, rate = 30, 0.1
optimizer = optim.SGD(model.parameters(), lr=rate, momentum=0.9, weight_decay=5e-4)
loss_function = nn.CrossEntropyLoss(label_smoothing=0.1)

with mf.Profiler(model, name="convolutional digits") as profiler:
    for epoch in range(epochs):
        optimizer.lr = rate * (1 - epoch / epochs)
        for X, y in mf.data.batches((images, labels), batch_size=32, rng=rng, drop_last=True):
            optimizer.zero_grad()
            loss = loss_function(model(disturbed(X, rng)), y)
            loss.backward()
            optimizer.step()
        profiler.end_epoch()

result = accuracy(test.X.reshape(-1, 1, 8, 8), test.y)
print(f"test accuracy: {result:.1%}")

# %%
# What it cost
# ------------

print(profiler.report(by="layer"))

# %%
# A convolution uses each weight once for every position of the output; a dense layer uses each weight once for the
# image. So for one parameter the second convolution, with outputs of 4 × 4, does 16 times the work of the dense layer.
# (The first convolution has 8 × 8 positions, but needs no derivative with respect to its input, which is data.) The
# numbers are multiplications and additions, forward and backward, counted while the net trained.

epoch = profiler.session.epochs[0]
work = {}
for row in epoch.layers():
    products = row.products_forward + row.products_backward
    if products:
        layer = model[int(row.layer)]
        kind, weights = type(layer).__name__, layer.weight.size
        work[row.layer] = products / (weights * epoch.observed * 32)
        print(f"{row.layer} {kind:6} {weights:6,} weights, {work[row.layer]:4.0f} operations for each and image")
first, second, dense = work.values()
print(f"a convolution's weight costs {second / dense:.0f} times a dense layer's")

# %%
# A figure, if Matplotlib is installed: the learned kernels of the first layer.

try:
    import matplotlib.pyplot as plt
except ImportError:
    print('No figure: it needs Matplotlib, pip install ".[plot]"')
else:
    figure, axes = plt.subplots(2, 8, figsize=(7, 2.2), layout="constrained")
    kernels = model[0].weight.numpy()
    for place, kernel in zip(axes.flat, kernels, strict=True):
        place.imshow(kernel[0], cmap="RdBu", vmin=-abs(kernels).max(), vmax=abs(kernels).max())
        place.set_axis_off()
    figure.suptitle("The 16 kernels of the first convolution")
    plt.show()
