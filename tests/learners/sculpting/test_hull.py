"""Phase (iv): distinct functionals, the hull, its gap, and the number of heads."""

import itertools
from functools import cache

import numpy as np
import pytest
from scipy.linalg import subspace_angles

from attnlearn._status import Status
from attnlearn.data.distributions import Planted
from attnlearn.learners.sculpting import verdicts
from attnlearn.learners.sculpting.certificates import Edges
from attnlearn.learners.sculpting.hull import (
    Carving,
    Equalities,
    carve,
    count_heads,
    full_rank,
    gaps,
    hull,
    select,
)
from attnlearn.learners.sculpting.passes import Certificates
from tests.learners.sculpting import small

EXACT_SUM = 1e-5  # the least error of the sum: what stands in its place where the true sum is used


def exact(key, heads, d, count=None, epsilon=1e-3):
    """Random attention matrices, and random functionals that take one value on all of them."""
    thetas = key.standard_normal((heads, d * d))
    A = key.standard_normal((count or 3 * d * d, d * d))
    across = thetas[1:] - thetas[:1]
    if heads > 1:
        A -= (A @ np.linalg.pinv(across)) @ across
    return thetas, Equalities(A, A @ thetas[0], np.full(len(A), epsilon))


def missed(found, thetas):
    """Largest relative distance of a head from the hull, and largest principal angle in degrees."""
    flat = np.asarray(thetas).reshape(len(thetas), -1)
    D = found.directions.reshape(len(found.directions), flat.shape[1])
    off = flat - found.point.ravel()
    off = np.linalg.norm(off - (off @ D.T) @ D, axis=1) / np.linalg.norm(flat, axis=1)
    return off.max(), np.degrees(subspace_angles(flat.T, np.c_[found.point.ravel(), D.T])).max()


@pytest.mark.parametrize("heads", [1, 2, 3])
def test_exact_functionals_give_the_hull_of_the_heads(key, heads):
    """Singular vectors are accurate to eps over the relative gap, here of order 1; the bound leaves a factor 1000."""
    thetas, equalities = exact(key, heads, 4)
    found = hull(equalities, heads)
    off, angle = missed(found, thetas)
    assert off < 1e-12 and angle < 1e-6  # degrees; angles are known to the root of rounding
    D = found.directions.reshape(heads - 1, 16)
    assert np.abs(D @ D.T - np.eye(heads - 1)).max(initial=0) < 1e-12
    assert np.abs(D @ found.point.ravel()).max(initial=0) < 1e-12
    assert found.gap == pytest.approx(1000, rel=1e-12) and found.functionals == 48
    assert len(found.singular_values) == 17 and np.all(np.diff(found.singular_values) >= 0)


def test_all_heads_have_the_same_inner_product_with_the_minimum_norm_point(key):
    """To 1e-12 of the squared norm of a head, whose square is about d^2 = 16."""
    thetas, equalities = exact(key, 3, 4)
    point = hull(equalities, 3).point.ravel()
    assert np.ptp(thetas @ point) < 1e-12 * 16
    assert thetas @ point == pytest.approx(np.full(3, point @ point), rel=1e-12)


def all_edges(d):
    """Every functional x (u - v)' of the cube, of any pair, with growing residuals."""
    corners = np.array(list(itertools.product([-1.0, 1.0], repeat=d)))
    triples = np.array([(x, u, v) for x in corners for u in corners for v in corners if not np.array_equal(u, v)])
    x, u, v = triples.swapaxes(0, 1)
    n, share = len(x), np.full(len(x), 0.6)
    reach = np.linalg.norm(u - v, axis=1)
    return Edges(x, v + 0.6 * (u - v), u, v, share, np.linspace(0, 0.5, n), reach, np.log(share / (1 - share)))


@pytest.mark.parametrize("d, count", [(2, 8), (3, 52)])
def test_number_of_functionals_is_that_of_the_enumeration(d, count):
    edges = all_edges(d)
    by_loop = set()
    for A in edges.functionals / 2:
        by_loop.add(max(tuple(A), tuple(-A)))
    assert len(select(edges, 10**4, 0.01).b) == len(by_loop) == 2**d * (3**d - 1) // 4 == count
    scarce = verdicts.too_few(Certificates(edges, 99, 9, 0.01, 9), 1, Carving())
    assert scarce.status is Status.TOO_FEW_CERTIFICATES and f"there are {count} at width {d}" in scarce.evidence


def test_of_equal_functionals_the_one_of_least_slack_is_kept(key):
    edges = small.random_edges(key, 2, 300)
    edges = edges._replace(residual=key.uniform(0, 1.2, 300))
    found, best = select(edges, 6, 0.01), {}
    for A, b, slack, epsilon, residual in zip(
        edges.functionals, edges.log_odds, edges.slack(0.01), edges.tolerance(0.01), edges.residual, strict=True
    ):
        kind = max(tuple(A), tuple(-A))
        if residual < 1 and slack < best.get(kind, (np.inf,))[0]:
            best[kind] = slack, tuple(A), b, epsilon
    wanted = sorted(best.values())[:6]
    assert [(tuple(A), b, e) for A, b, e in zip(*found, strict=True)] == [one[1:] for one in wanted]


def test_repeated_functionals_are_never_a_hull(key):
    """Five functionals a hundred times: distinct ones are counted, and without that the rank floor refuses."""
    five = small.random_edges(key, 6, 5)
    edges = five.take(np.tile(np.arange(5), 100))
    assert len(select(edges, 72, 0.01).b) == 5
    for heads in (1, 2, 3):
        assert carve(edges, heads, 0.01, Carving()) is None
        assert not full_rank(edges.functionals, heads, 0.02)
        stop = verdicts.too_few(Certificates(edges, 500, 500, 0.01, 500), heads, Carving())
        assert (
            stop.status is Status.TOO_FEW_CERTIFICATES
            and "500 rows gave 5 distinct functionals; 72 of full" in stop.evidence
        )
    assert count_heads(edges, 0.01, Carving()) is None


def test_rank_floor_stands_on_the_normalised_functionals(key):
    _, equalities = exact(key, 2, 3)
    ordinary = np.linalg.norm(equalities.A, axis=1, keepdims=True)
    sigma = np.linalg.svd(equalities.A / ordinary)[1][::-1]
    for heads in (2, 3):
        at = sigma[heads - 1] / sigma[-1]
        assert full_rank(1e3 * equalities.A, heads, 0.9 * at) and not full_rank(equalities.A, heads, 1.1 * at)


def test_false_certificates_do_not_move_the_hull(key):
    """A tenth of the equalities is wrong by logits; reweighting leaves them the influence of their tolerance."""
    thetas, equalities = exact(key, 2, 4, count=160, epsilon=1e-4)
    b = equalities.b + 1e-5 * key.standard_normal(160)
    b[:16] += key.standard_normal(16)
    found = hull(equalities._replace(b=b), 2)
    assert missed(found, thetas)[0] < 1e-3
    assert missed(hull(equalities._replace(b=b), 2, reweightings=1), thetas)[0] > 0.02


@pytest.fixture(scope="module")
def certified():
    """The best edges of (2,8,3,4) with so many examples and the true sum of the OV circuits; made once."""
    made, drawn = {}, cache(lambda *problem: Planted(*problem).draw())

    def edges(number, seed):
        if (number, seed) not in made:
            examples = drawn(2, 8, 3, 4.0, 400_000, seed)[:number]  # the stream of fewer examples is its beginning
            found = small.certificates(small.passes(examples), small.ov_sum(examples), EXACT_SUM, 20 * 3 * 64)
            made[number, seed] = found.edges
        return made[number, seed], Planted(2, 8, 3, 4.0, 1, seed).layer().qk

    return edges


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_hull_from_the_true_sum_is_within_five_degrees(certified, seed):
    """Row 7: (2,8,3,4,4e5), T = 3 d^2. Measured in the specification: 2.2 and .7 degrees, gaps 22 and 55; here the
    same."""
    edges, thetas = certified(400_000, seed)
    found = hull(select(edges, 3 * 64, EXACT_SUM), 2)
    off, angle = missed(found, thetas)
    assert found.functionals == 3 * 64 and found.gap > 15
    assert angle < 5 and off < 0.05


@pytest.mark.slow
def test_gap_peaks_at_the_number_of_heads_whatever_number_the_reweighting_takes(certified):
    """Row 8: (2,8,3,4,2e5,1), T = 3 d^2, ratios 1.3, 43.7, 1.1, 1.1 with two null vectors in the specification."""
    edges, _ = certified(200_000, 1)
    equalities = select(edges, 3 * 64, EXACT_SUM)
    ratios = {heads: gaps(hull(equalities, heads)) for heads in (1, 2, 3)}
    assert all(np.argmax(one) + 1 == 2 for one in ratios.values())
    assert ratios[2][1] > 20
    np.testing.assert_allclose(ratios[2][:4], [1.3, 43.7, 1.1, 1.1], atol=0.051)  # its digits
    np.testing.assert_allclose(ratios[1][:4], [3.4, 27.3, 1.1, 1.1], atol=0.051)
    assert count_heads(edges, EXACT_SUM, Carving()) == 2


def test_the_largest_gap_is_told_and_of_those_near_it_the_most_functionals_are_used(key):
    edges = small.random_edges(key, 3, 2000)
    thetas = key.standard_normal((1, 9))
    edges = edges._replace(log_odds=edges.functionals @ thetas[0] + 0.01 * key.standard_normal(2000))
    found = carve(edges, 1, 0.01, Carving(one_head=(2, 4, 5)))
    each = [hull(select(edges, multiple * 9, 0.01), 1) for multiple in (2, 4, 5)]
    largest = max(one.gap for one in each)
    plenty = [one.functionals for one in each if one.gap >= largest / 2]
    assert found is not None and found.gap == largest and found.functionals == plenty[-1]
    assert carve(edges, 1, 0.01, Carving(rank_floor=1.0)) is None


@pytest.mark.parametrize("seed", range(3))
def test_several_gaps_that_reach_the_largest_are_counted_as_the_first(seed):
    """Exact certificates of one head: with two or three null vectors the gap there is at its largest too."""
    examples = small.drawn(1, 6, 6, 6.0, 1000, seed)
    found = small.certificates(small.passes(examples), small.ov_sum(examples), 3e-4, 20 * 32 * 36)
    assert count_heads(found.edges, 3e-4, Carving()) == 1


def test_a_hull_at_infinity_has_no_gap(key):
    """Equalities whose right sides are noise around 0 while a direction is free: its null vector has no last entry."""
    A = key.standard_normal((60, 9)) * np.r_[1e-9, np.ones(8)]
    b = A[:, 1:] @ key.standard_normal(8) + 0.1 * key.standard_normal(60)
    assert hull(Equalities(A, b, np.full(60, 0.1)), 1).gap == 1.0
