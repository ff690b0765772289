"""Searches heads and mask of a hidden layer with scikit-learn's grid search, on sentences of different lengths."""

import warnings

import numpy as np
from sklearn.model_selection import GridSearchCV

import attnlearn as al

WIDTH, SENTENCES = 3, 60


def sentences(seed: int, layer: al.AttentionLayer):
    """Lists of arrays (k_i, WIDTH), with the outputs of `layer` on them."""
    rng = np.random.default_rng(seed)
    X = [rng.normal(size=(rng.integers(3, 7), WIDTH)) for _ in range(SENTENCES)]
    return X, [layer(x) for x in X]


def main() -> None:
    random = al.random_layer(0, heads=2, width=WIDTH)
    hidden = al.AttentionLayer(random.qk, random.ov, slots=al.Slots(mask=al.Causal()))
    X, y = sentences(1, hidden)

    grid = {"heads": [1, 2], "slots": ["softmax", "causal softmax"]}
    model = al.estimators.AttentionRegressor(noise=0.0, restarts=2, random_state=1, certify=False, on_failure="warn")
    with warnings.catch_warnings(action="ignore", category=al.estimators.RecoveryWarning):  # wrong candidates
        search = GridSearchCV(model, grid, cv=2, refit=False).fit(X, y)
    for params, score in zip(search.cv_results_["params"], search.cv_results_["mean_test_score"], strict=True):
        print(f"heads={params['heads']}, {params['slots']:<14}  R2 {score:.3f}")

    best = model.set_params(**search.best_params_, certify=True).fit(X, y)
    print(best.status_.value)
    print(f"R2 on new sentences {best.score(*sentences(2, hidden)):.6f}")
    print(f"worst head against the truth: QK {al.distance(best.layer_, hidden).qk:.0e}")


if __name__ == "__main__":
    main()
