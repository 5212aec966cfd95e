"""
Regress diabetes, in original units
===================================

A regression trains best on targets of mean 0 and standard deviation 1, but you read its error in the units of the data.
``load`` standardises the targets and keeps the scaler, so you can convert between both.
"""

# %%
# The targets are standardised with the mean and the deviation of the training part. Their shape is (rows, columns).

import numpy as np

import microfw as mf
from microfw import nn, optim

train, test = mf.data.load("diabetes", test_size=0.25, rng=0)
print(train)
print(f"standardised: {train.y.mean():.2f} ± {train.y.std():.2f}, shape {train.y.shape}")
original = train.to_original(train.y)
print(f"in the dataset's units: {original.mean():.1f} ± {original.std():.1f}")

# %%
# A small network is enough, because there are few rows with much noise. Weight decay reduces overfitting. Predictions
# and targets must have the same shape, here (rows, 1): a loss does not broadcast.

rng = np.random.default_rng(0)
model = nn.Sequential(nn.Dense(10, 16, rng=rng), nn.Tanh(), nn.Dense(16, 1, rng=rng))
trainer = mf.Trainer(
    model,
    nn.MSELoss(),
    optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-2),
    metrics=["r2"],
)
history = trainer.fit(train, epochs=30, batch_size=32, validation=test, rng=rng, progress=False)
for row in history[::10] + history[-1:]:
    print(f"epoch {row['epoch']:2d}: R² {row['r2']:.3f} on training rows, {row['val_r2']:.3f} on test rows")

# %%
# In original units
# -----------------
#
# ``to_original`` converts predictions and targets back. R² does not depend on the units; the error does.

predicted = test.to_original(trainer.predict(test.X))
true = test.to_original(test.y)
print(f"test R²: {trainer.evaluate(test)['r2']:.3f}")
print(f"mean absolute error: {np.abs(predicted - true).mean():.1f} units of disease progression")
print(f"of a model that always predicts the mean: {np.abs(original.mean() - true).mean():.1f}")

# %%
# A figure, if Matplotlib is installed: predictions against targets.

try:
    import matplotlib.pyplot as plt
except ImportError:
    print('No figure: it needs Matplotlib, pip install ".[plot]"')
else:
    figure, axes = plt.subplots(figsize=(4.5, 4), layout="constrained")
    axes.scatter(true, predicted, s=14, color="#0072b2", alpha=0.7)
    ends = [true.min(), true.max()]
    axes.plot(ends, ends, color="#d55e00", label="a perfect prediction")
    axes.set(xlabel="measured disease progression", ylabel="predicted", title="Test rows")
    axes.legend()
    plt.show()
