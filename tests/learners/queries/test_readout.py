"""Attention weights read from answers, against the definition; circuits from their logits."""

import numpy as np
import oracles
import planted
import pytest
from black_boxes import WIDTH, affine_of, box_of, edited, values_of

import attnlearn as al
from attnlearn._status import Status, Stop
from attnlearn.learners.queries.readout import Blocks, Circuits, Reader, Scales, best_of, block_sizes, learn_circuits

LAYER = planted.random_black_box_layer(100, WIDTH, 2, 6)


def reader_of(layer, blocks, **box):
    return Reader(box_of(layer, **box), affine_of(layer), values_of(layer), blocks)


@pytest.mark.parametrize("mask", [None, al.Causal()])
@pytest.mark.parametrize("blocks", [Blocks(1, 1), Blocks(1, 2), Blocks(2, 2), Blocks(0, 1), Blocks(0, 3)])
def test_logits_of_a_grid_are_bilinear_forms(key, mask, blocks):
    layer = planted.random_black_box_layer(100, WIDTH, 2, 6, mask=mask)
    queries, keys = key.standard_normal((5, WIDTH)), key.standard_normal((4, WIDTH))
    reader = reader_of(layer, blocks)
    got = reader.grid(queries, keys)
    expected = np.zeros_like(got)
    for head in range(layer.heads):
        for a, u in enumerate(queries):
            for j, v in enumerate(keys):
                expected[head, a, j] = u @ layer.qk[head] @ v + layer.query_bias[head] @ v
    # A weight is read to 1e-15 times the conditioning of the token values; its logarithm divides that by the weight.
    allowed = 1e-14 * reader.conditioning / min(reader.smallest, 1)
    np.testing.assert_allclose(got, expected, atol=allowed)
    assert allowed < 1e-10
    assert reader.box.calls == -(-5 // max(blocks.q, 1)) * -(-4 // blocks.w)
    assert not reader.failed.any()


@pytest.mark.parametrize("mask", [None, al.Causal()])
def test_the_smallest_weight_is_that_of_the_definition(key, mask):
    layer = planted.random_black_box_layer(100, WIDTH, 2, 6, mask=mask)
    u, v = key.standard_normal((2, 2, WIDTH))
    reader = reader_of(layer, Blocks(2, 2))
    reader.grid(u, v)
    maps = oracles.attention_maps(layer, np.concatenate([v, np.zeros((1, WIDTH)), u]))
    assert reader.smallest == pytest.approx(maps[:, 3:, :3].min(), rel=1e-9)


@pytest.mark.parametrize(
    "d_out, ranks, fill, blocks",
    [
        (384, (32,) * 12, 0.6, Blocks(9, 10)),  # both caps give 19
        (48, (12,), 0.6, Blocks(3, 4)),  # the values of one head must be independent
        (64, (8,) * 8, 0.3, Blocks(1, 1)),
        (24, (4,) * 12, 0.6, Blocks(0, 1)),  # less than two tokens: one querying token in a sequence
    ],
)
def test_blocks_keep_both_caps(d_out, ranks, fill, blocks):
    assert block_sizes(d_out, ranks, fill, False) == blocks


def test_with_isolated_rows_there_is_one_querying_token():
    assert block_sizes(384, (32,) * 12, 0.6, True) == Blocks(0, 19)


def test_says_so_when_there_are_more_heads_than_outputs():
    with pytest.raises(Stop, match="5 heads share 4 output numbers: no weight can be read") as caught:
        block_sizes(4, (2,) * 5, 0.6, False)
    assert caught.value.status is Status.READOUT_ILL_CONDITIONED


@pytest.mark.parametrize("share", [1.0, -1.0, -0.5, 0.0])
def test_says_so_when_two_heads_share_an_ov_circuit(key, share):
    def shared(qk, ov, query_bias):
        ov[1] = share * ov[0]

    reader = reader_of(edited(LAYER, shared), Blocks(1, 2))
    with pytest.raises(Stop, match="two heads share an OV circuit or its row space") as caught:
        reader.grid(*key.standard_normal((2, 4, WIDTH)))
    assert caught.value.status is Status.READOUT_ILL_CONDITIONED


def test_directions_that_are_not_sure_are_left_out(key):
    """With a wrong OV circuit in one output direction the weights are still right where that is known."""
    wrong = key.standard_normal(WIDTH)
    wrong /= np.linalg.norm(wrong)
    true = values_of(LAYER)
    ov = true.ov + 1e-3 * key.standard_normal((2, WIDTH, 1)) * wrong
    values = type(true)(ov, true.ranks, 1e-15, true.logit_size, true.bias_size, true.spectra, uncertain=wrong[None])
    reader = Reader(box_of(LAYER), affine_of(LAYER), values, Blocks(1, 2))
    queries, keys = 0.5 * key.standard_normal((2, 4, WIDTH))
    extended = np.einsum("ad,mde->mae", queries, LAYER.qk) + LAYER.query_bias[:, None]
    allowed = 1e-13 * reader.conditioning / min(reader.smallest, 1)
    np.testing.assert_allclose(reader.grid(queries, keys), extended @ keys.T, atol=max(allowed, 1e-11))


@pytest.mark.parametrize("head_dim", [None, 6])
def test_circuits_and_ranks_come_from_two_sketches(key, head_dim):
    found = learn_circuits(reader_of(LAYER, Blocks(1, 2)), Scales(0.6, 0.6), key, head_dim)
    truth = np.concatenate([LAYER.qk, LAYER.query_bias[:, None]], axis=1)
    assert found.ranks == (6, 6)
    # Logits to 1e-12, divided by tokens of 0.6 on both sides, times the conditioning of a 14 by 6 Gaussian sketch.
    np.testing.assert_allclose(found.extended, truth, atol=1e-10)
    assert 0 < found.smallest_weight < 1
    assert found.misfit.max() < 1e-10
    assert found.sketch == ((10, 14) if head_dim else (found.sketch[0], 14))


def test_a_uniform_head_has_rank_zero(key):
    def uniform(qk, ov, query_bias):
        qk[1] = query_bias[1] = 0

    found = learn_circuits(reader_of(edited(LAYER, uniform), Blocks(1, 2)), Scales(0.6, 0.6), key)
    assert found.ranks == (6, 0)
    assert not found.extended[1].any()


def circuits(fill, misfit):
    return Circuits(np.full((2, 3, 2), fill), (2, 2), np.ones((2, 2)), 0.01 * fill, np.array(misfit), (4, 5))


def test_every_head_comes_from_the_try_that_fits_it_best():
    best = best_of([circuits(1.0, [0.1, np.inf]), circuits(2.0, [0.2, 0.3])])
    assert [head[0, 0] for head in best.extended] == [1.0, 2.0]
    assert best.smallest_weight == 0.01


def test_says_so_when_a_head_has_a_negative_weight_in_every_try():
    with pytest.raises(Stop, match="least attention weight read is -1.0e-02, not positive") as caught:
        best_of([circuits(-1.0, [0.1, np.inf]), circuits(2.0, [0.2, np.inf])])
    assert caught.value.status is Status.READOUT_ILL_CONDITIONED
