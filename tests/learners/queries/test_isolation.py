"""OV circuits from sequences in which every row belongs to one head."""

import numpy as np
import planted
import pytest
from black_boxes import WIDTH, affine_of, atoms_of, box_of, directions_of

import attnlearn as al
from attnlearn._status import Status, Stop
from attnlearn.learners.queries.isolation import learn_values
from attnlearn.learners.queries.probing import Affine

LAYER = planted.random_black_box_layer(100, WIDTH, 3, 4)
CROWDED = planted.random_black_box_layer(100, WIDTH, 3, 8)  # 24 columns of OV in 16 outputs


def values(layer, key, affine=None, directions=None, box=None, **options):
    v0 = np.random.default_rng(3).standard_normal(layer.width)
    directions = directions or directions_of(layer, v0)
    return learn_values(
        box or box_of(layer), affine or affine_of(layer), atoms_of(layer, v0), directions, key, **options
    )


@pytest.mark.parametrize("mask", [None, al.Causal()])
@pytest.mark.parametrize("head_dim", [None, 4])
def test_independent_output_spaces_need_only_the_sum(key, mask, head_dim):
    layer = planted.random_black_box_layer(100, WIDTH, 3, 4, mask=mask)
    found = values(layer, key, head_dim=head_dim)
    # Rounding of the sum and of the spaces, enlarged by the conditioning of the stacked spaces.
    allowed = 1e-14 * found.figures["conditioning"] ** 2
    np.testing.assert_allclose(found.ov, layer.ov, atol=allowed)
    assert found.ranks == (4, 4, 4)


def test_crowded_output_spaces_are_asked_on_a_basis(key):
    box = box_of(CROWDED)
    found = values(CROWDED, key, box=box)
    np.testing.assert_allclose(found.ov, CROWDED.ov, atol=1e-12)  # isolation to 1e-12, the basis is orthogonal
    assert found.ranks == (8, 8, 8)
    assert found.figures["conditioning"] is None


def test_its_cost_is_a_formula(key):
    box = box_of(CROWDED)
    found = values(CROWDED, key, box=box)
    searches = 1 + np.log(found.figures["length"] / 4) / np.log(1.6)
    assert searches == pytest.approx(round(searches))
    probes = found.figures["probes"]
    assert probes == 16  # two of the search and a block of 14, which are all d
    assert box.calls == 5 * round(searches) + (probes - 2 + 1) + (WIDTH + 1)


def test_waits_for_a_head_that_first_sits_on_another_token(key):
    """A head that never looks at the first token answers nothing, exactly and at every length: that is no isolation."""
    v0 = np.random.default_rng(3).standard_normal(WIDTH)
    asks, attracts = np.random.default_rng(100).standard_normal((2, WIDTH))
    attracts -= v0 * (attracts @ v0) / (v0 @ v0)  # leaves the direction towards v0 as it is
    qk = LAYER.qk.copy()
    qk[0] += 30 * np.outer(asks, attracts)
    layer = al.AttentionLayer(qk, LAYER.ov, LAYER.query_bias, LAYER.offset)
    np.testing.assert_allclose(values(layer, key).ov, layer.ov, atol=1e-12)


def test_says_so_when_no_token_isolates_a_head(key):
    elsewhere = directions_of(LAYER, np.random.default_rng(3).standard_normal(WIDTH))
    with pytest.raises(Stop, match="Answers still move by .* times the token length") as caught:
        values(LAYER, key, directions=elsewhere, box=box_of(_blind(LAYER)))
    assert caught.value.status is Status.ISOLATION_FAILED


def _blind(layer):
    """Scores so small that attention stays spread over all tokens."""
    return al.AttentionLayer(1e-9 * layer.qk, layer.ov, 0 * layer.query_bias, layer.offset)


@pytest.mark.parametrize("layer", [LAYER, CROWDED])
def test_says_so_when_the_circuits_miss_their_sum(key, layer):
    true = affine_of(layer)
    wrong = Affine(true.offset, true.ov_sum + 1e-3 * key.standard_normal(true.ov_sum.shape))
    with pytest.raises(Stop, match="They miss it by .*e-0[234] \\(limit 1.0e-06\\)") as caught:
        values(layer, key, affine=wrong)
    assert caught.value.status is Status.OV_SUM_MISMATCH


def test_nearly_dependent_output_spaces_name_their_uncertain_directions(key):
    """One dependence between the spaces of two heads, a part in 1e5: it blurs one direction a head, no more."""
    wide = planted.random_black_box_layer(100, 48, 3, 4)
    rows = [np.linalg.svd(w)[2][:4] for w in wide.ov]
    near = rows[0][0] + 1e-5 * key.standard_normal(48)
    ov = wide.ov.copy()
    ov[1] += ov[1] @ rows[1][0][:, None] * (near - rows[1][0])[None]
    layer = al.AttentionLayer(wide.qk, ov, wide.query_bias, wide.offset)
    found = values(layer, key)
    assert found.figures["conditioning"] > 1e4
    assert found.uncertain is not None and len(found.uncertain) == 3
    sure = np.eye(48) - found.uncertain.T @ found.uncertain
    np.testing.assert_allclose(found.ov @ sure, layer.ov @ sure, atol=1e-11)
