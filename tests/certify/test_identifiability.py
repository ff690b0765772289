"""The measured null space against the closed form, for every kind of token and every degenerate layer."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attnlearn.certify import identifiability
from attnlearn.certify.coordinates import Unknowns
from attnlearn.data.examples import Examples
from attnlearn.layers import AttentionLayer, Causal, Slots, gauge_dimension, random_layer
from attnlearn.layers.inputs import Inputs


def gaussian(n=40, k=5, d=4, seed=0):
    return np.random.default_rng(seed).standard_normal((n, k, d))


def constant_coordinate(n=40, k=5, d=4):
    X = gaussian(n, k, d)
    X[..., 0] = 1.0
    return X


def one_hot(n=120, k=6, d=4):
    return np.eye(d)[np.random.default_rng(0).integers(d, size=(n, k))]


def generic_layer(m, d, d_out, seed=1, slots=Slots()):
    key = np.random.default_rng(seed)
    arrays = key.standard_normal((m, d, d)) / d, key.standard_normal((m, d, d_out))
    return AttentionLayer(*arrays, key.standard_normal((m, d)) / d, key.standard_normal(d_out), slots)


def changed(layer, **arrays):
    known = {name: getattr(layer, name).copy() for name in ("qk", "ov", "query_bias", "offset")}
    return AttentionLayer(**(known | arrays), slots=layer.slots)


@pytest.mark.slow
# With the circuits alone as parameters the count is m d + (m - 1) d_out: 15, 20, 11, 16 at these shapes; the query
# biases add m d, because qk absorbs them, and the offset d_out.
@pytest.mark.parametrize(
    "m, d, d_out, expected", [(2, 5, 5, 30), (3, 4, 4, 36), (2, 4, 3, 22), (3, 4, 2, 30), (1, 4, 1, 9)]
)
@pytest.mark.parametrize("tokens", [constant_coordinate, one_hot])
def test_a_constant_direction_hides_row_shifts_and_constants(m, d, d_out, expected, tokens):
    X = tokens(n=80, d=d)
    layer = generic_layer(m, d, d_out)
    report = identifiability(layer, X)
    assert report.dimension == report.expected == gauge_dimension(layer, X) == expected
    assert report.agrees and report.method == "dense"
    assert [direction.name for direction in report.directions] == ["row shift", "query constant", "ov constant"]
    assert max(direction.residual for direction in report.directions) < 1e-12  # rounding of a product
    assert report.rank_margin > 10


SHAPES = (2, 5, 5), (3, 4, 4), (2, 4, 3), (3, 4, 2), (2, 4, 1)


@pytest.mark.parametrize(
    "m, d, d_out", [SHAPES[0], *(pytest.param(*shape, marks=pytest.mark.slow) for shape in SHAPES[1:])]
)
@pytest.mark.parametrize("mask", [None, Causal()])
def test_generic_tokens_determine_every_parameter(m, d, d_out, mask):
    report = identifiability(generic_layer(m, d, d_out, slots=Slots(mask=mask)), gaussian(n=150 // d_out, d=d))
    assert report.dimension == report.expected == 0
    assert report.agrees and report.directions == () and report.notes == ()
    assert 1e-6 < report.conditioning < 1
    assert report.rank_margin == pytest.approx(report.conditioning / 1e-9)


def test_the_jacobian_is_that_of_the_outputs():
    layer, X, h = generic_layer(2, 3, 2), gaussian(3, 4, 3), 1e-6
    columns = []
    for name in ("qk", "ov", "query_bias", "offset"):
        for index in np.ndindex(getattr(layer, name).shape):
            plus, minus = getattr(layer, name).copy(), getattr(layer, name).copy()
            plus[index] += h
            minus[index] -= h
            columns.append((changed(layer, **{name: plus})(X) - changed(layer, **{name: minus})(X)).ravel() / (2 * h))
    twin = np.linalg.svd(np.stack(columns, axis=1), compute_uv=False)
    # central differences: h^2 of truncation and 1e-16 / h of rounding
    np.testing.assert_allclose(identifiability(layer, X).singular_values, twin, atol=1e-8 * twin[0])


@pytest.mark.slow
def test_tokens_in_a_subspace_hide_the_rest_of_it():
    """Three coordinates of five, one of them constant: p = 2 differences; m [d (d+1) - p (p+1)] + m (d-p) d_out."""
    X = np.zeros((80, 5, 5))
    X[..., :2] = gaussian(80, 5, 2)
    X[..., 3] = 2.0
    report = identifiability(generic_layer(2, 5, 3), X)
    assert report.dimension == report.expected == 2 * (30 - 6) + 2 * 3 * 3
    assert report.agrees


@pytest.mark.slow
def test_equal_heads_share_their_ov():
    layer = generic_layer(3, 4, 3)
    qk, bias = layer.qk.copy(), layer.query_bias.copy()
    qk[2], bias[2] = qk[0], bias[0]
    report = identifiability(changed(layer, qk=qk, query_bias=bias), gaussian(80))
    assert report.dimension == report.expected == 4 * 3
    assert report.agrees
    assert [(one.name, one.heads) for one in report.directions] == [("equal heads", (0, 2))]


@pytest.mark.slow
@pytest.mark.parametrize("parallel", ["one output", "same ov", "zero"])
def test_equal_heads_with_parallel_ov_share_their_scores(parallel):
    """With one output a pair trades (d+1) directions; with W_2 = c W_1 the whole of d (d+1); so does a zero head."""
    d_out = 1 if parallel == "one output" else 3
    layer = generic_layer(2, 4, d_out)
    ov = layer.ov.copy()
    if parallel != "one output":
        ov[1] = 0.0 if parallel == "zero" else -0.5 * ov[0]
    qk, bias = layer.qk[[0, 0]], layer.query_bias[[0, 0]]
    report = identifiability(changed(layer, qk=qk, query_bias=bias, ov=ov), gaussian(120))
    assert report.expected == 4 * d_out + (5 if parallel == "one output" else 20)
    assert report.agrees
    assert [one.name for one in report.directions] == ["equal heads", "unseen scores"]


@pytest.mark.parametrize("tokens", [gaussian, constant_coordinate])
def test_a_zero_head_hides_its_scores(tokens):
    layer = generic_layer(2, 4, 3)
    ov = layer.ov.copy()
    ov[1] = 0.0
    report = identifiability(changed(layer, ov=ov), tokens(80))
    base = 0 if tokens is gaussian else 22
    assert report.expected == base + (20 if tokens is gaussian else 12)  # (p + 1) p visible scores
    assert report.agrees
    assert report.directions[-1].name == "unseen scores" and report.directions[-1].heads == (1,)


def test_one_token_shows_the_offset_and_the_sum_of_the_ov():
    report = identifiability(generic_layer(2, 4, 3), gaussian(60, 1))
    assert report.dimension == report.expected == 2 * 20 + 4 * 3
    assert report.agrees
    assert {one.name for one in report.directions} == {"ov constant", "one token"}


@pytest.mark.slow
def test_too_few_outputs_are_named():
    report = identifiability(generic_layer(2, 4, 4), gaussian(2, 3))
    assert report.dimension > report.expected == 0
    assert report.unexplained == report.dimension and not report.agrees
    assert "too few outputs: 24 numbers for 76 parameters" in report.notes[0]
    assert "no name" in report.notes[1]
    assert "too few tokens: 3 cannot span 4" in identifiability(generic_layer(2, 4, 4), gaussian(1, 3)).notes[1]


@pytest.mark.slow
def test_nearly_equal_heads_show_in_the_conditioning():
    layer = generic_layer(2, 4, 4)
    far = identifiability(layer, gaussian(60)).conditioning
    qk, bias = layer.qk[[0, 0]], layer.query_bias[[0, 0]]
    qk[1] += 1e-3 * layer.qk[1]
    near = identifiability(changed(layer, qk=qk, query_bias=bias), gaussian(60))
    assert near.agrees and near.dimension == 0
    assert near.conditioning < 1e-2 * far


@pytest.mark.slow
def test_two_tokens_carry_a_note():
    assert "two-token" in identifiability(generic_layer(1, 3, 3), gaussian(40, 2, 3)).notes[0]


@pytest.mark.slow
def test_slots_stand_for_a_random_layer():
    report = identifiability(Slots(mask=Causal()), constant_coordinate(80), heads=2, width_out=3)
    assert report.dimension == report.expected == 22


@pytest.mark.slow
@pytest.mark.parametrize("tokens", [gaussian, constant_coordinate])
def test_above_the_memory_limit_a_bound_on_the_conditioning_is_given(tokens):
    layer, X = generic_layer(2, 4, 4), tokens(60)
    dense, bound = identifiability(layer, X), identifiability(layer, X, max_bytes=40_000)
    assert bound.method == "lanczos" and bound.unexplained is None and not bound.agrees
    assert bound.dimension == bound.expected == dense.dimension
    rounding = 1e-4  # 64 steps, each with a part of at most 1e-3 outside the row space
    assert dense.conditioning <= bound.conditioning * (1 + rounding)
    assert bound.conditioning < 1e3 * dense.conditioning
    assert bound.singular_values[0] <= dense.singular_values[0] * (1 + rounding)
    assert all(direction.residual < 1e-12 for direction in bound.directions)
    assert "upper bound" in bound.notes[-1]


@pytest.mark.slow
def test_as_many_steps_as_there_are_directions_find_the_smallest_singular_value():
    layer, X = generic_layer(1, 3, 3), constant_coordinate(40, d=3)
    dense, bound = identifiability(layer, X), identifiability(layer, X, max_bytes=100_000)
    rank = dense.parameters - dense.dimension
    assert len(bound.singular_values) == rank
    np.testing.assert_allclose(bound.singular_values, dense.singular_values[:rank], rtol=1e-8)


def test_works_in_float64_and_leaves_the_setting():
    assert not jax.config.jax_enable_x64
    report = identifiability(generic_layer(1, 3, 3), constant_coordinate(30, d=3))
    assert report.singular_values.dtype == np.float64 and report.agrees


def test_refuses_wrong_use():
    layer = generic_layer(1, 4, 4)
    with pytest.raises(ValueError, match=r"finite sequences of tokens \(n, k, d\), got shape \(4,\)"):
        identifiability(layer, np.ones(4))
    with pytest.raises(ValueError, match="finite sequences"):
        identifiability(layer, np.full((2, 3, 4), np.nan))
    with pytest.raises(ValueError, match="width 3, the layer wants 4"):
        identifiability(layer, np.ones((2, 5, 3)))
    with pytest.raises(TypeError, match="belong to Slots"):
        identifiability(layer, gaussian(), heads=2)
    with pytest.raises(ValueError, match="give heads"):
        identifiability(Slots(), gaussian())


@pytest.mark.slow
def test_equal_tokens_show_no_scores():
    """Where all tokens are one, every weight is as good as another: all of qk and query_bias is free."""
    layer = random_layer(0, heads=2, width=4)
    found = identifiability(layer, np.ones((30, 3, 4)))
    assert found.dimension == found.expected


def cubes(scores, visible):
    return jnp.where(visible, scores**3, 0.0)


@pytest.mark.slow
def test_a_normaliser_of_ones_own_is_measured_and_its_closed_form_left_open():
    report = identifiability(Slots(cubes), gaussian(60, 4, 3), heads=2, width_out=2)
    assert report.expected is None and not report.agrees
    assert report.dimension == report.unexplained == 2  # (c qk, ov / c³)
    assert (
        report.notes[0] == "no closed form is known: the normaliser cubes does not say what its heads hide (`symmetry`)"
    )
    constant = identifiability(Slots(cubes), constant_coordinate(60, 4, 3), heads=2, width_out=2)
    assert [one.name for one in constant.directions] == ["query constant"]
    assert constant.dimension == 2 * 3 + 2


@pytest.mark.slow
def test_examples_and_inputs_bring_their_padding_and_rows():
    layer, X = generic_layer(1, 3, 2), gaussian(60, 4, 3)
    present = np.ones((60, 4), bool)
    present[::2, 3] = False
    report = identifiability(layer, Inputs(X, present))
    assert report.outputs == (30 * 3 + 30 * 4) * 2 and report.agrees
    examples = Examples(X, layer(X, present, "last"), mask=present, rows="last")
    assert identifiability(layer, examples).outputs == 60 * 2


@pytest.mark.slow
def test_tokens_that_are_absent_or_unseen_do_not_count():
    """The last coordinate is constant among the tokens that are there."""
    layer, X = generic_layer(2, 3, 2), gaussian(60, 5, 3)
    X[:, :4, 2] = 1.0
    present = np.ones((60, 5), bool)
    present[:, 4] = False
    for inputs in (Inputs(X, present), Inputs(X[:, ::-1], present[:, ::-1], "last")):
        report = identifiability(layer, inputs)
        assert report.agrees and report.dimension == 2 * (2 * 3 + 2)


@pytest.mark.slow
def test_a_direction_that_is_constant_within_sequences_hides_row_shifts_and_shared_ov():
    """m d + (m - 1) d_out where circuits alone are unknown, m more for the query biases; the offset cannot undo it."""
    X = gaussian(80, 5, 4)
    X[..., 0] = X[:, :1, 0]
    layer = generic_layer(2, 4, 3)
    report = identifiability(layer, X)
    assert report.agrees and report.dimension == 2 * 4 + 2 + 3
    circuits = identifiability(layer, X, unknowns=Unknowns(free=("qk", "ov")))
    assert circuits.agrees and circuits.dimension == 2 * 4 + 3


@pytest.mark.slow
def test_circuits_of_known_rank_keep_what_changes_no_rank():
    """With a constant coordinate: the directions of the closed form that are tangent to circuits of rank 1."""
    key = np.random.default_rng(0)
    qk = np.einsum("mi,mj->mij", *key.standard_normal((2, 2, 4)))
    ov = np.einsum("mi,mj->mij", key.standard_normal((2, 4)), key.standard_normal((2, 3)))
    layer = AttentionLayer(qk, ov)
    unknowns = Unknowns(free=("qk", "ov"), head_dim=1)
    report = identifiability(layer, constant_coordinate(80), unknowns=unknowns)
    # qk[h] + u aᵀ has rank 1 to first order for u along the left factor alone; ov[h] + a c_hᵀ for c_h along the right
    # one, and these are not parallel, so that no sum of them vanishes.
    assert report.agrees and report.dimension == 2
