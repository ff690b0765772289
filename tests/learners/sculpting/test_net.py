"""Phase (v): the points of the net, one regression for every tuple, and what is kept."""

import itertools

import numpy as np
import pytest

from attnlearn.learners.sculpting import net
from attnlearn.learners.sculpting.hull import Hull
from attnlearn.learners.sculpting.net import Grid
from attnlearn.learners.sculpting.rows import Rows, features, regression, relative_error, shown, weights
from tests import oracles
from tests.learners.sculpting import small


def around(thetas):
    """The true hull of these matrices."""
    flat = np.asarray(thetas).reshape(len(thetas), -1)
    directions = np.linalg.qr((flat[1:] - flat[:1]).T)[0].T
    point = flat[0] - directions.T @ (directions @ flat[0])
    d = thetas.shape[-1]
    return Hull(point.reshape(d, d), directions.reshape(-1, d, d), np.ones(d * d + 1), 99.0, 2 * d * d)


@pytest.fixture(scope="module")
def rows():
    examples = small.drawn(2, 3, 4, 3.0, 60, 0)
    return Rows.of(np.asarray(examples.X), np.asarray(examples.Y), np.arange(0, 240, 2))


def test_rows_are_those_of_the_list_of_all(rows):
    examples = small.drawn(2, 3, 4, 3.0, 60, 0)
    assert np.array_equal(rows.query[5], examples.X[2, 2]) and np.array_equal(rows.X[5], examples.X[2])
    assert np.array_equal(rows.Y[5], examples.Y[2, 2])
    assert rows.square == pytest.approx(sum(np.sum(y**2) for y in rows.Y), rel=1e-14)
    assert np.array_equal(rows.part(slice(2, 4)).Y, rows.Y[2:4])


def test_what_heads_show_is_the_attention_of_the_layer(rows):
    examples = small.drawn(2, 3, 4, 3.0, 60, 0)
    layer, thetas = small.truth(examples), small.qk(examples)
    for r, (example, row) in enumerate(itertools.product(range(60), (0, 2))):
        maps = oracles.attention_maps(layer, np.asarray(examples.X)[example])
        for head in range(2):
            assert np.abs(weights(rows, thetas[head])[r] - maps[head, row]).max() < 1e-13
    stacked = np.concatenate(list(np.asarray(layer.ov)))
    assert np.abs(features(rows, thetas) @ stacked - rows.Y).max() < 1e-12
    assert small.relative(regression(features(rows, thetas), rows.Y), stacked) < 1e-10  # cond(features) < 1e4
    assert relative_error(rows, thetas, stacked) < 1e-14 and relative_error(rows, thetas, 0 * stacked) == 1


@pytest.mark.parametrize("heads, per_axis", [(2, 61), (3, 21), (4, 9)])
def test_net_is_the_grid_in_the_ball(key, heads, per_axis):
    hull = around(key.standard_normal((heads, 3, 3)))
    found = net.points(hull, heads, Grid(), key)
    radius = 2.5 * np.linalg.norm(hull.point) * np.sqrt(heads - 1)
    steps = np.arange(per_axis) - per_axis // 2
    inside = [c for c in itertools.product(steps, repeat=heads - 1) if np.sum(np.square(c)) <= (per_axis // 2) ** 2]
    assert found.step == pytest.approx(2 * radius / (per_axis - 1), rel=1e-12)
    assert len(found.c) == len(inside) and np.abs(found.c - found.step * np.array(inside)).max() < 1e-12 * radius
    matrices = net.matrices(hull, found.c[:2])
    assert np.abs(matrices[1] - hull.point - np.tensordot(found.c[1], hull.directions, 1)).max() < 1e-12


def test_one_head_needs_one_point_and_many_heads_a_random_net(key):
    hull = around(key.standard_normal((1, 3, 3)))
    one = net.points(hull, 1, Grid(), key)
    assert one.c.shape == (1, 0) and np.array_equal(net.matrices(hull, one.c)[0], hull.point)
    wide = around(key.standard_normal((7, 3, 3)))
    many = net.points(wide, 7, Grid(), key)
    radius = 2.5 * np.linalg.norm(wide.point) * np.sqrt(6)
    lengths = np.linalg.norm(many.c, axis=1)
    assert many.c.shape == (800, 6) and lengths.max() <= radius
    assert np.mean(lengths**6 <= radius**6 / 2) == pytest.approx(0.5, abs=0.1)  # uniform: six standard deviations .106
    assert len(net.points(around(key.standard_normal((5, 3, 3))), 5, Grid(), key).c) <= 5**4


def test_orthogonal_heads_of_one_norm_lie_at_the_length_that_scales_the_ball(key):
    """|c_i| = |theta_0| sqrt(m - 1)."""
    for heads in (2, 3, 4):
        thetas = 3 * np.linalg.qr(key.standard_normal((9, heads)))[0].T.reshape(heads, 3, 3)
        hull = around(thetas)
        c = np.tensordot(thetas - hull.point, hull.directions, axes=((1, 2), (1, 2)))
        wanted = np.linalg.norm(hull.point) * np.sqrt(heads - 1)
        assert np.linalg.norm(c, axis=1) == pytest.approx(np.full(heads, wanted), rel=1e-12)


def test_cost_of_a_tuple_is_the_squared_error_of_its_regression(rows, key):
    thetas = key.standard_normal((5, 3, 3))
    shared = net.gram(rows, thetas)
    for size in (1, 2, 3):
        tuples = np.array(list(itertools.combinations(range(5), size)))
        for one, cost in zip(tuples, net.costs(shared, tuples), strict=True):
            phi = np.concatenate([shown(rows, thetas[i]) for i in one], axis=1)
            ridge = net.RIDGE * np.sum(phi**2) / phi.shape[1]
            W = np.linalg.solve(phi.T @ phi + ridge * np.eye(phi.shape[1]), phi.T @ rows.Y)
            plain = np.sum((rows.Y - phi @ np.linalg.lstsq(phi, rows.Y)[0]) ** 2)
            assert cost == pytest.approx(np.sum(rows.Y**2) - np.sum((phi.T @ rows.Y) * W), rel=1e-10)
            assert plain - 1e-9 < cost < plain + 1e-5 * rows.square  # the ridge is 1e-7 of the mean diagonal


def test_two_heads_need_1891_regressions(rows, key, monkeypatch):
    hull = around(key.standard_normal((2, 3, 3)))
    points, scored = net.points(hull, 2, Grid(), key), []
    shared, costs = net.gram(rows, net.matrices(hull, points.c)), net.costs
    monkeypatch.setattr(net, "costs", lambda shared, tuples: scored.append(tuples) or costs(shared, tuples))
    tuples, _ = net.scored(shared, 2, 200)
    assert [len(one) for one in scored] == [61, 1830] and sum(map(len, scored)) == 1891
    assert {tuple(one) for one in tuples.tolist()} == set(itertools.combinations(range(61), 2))


def test_three_heads_extend_the_best_pairs_by_every_point(rows, key):
    thetas = key.standard_normal((12, 3, 3))
    shared = net.gram(rows, thetas)
    pairs = np.array(list(itertools.combinations(range(12), 2)))
    best = pairs[np.argsort(net.costs(shared, pairs))[:5]]
    wanted = {tuple(sorted((*pair, c))) for pair in best.tolist() for c in range(12) if c not in pair}
    tuples, error = net.scored(shared, 3, 5)
    assert {tuple(one) for one in tuples.tolist()} == wanted and len(tuples) == len(wanted) == len(error)


def test_kept_tuples_stand_apart_and_begin_with_the_best(rows):
    """Whatever the order of heads: 1.5 steps of the grid. The true heads lie within the first kept tuple's cell."""
    thetas = small.qk(small.drawn(2, 3, 4, 3.0, 60, 0))
    hull = around(thetas)
    points = net.points(hull, 2, Grid(), np.random.default_rng(0))
    shared = net.gram(rows, net.matrices(hull, points.c))
    kept = net.search(shared, points, 2, Grid())
    tuples, error = net.scored(shared, 2, 200)
    assert 1 < len(kept) <= 8 and np.array_equal(kept[0], points.c[tuples[np.argmin(error)]])
    for one, other in itertools.combinations(kept, 2):
        for order in itertools.permutations(range(2)):
            assert np.linalg.norm(one[list(order)] - other) > 1.5 * points.step
    truth = np.sort(np.tensordot(thetas - hull.point, hull.directions, axes=((1, 2), (1, 2)))[:, 0])
    assert np.abs(np.sort(kept[0][:, 0]) - truth).max() < 1.5 * points.step
