"""Which tokens of an example are equal, which is nearest, and what lies between two: against loops."""

import itertools

import numpy as np
import pytest

from attnlearn.learners.sculpting.tokens import chosen, classes, equal, nearest, values
from tests.learners.sculpting.small import CUBE, GAUSSIAN


def corners(key, n, k, d):
    return 2.0 * key.integers(0, 2, (n, k, d)) - 1


def test_values_stand_where_they_come_first_and_are_counted(key):
    X = corners(key, 40, 6, 2)  # four values, six tokens: always some twice
    found, same = values(X), equal(X)
    for n, example in enumerate(X):
        rows = [tuple(x) for x in example]
        assert found.first[n].tolist() == [x not in rows[:a] for a, x in enumerate(rows)]
        assert found.times[n].tolist() == [rows.count(x) for x in rows]
        assert same[n].tolist() == [[x == y for y in rows] for x in rows]


@pytest.mark.parametrize("by_angle", [False, True])
def test_nearest_token_and_its_residual_are_those_of_a_loop(key, by_angle):
    X, Z = corners(key, 20, 4, 5), key.standard_normal((20, 4, 5))
    found = nearest(Z, X, by_angle)
    for n, a in itertools.product(range(20), range(4)):
        z = Z[n, a] * (np.sqrt(5) / np.linalg.norm(Z[n, a]) if by_angle else 1)
        apart = [np.linalg.norm(z - x) / np.sqrt(5) for x in X[n]]
        assert found.residual[n, a] == pytest.approx(min(apart), rel=1e-12)
        assert apart[found.token[n, a]] == pytest.approx(min(apart), rel=1e-12)
    assert np.array_equal(chosen(X, found.token)[7], X[1, found.token[1, 3]])


def test_nearest_by_angle_does_not_know_the_scale_of_the_sum(key):
    X, Z = corners(key, 20, 4, 5), key.standard_normal((20, 4, 5))
    one, other = nearest(Z, X, True), nearest(1.7 * Z, X, True)
    assert np.array_equal(one.token, other.token)
    assert np.abs(one.residual - other.residual).max() < 1e-12  # rounding


@pytest.mark.parametrize("d", [4, 70])
def test_classes_are_token_values_up_to_sign(key, d):
    V = np.array(list(itertools.product([-1.0, 1.0], repeat=4)))
    V = np.c_[V, np.tile(np.sign(key.standard_normal(d - 4)), (16, 1)) * V[:, :1]]
    kinds = classes(V)
    for a, b in itertools.product(range(16), repeat=2):
        assert (kinds[a] == kinds[b]) == (np.array_equal(V[a], V[b]) or np.array_equal(V[a], -V[b]))
    assert len(set(kinds.tolist())) == 2 ** (4 - 1)


def test_a_pair_is_separate_where_its_subcube_holds_no_third_value(key):
    X = corners(key, 60, 5, 3)
    pair, times = np.triu_indices(5, 1), values(X).times
    found = CUBE.separate(X, pair, times)
    for n, example in enumerate(X):
        for number, (a, b) in enumerate(zip(*pair, strict=True)):
            u, v = example[a], example[b]
            if np.array_equal(u, v):
                continue  # equal values are no pair; certificates never ask
            common = u == v
            third = [x for x in example if not np.array_equal(x, u) and not np.array_equal(x, v)]
            assert found[n, number] == (not any(np.array_equal(x[common], u[common]) for x in third))


def test_standard_normal_tokens_need_no_subcube(key):
    X = key.standard_normal((5, 3, 4))
    pair = np.triu_indices(3, 1)
    assert GAUSSIAN.separate(X, pair, values(X).times).all() and not GAUSSIAN.sliced and CUBE.sliced


def test_an_entry_off_the_cube_is_named(key):
    X = corners(key, 10, 4, 3)
    CUBE.refuse(X)
    X[2, 1, 0] = X[7, 3, 2] = 0.0
    with pytest.raises(ValueError, match=r"X\[2, 1, 0\] is 0, and 2 entries in all are not on the cube"):
        CUBE.refuse(X)


def test_tokens_that_are_not_standard_normal_are_refused(key):
    """False alarms: an entry of the second moments of 8000 tokens errs by 1/sqrt(8000) = .011; allowed are .2 + .11."""
    X = key.standard_normal((2000, 4, 3))
    GAUSSIAN.refuse(X)
    with pytest.raises(
        ValueError, match=r"miss mean 0 by 0\.[45]\d* and covariance 1 by .* wanted are standard normal"
    ):
        GAUSSIAN.refuse(X + 0.5)
    with pytest.raises(ValueError, match="miss mean 0 by .* and covariance 1 by 3"):
        GAUSSIAN.refuse(2 * X)


def test_gaussian_tokens_are_not_taken_from_the_cube(key):
    with pytest.raises(ValueError, match="These tokens lie on the cube"):
        GAUSSIAN.refuse(2.0 * key.integers(0, 2, (50, 3, 4)) - 1)
