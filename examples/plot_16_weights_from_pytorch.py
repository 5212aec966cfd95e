"""
Weights from PyTorch
====================

A small convolutional net was trained in PyTorch on the first 1,200 digits of scikit-learn, converted to bfloat16, and
written with ``safetensors.torch.save_file(net.state_dict(), "digits_from_pytorch.safetensors")``. microfw reads the
file without PyTorch.
"""

# %%
# The same structure
# ------------------
#
# A state dict has values and names, but no layers. So the model is written once more. Its names are those of PyTorch's
# model, except for the last layer, which was called ``fc``.

from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits

import microfw as mf
from microfw import nn, optim

features = nn.Sequential(
    nn.Conv2D(1, 8, 3, padding=1, bias=False), nn.BatchNorm2D(8), nn.ReLU(), nn.MaxPool2D(2),
    nn.Conv2D(8, 16, 3, padding=1), nn.ReLU(), nn.GlobalAvgPool2D(),
)  # fmt: skip
model = nn.Sequential({"features": features, "head": nn.Dense(16, 10)})
path = (Path(__file__).parent if "__file__" in globals() else Path()) / "digits_from_pytorch.safetensors"

# %%
# Names that differ raise an error that lists all of them; nothing is matched by its shape.

try:
    mf.import_torch(model, path)
except mf.errors.ArgumentError as error:
    print(error)

# %%
# ``rename`` gives the name. Weights of ``Dense`` are transposed, and numbers of 16 bits become float32.

mf.import_torch(model, path, rename={"fc": "head"})
print(model)

# %%
# Test it
# -------
#
# PyTorch's model has 95.8% of these digits right.

X, y = load_digits(return_X_y=True)
X = (X / 16).astype(np.float32).reshape(-1, 1, 8, 8)
model.eval()
with mf.no_grad():
    accuracy = np.mean(model(X[1200:]).numpy().argmax(axis=1) == y[1200:])
print(f"test accuracy: {accuracy:.1%}")

# %%
# Use it for another task
# -----------------------
#
# The convolutions stay as they are; a new last layer learns which digits have a closed loop.

loops = np.isin(y, (0, 6, 8, 9)).astype(np.float32)[:, None]
features.requires_grad_(False)
detector = nn.Sequential(*features).append(nn.Dense(16, 1, rng=0))
with mf.no_grad():
    found = features(X).numpy()  # computed once, since they do not change
head = nn.Sequential(detector[-1])
trainer = mf.Trainer(head, nn.BCEWithLogitsLoss(), optim.Adam(head.parameters(), lr=0.1), metrics=["accuracy"])
trainer.fit((found[:1200], loops[:1200]), epochs=40, rng=0, progress=False)
detector.eval()
with mf.no_grad():
    right = np.mean((detector(X[1200:]).numpy() > 0) == loops[1200:])
print(f"digits with a loop: {right:.1%} right")
