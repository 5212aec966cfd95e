"""
A search over a table
=====================

This example has a table with numbers, words and missing values, a Pipeline that converts it to numbers, a search for
the best network, and one report of the cost of every fit in the search.
"""

# %%
# The table
# ---------
#
# The table has a thousand invented loans. Whether a loan is paid back depends on the ratio of debt to income, on the
# kind of work, and on chance. A tenth of the incomes is missing. One loan in seven fails. So a model that always
# predicts "paid" is right for six loans of seven, and useless.

import numpy as np

rng = np.random.default_rng(0)
n = 1000
income = rng.lognormal(10, 0.5, n)
debt = income * rng.uniform(0, 1.2, n)
work = rng.choice(["clerk", "farmer", "artist"], n, p=[0.6, 0.3, 0.1])
risk = 4 * debt / income - 4.2 + np.where(work == "artist", 1.5, 0) + rng.normal(0, 0.5, n)
paid = np.where(risk > 0, "failed", "paid")
income[rng.random(n) < 0.1] = np.nan
table = np.array(list(zip(income, debt, work, strict=True)), dtype=object)
print(f"{n} loans, {np.mean(paid == 'failed'):.1%} failed")

# %%
# The pipeline
# ------------
#
# The Pipeline fills in missing numbers, makes the numbers less skewed, and scales them. Words become columns of zeros
# and ones. The last part is a network, which is an estimator like any other. With ``class_weight`` the rare failures
# count as much as the rest. Training stops when the F1 score of the validation rows has not increased for ten epochs.

from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, PowerTransformer

import microfw as mf

numbers = make_pipeline(SimpleImputer(strategy="median"), PowerTransformer())
columns = ColumnTransformer([("numbers", numbers, [0, 1]), ("words", OneHotEncoder(), [2])])
network = mf.estimators.NeuralClassifier(
    optimizer="sgd",
    learning_rate=0.1,
    max_grad_norm=1.0,
    batch_size=32,
    max_iter=60,
    class_weight="balanced",
    early_stopping=True,
    scoring="f1_macro",
    validation_fraction=0.2,
    random_state=0,
)
profiler = mf.Profiler()
pipeline = make_pipeline(columns, network.set_callbacks(profiler))

# %%
# The search
# ----------
#
# The search tries width, depth and dropout: six networks, three times each, and the best one once more on all rows.
# The search copies the network for each fit, and the copies share its profiler. With ``n_jobs=2``, pass
# ``Profiler(folder=...)``: fits in other processes write their profiles into that folder.

X_train, X_test, y_train, y_test = train_test_split(table, paid, stratify=paid, random_state=0)
grid = {
    "neuralclassifier__hidden_layer_sizes": [(), (16,), (64, 64)],
    "neuralclassifier__dropout": [0.0, 0.2],
}
search = GridSearchCV(pipeline, grid, cv=3, scoring="f1_macro")
search.fit(X_train, y_train)
for settings, score in zip(search.cv_results_["params"], search.cv_results_["mean_test_score"], strict=True):
    print(f"F1 {score:.3f}  {', '.join(f'{k[18:]}={v}' for k, v in settings.items())}")

# %%
# The best network, on rows that the search has not used:

from sklearn.metrics import balanced_accuracy_score, f1_score

predicted = search.predict(X_test)
print(f"test F1: {f1_score(y_test, predicted, average='macro'):.3f}")
print(f"balanced accuracy: {balanced_accuracy_score(y_test, predicted):.3f}, of always predicting 'paid': 0.500")

# %%
# What it cost
# ------------
#
# The first table has a row for each fit. Its number is the evaluation in the search, then the step in the pipeline. The
# second table has the time of the backward pass in each epoch; an outlier is an epoch in which another program ran.

print(profiler.report(epochs=6))

# %%
# ``profiler.fits`` has the same numbers as data. Here, the time of a backward step by the size of the network:

steps = {}
for fit in profiler.fits:
    size = fit.parameters.get("hidden_layer_sizes", "(100,)")
    total = fit.session.total()
    steps.setdefault(size, []).append(total.backward_ns / total.steps / 1e3)
for size, times in sorted(steps.items(), key=lambda item: np.median(item[1])):
    print(f"{size:>9}: {np.median(times):6.1f} µs")

# %%
# The profile of one fit has a row for each layer. A fitted network has its own as ``profile_``: this is the best one.

print(mf.profiler.report(search.best_estimator_[-1].profile_, max_rows=6))

# %%
# A figure, if Matplotlib is installed.

try:
    import matplotlib.pyplot as plt
except ImportError:
    print('No figure: it needs Matplotlib, pip install ".[plot]"')
else:
    best = search.best_estimator_[-1]
    figure, (left, right) = plt.subplots(1, 2, figsize=(8, 3.2), layout="constrained")
    best.history_.plot(axes=left)
    right.plot(best.history_.column("epoch"), best.validation_scores_, color="#009e73")
    right.set(xlabel="epoch", ylabel="F1", title="Score of the validation rows")
    plt.show()
