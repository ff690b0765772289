"""Whole layers, copied from questions: accuracy, structure, cost, budget."""

import math

import black_boxes
import numpy as np
import planted
import pytest
from black_boxes import WIDTH

import attnlearn as al
from attnlearn._status import Status
from attnlearn.learners.queries.isolation import BLOCK, FIRST_BLOCK
from attnlearn.records import Cost

THETA = 1e-8  # what the logits leave at the worst conditioning of these shapes; 1e-13 to 1e-10 is usual
LAYER = planted.random_black_box_layer(100, WIDTH, 3, 4)
# (d, m, head_dim) and the calls that learning may take
SHAPES = [(32, 4, 8), (64, 8, 8), (64, 12, 8), (48, 6, 16), (48, 1, 12), (24, 12, 4)]
CALLS = {(32, 4, 8): 1000, (64, 8, 8): 1100, (64, 12, 8): 1700, (48, 6, 16): 1200, (48, 1, 12): 700, (24, 12, 4): 1200}


def learned(layer, seed=0, oracle=None, **options):
    learner = al.learners.MultiHeadQueries(**options)
    return learner.learn(oracle or al.oracles.from_layer(layer), np.random.default_rng(seed))


def assert_exact(result, layer, head_dim=None):
    assert result.status is Status.LEARNED, result.evidence
    errors = al.distance(result.layer, layer)
    assert errors.worst < THETA and errors.ov < THETA / 10
    assert result.layer.slots == layer.slots
    if head_dim is not None:
        assert result.layer.heads == layer.heads
        assert figures(result)["isolation"]["ranks"] == [head_dim] * layer.heads
        assert figures(result)["qk"]["ranks"] == [head_dim] * layer.heads


def figures(result):
    return {phase.name: phase.figures for phase in result.phases}


def check_shape(shape, seeds):
    for seed in seeds:
        layer = planted.random_black_box_layer(100 + seed, *shape)
        result = learned(layer, seed)
        assert_exact(result, layer, head_dim=shape[2])
        assert result.cost.calls < CALLS[shape]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_random_layers_are_copied(shape):
    check_shape(shape, range(3))


@pytest.mark.slow
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_random_layers_are_copied_whatever_the_seed(shape):
    check_shape(shape, range(3, 20))


@pytest.mark.parametrize("seed", range(3))
def test_a_causal_mask_is_found_and_changes_nothing_else(seed):
    layer = planted.random_black_box_layer(100 + seed, 32, 4, 8, mask=al.Causal())
    result = learned(layer, seed)
    assert_exact(result, layer, head_dim=8)
    assert result.cost.calls < CALLS[32, 4, 8]
    assert figures(result)["affine"]["causal"]


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize(
    "kind",
    [{"gain": 10.0}, {"gain": 0.1}, {"biases": False}, {"width_out": 40}, {"width_out": 24}],
    ids=["long logits", "short logits", "no biases", "more outputs", "fewer outputs"],
)
def test_other_kinds_of_layers_are_copied(kind, seed):
    layer = planted.random_black_box_layer(100 + seed, 32, 4, 5, **kind)
    assert_exact(learned(layer, seed), layer, head_dim=5)


@pytest.mark.parametrize(
    "options",
    [
        {"head_dim": 8},
        {"economy": True, "head_dim": 8},
        {"amplitude": 1e3},
        {"bounded": True},
        {"scale": 0.5},
        {"logit_range": (1.0, 3.0)},
        {"fill": 0.3},
        {"oversampling": 6},
        {"heads": 4},
        {"slots": al.Slots()},
    ],
    ids=lambda options: ", ".join(options),
)
def test_every_option_leads_to_the_same_layer(options):
    layer = planted.random_black_box_layer(100, 32, 4, 8)
    assert_exact(learned(layer, **options), layer)


def test_economy_asks_less():
    layer = planted.random_black_box_layer(100, 64, 8, 8)
    asked = [learned(layer, **options).cost.calls for options in ({}, {"economy": True, "head_dim": 8})]
    assert asked[1] < 0.9 * asked[0]


def test_other_heads_than_announced_are_pointed_out():
    result = learned(LAYER, heads=5)
    assert result.status is Status.LEARNED
    assert result.evidence == "5 heads were announced, 3 are told apart by their answers."


def test_one_seed_asks_one_sequence_of_questions():
    asked = []
    for seed in (3, 3, 4):
        questions = []

        def remembering(X, questions=questions):
            questions.append(X.copy())
            return black_boxes.answers(LAYER)(X)

        result = learned(LAYER, seed, al.QueryOracle(remembering, WIDTH))
        asked.append((np.concatenate([X.ravel() for X in questions]), result.layer.qk))
    np.testing.assert_array_equal(asked[0][0], asked[1][0])
    np.testing.assert_array_equal(asked[0][1], asked[1][1])
    assert not np.array_equal(asked[0][0][: 20 * WIDTH], asked[2][0][: 20 * WIDTH])


# --- what it costs ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"head_dim": 4}, {"economy": True, "head_dim": 4}, {"bounded": True}])
def test_the_ledger_is_what_the_box_saw(options):
    seen = [0, 0, 0]

    def counted(X):
        Y = black_boxes.answers(LAYER)(X)
        for i, n in enumerate((len(X), X.shape[0] * X.shape[1], Y.size)):
            seen[i] += n
        return Y

    oracle = al.QueryOracle(counted, WIDTH)
    result = learned(LAYER, oracle=oracle, **options)
    ledger, cost = oracle.ledger, result.cost
    assert [ledger.calls, ledger.tokens, ledger.scalars] == [cost.calls, cost.tokens, cost.scalars] == seen
    assert sum(phase.calls for phase in result.phases) == ledger.calls
    assert ledger.by_purpose == {"learning": ledger.calls}


def blocks_of(total, first, following):
    """The sizes of the blocks in which `total` was asked."""
    sizes = [min(first, total)]
    while sum(sizes) < total:
        sizes.append(min(following, total - sum(sizes)))
    return sizes


@pytest.mark.parametrize("shape", [(32, 4, 8), (64, 12, 8), (48, 1, 12), (24, 12, 4)], ids=str)
@pytest.mark.parametrize("economy", [False, True])
def test_formulas_reproduce_the_cost_of_every_stage(shape, economy):
    d, _, head_dim = shape
    layer = planted.random_black_box_layer(101, *shape)
    given = {"economy": True, "head_dim": head_dim} if economy else {}
    result = learned(layer, 1, **given)
    assert [phase.name for phase in result.phases] == ["affine", "atoms", "directions", "isolation", "qk", "check"]
    calls, found = {phase.name: phase.calls for phase in result.phases}, figures(result)

    assert calls["affine"] == (d + 1) + 8
    atoms = found["atoms"]
    assert calls["atoms"] == 8 * (1 + round(math.log(atoms["length"] / (128 * 30), 8))) + 80 + atoms["points"]
    assert calls["directions"] == found["directions"]["pilots"] + found["directions"]["probes"] + 1
    isolation = found["isolation"]
    searches = 1 + round(math.log(isolation["length"] / 4, 1.6))
    probes = isolation["probes"] - 2
    blocks = [probes] if economy else blocks_of(probes, FIRST_BLOCK, BLOCK)
    dense = d + 1 if isolation["conditioning"] is None else 0
    assert calls["isolation"] == 5 * searches + sum(1 + block for block in blocks) + dense
    qk = found["qk"]
    q, w, growth = max(qk["q"], 1), qk["w"], head_dim + 2 if economy else max(qk["w"], 4)
    columns = sum(math.ceil(block / w) for block in blocks_of(qk["columns"], growth, growth))
    assert calls["qk"] == math.ceil((d + 1) / q) * columns + math.ceil(qk["rows"] / q) * math.ceil(d / w)
    assert calls["check"] == 4


# --- what stops it ---------------------------------------------------------------------------------------------------


def test_one_question_less_than_needed_is_too_few():
    needed = learned(LAYER).cost.calls
    oracle = al.oracles.from_layer(LAYER, max_queries=needed - 1)
    result = learned(LAYER, oracle=oracle)
    assert result.status is Status.BUDGET_EXHAUSTED
    assert oracle.ledger.calls == result.cost.calls == needed - 1
    assert f"{needed - 1} of {needed - 1} sequences asked" in result.evidence
    assert result.phases[-1].name == "check"
    assert al.distance(result.layer, LAYER).worst < THETA  # the best so far is kept
    assert learned(LAYER, oracle=al.oracles.from_layer(LAYER, max_queries=needed)).status is Status.LEARNED


@pytest.mark.parametrize(
    "budget, stage, kept",
    [
        (5, "affine", set()),
        (60, "atoms", {"offset", "ov_sum"}),
        (190, "directions", {"offset", "ov_sum", "atoms", "spectrum_heads"}),
        (300, "qk", {"offset", "ov_sum", "atoms", "spectrum_heads", "ov", "spectrum_ov"}),
    ],
)
def test_what_stages_had_learned_is_kept(budget, stage, kept):
    oracle = al.oracles.from_layer(LAYER, max_queries=budget)
    result = learned(LAYER, oracle=oracle)
    assert result.status is Status.BUDGET_EXHAUSTED
    assert (result.phases[-1].name, set(result.arrays)) == (stage, kept)
    assert oracle.ledger.calls == budget
    assert result.layer is None
    if "ov_sum" in kept:
        np.testing.assert_allclose(result.arrays["ov_sum"], LAYER.ov.sum(axis=0), atol=1e-12)
        np.testing.assert_allclose(result.arrays["offset"], LAYER.offset, atol=1e-12)


def test_a_layer_that_misses_fresh_answers_is_not_called_learned():
    """Every stage asks up to nine tokens and finds the same on both ways; the check asks ten."""
    oracle = al.QueryOracle(black_boxes.window(black_boxes.answers(LAYER), 9), WIDTH)
    result = learned(LAYER, oracle=oracle)
    assert result.status is Status.HEADS_NEARLY_EQUAL
    assert "3 heads misses fresh answers by" in result.evidence
    assert [phase.name for phase in result.phases].count("check") == 2


def test_without_exact_answers_a_uniform_head_is_not_resolved():
    def uniform(qk, ov, query_bias):
        qk[1] = query_bias[1] = 0

    oracle = al.oracles.from_layer(black_boxes.edited(LAYER, uniform), dtype="float32")
    result = learned(LAYER, oracle=oracle)
    assert result.status is Status.HEADS_UNRESOLVED
    assert [phase.name for phase in result.phases] == ["affine", "atoms"]


def test_a_bounded_box_is_never_asked_long_tokens():
    """The flips along a circle need tokens of 1e9: with `bounded` that way is not taken."""
    longest = [0.0]

    def uniform(qk, ov, query_bias):
        qk[1] = query_bias[1] = 0

    answer = black_boxes.answers(black_boxes.edited(LAYER, uniform))

    def measuring(X):
        longest[0] = max(longest[0], np.abs(X).max())
        return answer(X)

    result = learned(LAYER, oracle=al.QueryOracle(measuring, WIDTH), bounded=True)
    assert result.status is Status.HEADS_UNRESOLVED
    assert longest[0] < 100  # ten standard deviations of 10 times a probe


@pytest.mark.parametrize("mask, sees", [(None, "the tokens after it"), (al.Causal(), "itself alone")])
def test_a_mask_unlike_the_one_given_is_named(mask, sees):
    layer = planted.random_black_box_layer(100, WIDTH, 3, 4, mask=mask)
    other = al.Slots(mask=None if mask else al.Causal())
    result = learned(layer, slots=other)
    assert result.status is Status.NOT_ATTENTION
    assert f"The first of three tokens sees {sees}, unlike the mask that was given" in result.evidence


# --- wrong use -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options, wanted",
    [
        ({"amplitude": 0.5}, "amplitude must be at least 1, got 0.5"),
        ({"scale": 0.0}, "scale must be positive, got 0.0"),
        ({"scale": float("nan")}, "scale must be positive"),
        ({"economy": True}, "economy needs head_dim"),
        ({"head_dim": 0}, "head_dim must be a whole number of at least 1, got 0"),
        ({"oversampling": 0}, "oversampling must be a whole number of at least 1, got 0"),
        ({"fill": 1.5}, "fill must lie above 0 and not above 1, got 1.5"),
        ({"logit_range": ()}, "logit_range must hold positive numbers"),
        ({"amplitude": float("inf")}, "amplitude must be at least 1"),
        ({"slots": al.Slots(normaliser=lambda scores, visible: scores)}, "logarithm of a softmax"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_options_that_make_no_sense_are_refused(options, wanted):
    with pytest.raises(ValueError, match=wanted):
        al.learners.MultiHeadQueries(**options)


def test_more_rank_than_width_is_refused():
    with pytest.raises(ValueError, match="head_dim is 17, more than the token width 16"):
        learned(LAYER, head_dim=17)


def test_nothing_learned_costs_nothing():
    oracle = al.QueryOracle(black_boxes.counting(None, 0, lambda: 1 / 0), WIDTH)
    result = learned(LAYER, oracle=oracle)
    assert result.status is Status.ORACLE_FAILED and "ZeroDivisionError" in result.evidence
    assert isinstance(result.cost, Cost) and result.cost.calls == 1  # the question that failed


def test_small_steps_need_an_exact_box(key):
    """A derivative by steps of 1e-4 has no digit left in float32."""
    oracle = al.QueryOracle(lambda X: X, 4, dtype="float32")
    with pytest.raises(ValueError, match="bounded takes derivatives by small steps"):
        al.learners.MultiHeadQueries(bounded=True).learn(oracle, key)
