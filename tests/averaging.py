"""A learner without search for tests of the estimator's face: heads that average, solved at once."""

import numpy as np

import attnlearn as al
from attnlearn.estimators import AttentionRegressor
from attnlearn.learners import AbstractLearner, Learned
from attnlearn.records import Cost, Phase

UNKNOWNS = 3  # for each entry of a token: about those of one head with circuits of rank 1


class Averaging(AbstractLearner[al.Examples]):
    """One head that weighs all visible tokens the same: linear regression on their means."""

    slots: al.Slots

    def learn(self, source, key):
        key.random()
        cost, d = Cost(len(source), source.tokens, source.scalars), source.width
        if source.scalars < UNKNOWNS * d:
            return Learned(None, al.Status.TOO_FEW_EXAMPLES, cost, evidence=f"{source.scalars} numbers.")
        answered = np.asarray(source.inputs.answered())
        means = al.AttentionLayer(np.zeros((1, d, d)), np.eye(d)[None], slots=self.slots)
        features = np.reshape(means(source.X, source.mask, source.rows), (*answered.shape, d))[answered]
        features, labels = np.c_[features, np.ones(len(features))], source.targets[answered]
        solution = np.linalg.lstsq(features, labels)[0]
        left = np.linalg.norm(features @ solution - labels) / np.linalg.norm(labels)
        layer = al.AttentionLayer(np.zeros((1, d, d)), solution[None, :-1], None, solution[-1], self.slots)
        status = al.Status.LEARNED if left < 1e-9 else al.Status.STALLED
        return Learned(layer, status, cost, (Phase("search", {"steps": 1}),), f"Relative residual {left:.2g}.")


class AveragingRegressor(AttentionRegressor):
    """`AttentionRegressor` with that learner."""

    def _learner(self):
        return Averaging(super()._learner().slots)
