"""
Two inputs and two heads
========================

A model reads an image and a number, and predicts a class and a quantity. Features and targets are tuples and dicts of
arrays, the loss has a name for each part, and each row has a weight.
"""

# %%
# The data
# --------
#
# The image is a handwritten digit, the number is an angle. The first head predicts the digit. The second one predicts
# the amount of ink, turned by the angle, so it needs both inputs.

import numpy as np

import microfw as mf
from microfw import nn, optim

train, test = mf.data.load("digits", rng=0)


def inputs_and_targets(data, rng):
    angle = rng.uniform(-1, 1, (len(data), 1))
    ink = data.X.mean(axis=1, keepdims=True) * np.cos(angle)
    return (data.X, angle), {"digit": data.y, "ink": ink}


rng = np.random.default_rng(0)
X, y = inputs_and_targets(train, rng)
weight = np.where(y["digit"] == 8, 3.0, 1.0)  # eights count three times

# %%
# Model and loss
# --------------
#
# A tuple of features is passed to ``forward`` as arguments. The dict of outputs goes to the loss as it is. The loss
# returns a dict: training minimises the sum.


class Reader(nn.Module):
    def __init__(self, rng):
        self.image, self.angle = nn.Dense(64, 32, rng=rng), nn.Dense(1, 32, rng=rng)
        self.digit, self.ink = nn.Dense(32, 10, rng=rng), nn.Dense(32, 1, rng=rng)

    def forward(self, image, angle):
        z = np.tanh(self.image(image) + self.angle(angle))
        return {"digit": self.digit(z), "ink": self.ink(z)}


cross_entropy, squared_error = nn.CrossEntropyLoss(), nn.MSELoss()


def loss(outputs, targets, weight=None):
    return {
        "digit": cross_entropy(outputs["digit"], targets["digit"], weight),
        "ink": squared_error(outputs["ink"], targets["ink"], weight),
    }


# %%
# Training
# --------
#
# The history has each part of the loss, and the metrics of each head. ``compile=True`` replays the steps, although
# model and loss are not this library's.

model = Reader(np.random.default_rng(1))
trainer = mf.Trainer(
    model,
    loss,
    optim.Adam(model.parameters(), lr=0.01),
    metrics={"digit": "accuracy", "ink": "r2"},
    compile=True,
)
held_out = inputs_and_targets(test, rng)
history = trainer.fit((X, y, weight), epochs=15, validation=held_out, rng=0, progress=False)
last = history[-1]
print(f"loss {last['loss']:.3f} = digit {last['loss/digit']:.3f} + ink {last['loss/ink']:.3f}")
print(f"test accuracy of the digits: {last['val_accuracy/digit']:.1%}")
print(f"test R² of the ink: {last['val_r2/ink']:.2f}")

# %%
# Predictions have the structure of the model's outputs.

outputs = trainer.predict(held_out[0])
print({name: head.shape for name, head in outputs.items()})
