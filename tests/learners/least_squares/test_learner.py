"""Layers from examples alone: planted, learned, compared up to symmetry; and what is said where it cannot be done."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import attnlearn as al
from attnlearn._progress import listening
from attnlearn._status import Status
from attnlearn.data.examples import Examples
from attnlearn.learners.least_squares import VariableProjection, learner
from tests.learners.least_squares.small import both, examples, figures, learned, planted, tokens

SUCCESS = 1e-6  # of the tables; seen are 1e-12 to 1e-10
BARE = {"query_bias": False, "offset": False}


def error(result, truth, given):
    assert result.layer is not None
    return al.distance(result.layer, truth, X=given.X).worst


# --- recovery: one instance of each row of the tables ----------------------------------------------------------------

ROWS = {
    "logits 1": ((8, 2, 8, 20), {}, {}),
    "logits 4": ((8, 4, 16, 20), {"logit_std": 4.0}, {}),
    "causal": ((8, 4, 16, 20), {"logit_std": 4.0, "slots": al.Slots(mask=al.Causal())}, {}),
    "two tokens": ((4, 2, 2, 80), {"logit_std": 4.0}, {}),
    "rank 2": ((16, 2, 16, 24), {"logit_std": 2.0, "rank": 2}, {}),
    "more heads than directions": ((3, 4, 12, 16), {}, {}),
    "2.5 numbers an unknown": ((8, 2, 8, 10), {}, {"resets": 12, "restarts": 5}),
    "scalar outputs, biases": ((4, 2, 8, 48), {"width_out": 1, "biases": True}, {"query_bias": True, "offset": True}),
}


@pytest.mark.slow
@pytest.mark.parametrize("sizes, recipe, options", ROWS.values(), ids=ROWS)
def test_a_planted_layer_is_recovered(sizes, recipe, options):
    truth, given = both(0, sizes, **recipe)
    result = learned(given, heads=sizes[1], slots=truth.slots, noise=0.0, **{**BARE, **options})
    assert result.status is Status.LEARNED, result.evidence
    assert error(result, truth, given) < SUCCESS
    assert result.cost.calls == len(given) and result.cost.scalars == given.scalars


@pytest.mark.slow
def test_the_last_row_of_sequences_of_different_lengths_is_enough():
    sizes = 4, 1, 6, 80
    truth, X = planted(1, sizes, logit_std=2.0, biases=True), tokens(1, sizes, gaussian=True)
    mask = np.arange(6) < np.random.default_rng(0).integers(2, 7, 80)[:, None]
    given = examples(truth, X, mask=mask, rows="last")
    result = learned(given, heads=1)
    assert result.status is Status.LEARNED, result.evidence
    assert error(result, truth, given) < SUCCESS


@pytest.mark.slow
def test_thin_circuits_need_fewer_examples():
    truth = planted(0, (8, 2), logit_std=2.0, rank=1)
    truth = al.AttentionLayer(truth.qk, truth.ov[:, :, :1] * truth.ov[:, :1, :])  # OV circuits of rank 1 too
    given = examples(truth, tokens(0, (8, 2, 8, 3)))
    assert learned(given, heads=2, **BARE).status is Status.TOO_FEW_EXAMPLES
    sizes = 8, 2, 8, 20
    given = examples(truth, tokens(0, sizes))
    result = learned(given, heads=2, head_dim=1, noise=0.0, **BARE)
    assert result.status is Status.LEARNED, result.evidence
    assert error(result, truth, given) < SUCCESS
    assert figures(result, "fit")["unknowns"] == 2 * (15 + 15)


class SoftplusOverLength(eqx.Module):
    """A normaliser that the library does not know: softplus of the scores over the number of visible tokens."""

    def __call__(self, scores, visible):
        number = jnp.sum(visible, axis=-1, keepdims=True, dtype=scores.dtype)
        return jnp.where(visible, jax.nn.softplus(scores), 0.0) / number


@pytest.mark.slow
def test_a_normaliser_of_your_own_is_learned():
    truth = planted(0, logit_std=2.0, slots=al.Slots(SoftplusOverLength(), al.Causal()))
    given = examples(truth, tokens(0, gaussian=True))
    result = learned(given, heads=2, slots=truth.slots, noise=0.0)
    assert result.status is Status.LEARNED, result.evidence
    assert result.layer.slots == truth.slots
    fresh = tokens(5, gaussian=True)
    assert np.abs(result.layer(fresh) - truth(fresh)).max() < 1e-8 * np.abs(truth(fresh)).max()


def test_auto_stands_for_every_normaliser_with_and_without_a_causal_mask():
    normalisers = {type(slots.normaliser) for slots in learner.AUTO}
    assert normalisers == {al.Softmax, al.Sigmoid, al.ReLU, al.Linear, al.Erf}
    assert len(learner.AUTO) == 10 and {slots.mask for slots in learner.AUTO} == {None, al.Causal()}


@pytest.mark.slow
def test_slots_are_chosen_and_the_evidence_is_reported(monkeypatch):
    candidates = al.Slots(), al.Slots(al.Sigmoid(), al.Causal())
    monkeypatch.setattr(learner, "AUTO", candidates)
    sizes = 3, 1, 5, 16
    truth = planted(0, sizes, logit_std=2.0, slots=candidates[1])
    given = examples(truth, tokens(0, sizes, gaussian=True))
    result = learned(given, heads=1, slots="auto", noise=0.0, restarts=2)
    assert result.status is Status.LEARNED, result.evidence
    assert result.layer.slots == candidates[1] and error(result, truth, given) < SUCCESS
    table = figures(result, "slots")["table"]
    assert [row["slots"] for row in table] == ["Softmax", "Sigmoid, Causal()"]
    assert table[1]["log_likelihood_ratio"] == 0 and table[0]["log_likelihood_ratio"] > 100
    assert table[1]["relative_error"] < 1e-6 < 0.01 < table[0]["relative_error"]


# --- numbers of heads ------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_number_of_heads_is_chosen_by_evidence():
    truth, given = both(0, logit_std=2.0)
    result = learned(given)
    assert result.status is Status.LEARNED, result.evidence
    assert result.layer.heads == 2 and error(result, truth, given) < SUCCESS
    found = figures(result, "heads")
    assert found["chosen"] == 2 and [row["heads"] for row in found["table"]] == [1, 2]
    # Announced: one too many, and one too few.
    more = learned(given, heads=3)
    assert more.status is Status.LEARNED, more.evidence
    assert more.layer.heads == 2 and error(more, truth, given) < SUCCESS
    assert "3 heads were announced, 2 explain the outputs as well" in more.evidence
    fewer = learned(given, heads=1, restarts=2)
    assert fewer.status is Status.WRONG_HEADS and "give heads=2" in fewer.evidence and fewer.layer.heads == 1


@pytest.mark.slow
def test_noise_makes_no_heads():
    """At 5 % noise heads beyond the first lower the residual, but by less than their unknowns are worth."""
    truth = planted(0, (4, 1), logit_std=2.0)
    given = examples(truth, tokens(0), noise=0.05)
    result = learned(given, restarts=2)
    assert result.status is Status.LEARNED, result.evidence
    assert result.layer.heads == 1 and error(result, truth, given) < 0.3  # the Cramér–Rao bound is near 0.05
    assert "if what is left is noise, its standard deviation is" in result.evidence
    assert len(figures(result, "heads")["table"]) == 3
    sigma = 0.05 * np.sqrt(np.mean(truth(given.X) ** 2))
    more = learned(given, heads=2, noise=sigma, restarts=2)
    assert more.status is Status.LEARNED, more.evidence
    sizes = np.sort(np.linalg.norm(more.layer.ov, axis=(1, 2)))
    assert more.layer.heads == 1 or sizes[0] < 0.1 * sizes[1]


# --- data of every kind ----------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_units_and_precision_of_the_data_change_nothing_else():
    truth, given = both(0, logit_std=2.0)
    result = learned(given, heads=2)
    assert result.status is Status.LEARNED and error(result, truth, given) < SUCCESS
    again = learned(given, heads=2)  # bit for bit
    for name in ("qk", "ov", "query_bias", "offset"):
        np.testing.assert_array_equal(getattr(again.layer, name), getattr(result.layer, name))
    assert figures(again, "search")["runs"] == figures(result, "search")["runs"]
    for scale in (1e6, 1e-6):
        scaled = learned(Examples(given.X, scale * given.Y), heads=2)
        assert scaled.status is Status.LEARNED, scaled.evidence
        back = al.AttentionLayer(
            scaled.layer.qk, scaled.layer.ov / scale, scaled.layer.query_bias, scaled.layer.offset / scale
        )
        assert al.distance(back, truth).worst < SUCCESS
    # Coordinates of the tokens: the same function.
    M = np.random.default_rng(1).standard_normal((4, 4)) + 2 * np.eye(4)
    turned = learned(Examples(given.X @ M, given.Y), heads=2)
    assert turned.status is Status.LEARNED, turned.evidence
    fresh = tokens(5)
    np.testing.assert_allclose(turned.layer(fresh @ M), result.layer(fresh), atol=1e-7)
    # Tokens of one precision and labels of another: to the coarser one.
    mixed = Examples(given.X.astype(np.int8), given.Y.astype(np.float32))
    with jax.enable_x64(False):
        rounded = learned(mixed, heads=2)
        assert not jax.config.jax_enable_x64
    assert rounded.status is Status.LEARNED, rounded.evidence
    assert rounded.layer.qk.dtype == np.float64
    assert 1e-12 < error(rounded, truth, given) < 1e-4  # 6e-8 times the conditioning
    twice = Examples(np.concatenate([given.X[:6]] * 2), np.concatenate([given.Y[:6]] * 2))
    assert "6 sequences repeat earlier ones and add no information" in learned(twice, heads=2, restarts=2).evidence


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["layer norm", "one-hot"])
def test_directions_that_tokens_do_not_have_are_left_at_zero(kind):
    """Five entries, four directions: zero sum and unit norm, or one of five symbols."""
    sizes = 5, 2, 8, 12
    X = tokens(0, sizes, gaussian=True)
    if kind == "layer norm":
        X = X - X.mean(axis=-1, keepdims=True)
        X /= X.std(axis=-1, keepdims=True)
    else:
        X = np.eye(5)[np.argmax(X, axis=-1)]
    truth = planted(0, sizes, logit_std=2.0, width_out=4)
    given = examples(truth, X)
    result = learned(given, heads=2)
    assert result.status is Status.LEARNED, result.evidence
    assert figures(result, "fit")["token_directions"] == [5, 4]
    fresh = X[:, :5][::-1]
    np.testing.assert_allclose(result.layer(fresh), truth(fresh), atol=1e-8)
    if kind == "one-hot":
        assert error(result, truth, given) < SUCCESS  # up to what these tokens hide
    else:
        np.testing.assert_allclose(result.layer.qk @ np.ones(5), 0, atol=1e-8)
        np.testing.assert_allclose(np.ones(5) @ result.layer.ov, 0, atol=1e-8)


@pytest.mark.slow
def test_chunks_are_only_another_way_to_add():
    sizes = 2, 1, 4, 7
    truth, given = both(0, sizes, logit_std=2.0)
    result = learned(given, heads=1, chunk=4, noise=0.0, restarts=3, candidates=1, **BARE)
    assert result.status is Status.LEARNED, result.evidence
    assert error(result, truth, given) < SUCCESS


# --- what cannot be done ---------------------------------------------------------------------------------------------


def test_fewer_numbers_than_unknowns_are_refused():
    _, given = both(0, (4, 2, 8, 2))  # 64 numbers
    result = learned(given, heads=2)
    assert result.status is Status.TOO_FEW_EXAMPLES and result.layer is None
    # 2 (5·4 + 4·4) + 4 unknowns
    assert "2 examples hold 64 numbers and 2 heads have 76 unknowns: at least 3 examples are needed" in result.evidence


@pytest.mark.slow
def test_scarce_numbers_are_warned_of(monkeypatch):
    monkeypatch.setattr(learner, "SCARCE", 6.0)
    _, given = both(0, logit_std=2.0)  # 384 numbers for 2 (5·4 + 4·4) + 4 unknowns
    result = learned(given, heads=2)
    assert "only 5.05 observed numbers for each unknown: a perfect fit need not be the layer" in result.evidence
    assert figures(result, "fit")["ratio"] == pytest.approx(384 / 76)


def test_constant_outputs_have_no_ov_circuit():
    result = learned(Examples(tokens(0), np.full((12, 8, 4), 3.0)), heads=2)
    assert result.status is Status.OV_DEGENERATE and result.layer is None
    assert "All outputs are equal" in result.evidence


def test_sequences_of_one_token_show_no_attention():
    X = tokens(0)
    result = learned(Examples(X[:, :1], X[:, :1] @ np.ones((4, 2))), heads=1)
    assert result.status is Status.NOT_IDENTIFIABLE and "Every sequence has one token" in result.evidence
    mask = np.arange(8) < np.ones((12, 1))
    assert learned(Examples(X, X, mask), heads=1).status is Status.NOT_IDENTIFIABLE


@pytest.mark.slow
def test_outputs_that_no_layer_gives_are_not_explained():
    X = tokens(0, gaussian=True)
    given = Examples(X, np.sin(5 * X[:, ::-1]))
    result = learned(given, heads=1, noise=0.1, restarts=1)
    assert result.status is Status.STALLED
    assert "That is a misfit of" in result.evidence and "against a noise of 0.1" in result.evidence
    assert result.layer.heads == 1 and figures(result, "fit")["loss"] > 0.1
    result = learned(given, heads=1, restarts=1)  # one start cannot agree with another
    assert result.status is Status.NO_AGREEMENT
    assert "Either no layer of this kind gives these outputs" in result.evidence and result.layer is not None


# --- interruption ----------------------------------------------------------------------------------------------------


def interrupted_at(report):
    reports = []

    def listener(stage, done, total):
        reports.append(stage)
        if len(reports) >= report:
            raise KeyboardInterrupt

    return listener


@pytest.mark.slow
def test_an_interrupted_run_keeps_the_best_layer_so_far():
    truth = planted(3, logit_std=2.0, biases=True)
    given = examples(truth, tokens(3), noise=0.05)  # unknown noise: one run is never enough
    with listening(interrupted_at(1)):
        result = learned(given, heads=2)
    assert result.status is Status.INTERRUPTED and result.layer is None
    assert "before the first run had ended" in result.evidence
    with listening(interrupted_at(2)):
        result = learned(given, heads=2)
    assert result.status is Status.INTERRUPTED and result.layer.heads == 2
    (run,) = figures(result, "search")["runs"]
    assert f"Stopped after 1 runs, at a relative residual of {np.sqrt(run['loss']):.2g}." == result.evidence
    residual = np.linalg.norm(result.layer(given.X) - given.Y) / np.linalg.norm(given.Y)
    assert residual == pytest.approx(np.sqrt(run["loss"]), rel=1e-6)


# --- wrong use -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options, wanted",
    [
        ({"heads": 0}, "heads must be a whole number of at least 1, got 0"),
        ({"head_dim": 0}, "head_dim must be a whole number of at least 1"),
        ({"restarts": 0}, "restarts must be a whole number of at least 1"),
        ({"resets": -1}, "resets must be a whole number of at least 0"),
        ({"chunk": 0}, "chunk must be a whole number of at least 1"),
        ({"devices": 0}, "devices must be a whole number of at least 1"),
        ({"noise": -1.0}, "noise must be a standard deviation, at least 0, got -1.0"),
        ({"noise": float("nan")}, "noise must be a standard deviation"),
        ({"slots": "softmax"}, "slots must be Slots, a tuple of them, or 'auto', got 'softmax'"),
        ({"slots": ()}, r"slots must be Slots, a tuple of them, or 'auto', got \(\)"),
        ({"devices": 2, "chunk": 4}, "devices hold all sequences at once"),
    ],
)
def test_settings_without_a_meaning_are_refused(options, wanted):
    with pytest.raises(ValueError, match=wanted):
        VariableProjection(**options)


def test_more_devices_than_there_are_is_wrong_use():
    _, given = both(0)
    with pytest.raises(ValueError, match="devices=99, and JAX sees"):
        learned(given, heads=2, devices=99)


def test_large_sets_are_read_in_chunks(monkeypatch):
    monkeypatch.setattr(learner, "BYTES_IN_MEMORY", 1)
    monkeypatch.setattr(learner, "BYTES_IN_CHUNK", 40_000)
    _, given = both(0)
    run = learner._Run(VariableProjection(heads=2), given, np.random.default_rng(0))
    assert run._chunk() == 40_000 // (8 * 8 * 2 * 3 * (8 + 4)) == 8
    assert learner._Run(VariableProjection(heads=2, chunk=5), given, np.random.default_rng(0))._chunk() == 5
