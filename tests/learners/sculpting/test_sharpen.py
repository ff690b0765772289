"""Certificates of every head for itself."""

import numpy as np
import pytest

import attnlearn as al
from attnlearn.data.distributions import Planted
from attnlearn.learners.sculpting.rows import Rows
from attnlearn.learners.sculpting.sharpen import Sharpening, head_equalities, regress, robust_ov, sharpen


@pytest.fixture(scope="module")
def problem():
    planted = Planted(2, 6, 3, 4.0, 8000, 0)
    examples = planted.draw()
    index = np.random.default_rng(0).permutation(24_000)
    rows = Rows.of(np.asarray(examples.X), np.asarray(examples.Y), index)
    return planted.layer(), rows.part(slice(2000, 20_000)), rows.part(slice(0, 2000))


def test_at_the_true_heads_every_equality_holds_for_its_head(problem):
    layer, rows, _ = problem
    qk = np.asarray(layer.qk)
    for outside in (0.1, None):
        known = head_equalities(rows, qk, np.asarray(layer.ov), outside)
        said = known.A @ qk.reshape(2, -1).T
        told = np.isfinite(known.epsilon)
        # what lies outside the two values is taken off as predicted, so a true head obeys to the rounding of logarithms
        # of shares of at least .001, divided by the least of 2 d eigenvalues of the heads' steps
        error = np.abs(said.T - known.b)[told]
        assert told.sum() > 1000 and np.quantile(error, 0.9) < 1e-6


def test_the_true_heads_are_a_fixed_point(problem):
    layer, rows, _ = problem
    qk = np.asarray(layer.qk)
    known = head_equalities(rows, qk, robust_ov(rows, qk), None)
    for head, theta in enumerate(qk):
        assert np.linalg.norm(regress(known, head, theta) - theta) < 1e-6 * np.linalg.norm(theta)


def test_a_head_without_equalities_stays_where_it_is(problem):
    layer, rows, _ = problem
    qk = np.asarray(layer.qk)
    known = head_equalities(rows, qk, np.asarray(layer.ov), 0.1)
    silent = known._replace(epsilon=np.full_like(known.epsilon, np.inf))
    np.testing.assert_array_equal(regress(silent, 0, qk[0]), qk[0])


@pytest.mark.slow
def test_rough_heads_become_sharp(problem):
    layer, rows, held_out = problem
    qk, key = np.asarray(layer.qk), np.random.default_rng(1)
    rough = qk + 0.15 * key.standard_normal(qk.shape) * np.linalg.norm(qk[0]) / 6
    found = sharpen(rows, held_out, rough, Sharpening(turns=2), 1e-3)
    assert found.error < 1e-3 and found.directions.shape == (1, 6, 6)
    close = al.distance(al.AttentionLayer(found.fitted.thetas, found.fitted.W.reshape(2, 6, 6)), layer)
    assert close.qk < 1e-2


@pytest.mark.slow
def test_a_learner_with_sharpening_tells_both_errors():
    examples = Planted(2, 8, 4, 4.0, 40_000, 0).draw()
    learner = al.learners.Sculpting(heads=2, polish=None, sharpening=Sharpening())
    result = learner.learn(examples, np.random.default_rng(0))
    told = {phase.name: phase.figures for phase in result.phases}
    assert result.status is al.Status.LEARNED and told["sharpened"]["error"] < 1e-3 < told["faithful"]["error"]
    assert "certificates of every head for itself" in result.evidence and "gap" in result.evidence
