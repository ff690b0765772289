"""The closed form against the measured null space, for every normaliser, mask, kind of token and reading of rows."""

import numpy as np
import pytest

import attnlearn as al
from attnlearn.certify.coordinates import Unknowns
from attnlearn.layers.inputs import Inputs

NORMALISERS = {one.__name__: one() for one in (al.Softmax, al.Sigmoid, al.ReLU, al.Linear, al.Erf)}
CIRCUITS = Unknowns(free=("qk", "ov"))


def tokens(kind, n, k, d):
    key = np.random.default_rng(0)
    X = key.standard_normal((n, k, d))
    if kind == "constant":
        X[..., 0] = 1.0
    if kind == "zero-sum":
        X -= X.mean(axis=-1, keepdims=True)
        X /= X.std(axis=-1, keepdims=True)
    return np.eye(d)[key.integers(d, size=(n, k))] if kind == "one-hot" else X


def layer_of(slots, shape, biases=True):
    key = np.random.default_rng(1)
    m, d, d_out = shape
    circuits = key.standard_normal((m, d, d)) / np.sqrt(d), key.standard_normal((m, d, d_out))
    more = key.standard_normal((m, d)) / 2, key.standard_normal(d_out)
    return al.AttentionLayer(*circuits, *(more if biases else (None, None)), slots=slots)


def measured(name, kind, shape, mask=None, rows="all", padded=False, unknowns=Unknowns()):
    X = tokens(kind, 60 if rows == "all" else 150, 4, shape[1])
    present = np.ones(X.shape[:2], bool)
    present[::3, -1] = present[1::3, 0] = False
    layer = layer_of(al.Slots(NORMALISERS[name], mask), shape, unknowns == Unknowns())
    return al.identifiability(layer, Inputs(X, present if padded else None, rows), unknowns=unknowns)


# With qk and ov alone unknown, at (m, d, d_out) = (2, 5, 5): softmax m d + (m - 1) d_out; linear m²; with one-hot
# tokens m² d; with zero-sum tokens m (2 d - 1) + m d_out more, the same for all.
CIRCUIT_COUNTS = {
    "Softmax": (0, 15, 15, 28),
    "Sigmoid": (0, 0, 20, 28),
    "Erf": (0, 0, 20, 28),
    "ReLU": (2, 2, 40, 30),  # one-hot: dead entries of this layer, no formula
    "Linear": (4, 4, 20, 32),
}
KINDS = ("gaussian", "constant", "one-hot", "zero-sum")


@pytest.mark.slow
@pytest.mark.parametrize("name", NORMALISERS)
@pytest.mark.parametrize("kind", KINDS)
def test_circuits_alone_have_the_nullity_of_the_table(name, kind):
    report = measured(name, kind, (2, 5, 5), unknowns=CIRCUITS)
    assert report.agrees and report.dimension == CIRCUIT_COUNTS[name][KINDS.index(kind)]


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "name, mask",
    [(name, None) for name in NORMALISERS]  # compiled for the table already
    + [("Softmax", al.Causal()), ("Sigmoid", al.Causal()), ("Linear", al.Causal()), ("Erf", al.Window(3))],
)
def test_biases_add_what_a_constant_direction_makes_double(name, mask, kind):
    m, d, d_out = 2, 5, 5
    report = measured(name, kind, (m, d, d_out), mask)
    assert report.agrees and report.notes == ()
    own = {"ReLU": m, "Linear": m * m}.get(name, 0)
    if kind == "gaussian":
        assert report.dimension == own
    elif name == "Softmax":
        assert report.dimension == m * (2 * d + d_out)
    elif kind == "constant":
        assert report.dimension == own + m * d
    elif kind == "zero-sum":
        assert report.dimension == own + m * (2 * d + d_out)
    elif name != "ReLU":
        counted = name == "Sigmoid" and mask is not None  # rows see different numbers of tokens
        assert report.dimension == m * d + (0 if counted else m * m * d)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name, rows, mask, padded",
    [
        ("Softmax", "last", None, False),
        ("Sigmoid", "last", al.Causal(), True),
        ("Linear", "last", None, True),
        ("Softmax", "mean", None, True),
        ("ReLU", "mean", al.Causal(), False),
        ("Sigmoid", "all", al.Causal(), True),
        ("Erf", "all", al.Window(2), True),
    ],
)
def test_other_rows_and_padding_leave_the_counts(name, rows, mask, padded):
    for kind in ("gaussian", "constant"):
        report = measured(name, kind, (2, 4, 3), mask, rows, padded)
        own = {"ReLU": 2, "Linear": 4}.get(name, 0)
        constant = 22 if name == "Softmax" else own + 8
        assert report.agrees and report.dimension == (own if kind == "gaussian" else constant)


@pytest.mark.slow
@pytest.mark.parametrize("name, m, d_out", [("Sigmoid", 3, 2), ("Erf", 2, 1), ("Linear", 5, 3)])
def test_each_key_type_hides_the_factorisation_of_its_answers(name, m, d_out):
    """d [m (d + d_out) - r (d + d_out - r)] with r = min(m, d, d_out)."""
    d, r = 4, min(m, 4, d_out)
    report = measured(name, "one-hot", (m, d, d_out), unknowns=CIRCUITS)
    assert report.agrees and report.dimension == d * (m * (d + d_out) - r * (d + d_out - r))


@pytest.mark.slow
@pytest.mark.parametrize("m, counts", [(2, (8, 9)), (3, (21, 24))])
def test_one_output_of_linear_heads_hides_more(m, counts):
    """m² + m (m - 1) / 2 for each row of [qk; query_bias]."""
    for unknowns, count in zip((CIRCUITS, Unknowns()), counts, strict=True):
        report = measured("Linear", "gaussian", (m, 4, 1), rows="last", unknowns=unknowns)
        assert report.agrees and report.dimension == count
        assert [one.name for one in report.directions] == ["mixing", "unseen scores"]


@pytest.mark.slow
@pytest.mark.parametrize("d, m, expected", [(6, 2, 50), (5, 3, 64)])
def test_two_one_hot_blocks(d, m, expected):
    key = np.random.default_rng(0)
    blocks = d // 2, d - d // 2
    X = np.concatenate([np.eye(size)[key.integers(size, size=(80, 6))] for size in blocks], axis=-1)
    report = al.identifiability(layer_of(al.Slots(), (m, d, d), False), X, unknowns=CIRCUITS)
    assert report.agrees and report.dimension == expected


@pytest.mark.slow
@pytest.mark.parametrize("name, dimension", [("Sigmoid", 12), ("ReLU", 14)])
def test_a_window_of_one_token_has_no_closed_form_but_for_softmax(name, dimension):
    """The antisymmetric part of qk is hidden, m d (d - 1) / 2, besides what the normaliser hides."""
    report = measured(name, "gaussian", (2, 4, 3), al.Window(1))
    assert report.expected is None and report.dimension == dimension
    assert report.notes[0] == "no closed form is known: every row sees one token only"


@pytest.mark.slow
def test_softmax_over_one_token_hides_its_scores():
    report = measured("Softmax", "gaussian", (2, 4, 3), al.Window(1))
    assert report.agrees and report.dimension == 2 * 4 * 5 + 4 * 3


@pytest.mark.slow
def test_few_token_types_with_few_equations_have_no_closed_form():
    mean = measured("Sigmoid", "one-hot", (2, 4, 3), al.Causal(), "mean")
    assert mean.expected is None and "only the mean over rows is read" in mean.notes[0]
    pairs = measured("Softmax", "one-hot", (2, 4, 3), al.Window(2))
    assert pairs.expected is None and pairs.dimension >= 22 and "two of few token types" in pairs.notes[0]


def with_equal_heads(name, factor):
    layer = layer_of(al.Slots(NORMALISERS[name]), (2, 5, 5))
    qk, bias = layer.qk[[0, 0]].copy(), layer.query_bias[[0, 0]].copy()
    qk[1] *= factor
    bias[1] *= factor
    return al.AttentionLayer(qk, layer.ov, bias, layer.offset, layer.slots)


@pytest.mark.slow
@pytest.mark.parametrize("name, factor, expected", [("Sigmoid", 1.0, 25), ("Erf", -1.0, 25), ("ReLU", 2.0, 27)])
def test_heads_of_equal_weights_up_to_a_factor_share_their_ov(name, factor, expected):
    report = al.identifiability(with_equal_heads(name, factor), tokens("gaussian", 60, 4, 5))
    assert report.agrees and report.dimension == expected


@pytest.mark.slow
@pytest.mark.parametrize("part", ["qk", "ov"])
@pytest.mark.parametrize("name", ["Sigmoid", "Erf", "Linear"])
def test_a_zero_head_hides_the_other_circuit(name, part):
    """Of a head with ov = 0 all (d + 1) d scores; of one without scores all d d_out values, but for sigmoid."""
    layer = layer_of(al.Slots(NORMALISERS[name]), (2, 5, 5))
    qk, ov, bias = layer.qk.copy(), layer.ov.copy(), layer.query_bias.copy()
    (qk if part == "qk" else ov)[1] = 0.0
    bias[1] = 0.0 if part == "qk" else bias[1]
    changed = al.AttentionLayer(qk, ov, bias, layer.offset, layer.slots)
    report = al.identifiability(changed, tokens("gaussian", 60, 4, 5))
    assert report.agrees
    hidden = 30 if part == "ov" else 25 if name != "Sigmoid" else 0
    mixing = 2 if name == "Linear" else 0  # one factor a head: what mixes into the zero head is hidden already
    assert report.dimension >= hidden + mixing
    assert name == "Linear" or report.dimension == hidden


def test_relu_hides_a_factor_and_a_constant_coordinate_the_query_biases():
    report = measured("ReLU", "constant", (2, 3, 2))
    assert report.agrees and report.dimension == 2 + 2 * 3
    assert [(one.name, one.dimension) for one in report.directions] == [("query constant", 6), ("scale", 2)]
