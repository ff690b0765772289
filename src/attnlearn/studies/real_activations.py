r"""How many real sentences show the heads of a trained layer to someone who may only watch?

Seen are the tokens that enter MiniLM's first self-attention and, head by head, the `head_dim` numbers a token that
the head hands to the layer's output matrix. For n sentences: which part of the head these tokens can touch, how far a
learned head is from the true one on that part, and how far its predictions are off on sentences that were held out.
"""

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from attnlearn.certify.gauge import gauge
from attnlearn.certify.support import Support
from attnlearn.data.bert import Bert
from attnlearn.data.examples import Examples
from attnlearn.data.minilm import minilm_file
from attnlearn.data.self_attention import SelfAttention
from attnlearn.data.sentences import activations, novels
from attnlearn.layers.attention import AttentionLayer
from attnlearn.layers.features import Outer
from attnlearn.layers.slots import Slots
from attnlearn.learners.least_squares.fitting import Fitting, Work
from attnlearn.learners.least_squares.frame import Model
from attnlearn.learners.least_squares.search import Effort
from attnlearn.learners.least_squares.thin import descend
from attnlearn.records import Study
from attnlearn.studies.points import each

QUESTION = "How many real sentences show a head of MiniLM's first layer to someone who may only watch?"
STALL, STEPS = 1e-2, 40  # of the one run: of one head nothing can be replaced
FOUND = 1e-6  # relative error on held-out sentences, below which a head counts as found


@dataclass(frozen=True)
class Design:
    """Heads, from 0; numbers of sentences to learn from, each set in the next; how many others are predicted."""

    heads: tuple[int, ...] = (0,)
    sentences: tuple[int, ...] = (50, 150, 250, 350, 500)
    held_out: int = 100
    seed: int = 0  # of the order of the sentences


def minilm_activations(
    design: Design = Design(), model: Bert | None = None, text: Sequence[str] | None = None
) -> Study:
    """How many real sentences show a head of MiniLM's first layer to someone who may only watch.

    `model` and `text`: another encoder and other sentences; `None`: MiniLM and sentences of Jane Austen.
    """
    model = Bert(minilm_file()) if model is None else model
    attention = model.attention(0)
    lines, key = list(novels() if text is None else text), np.random.default_rng(design.seed)
    if max(design.sentences) + design.held_out > len(lines):
        raise ValueError(
            f"{max(design.sentences)} sentences and {design.held_out} held out are wanted, the text has {len(lines)}"
        )
    tokens, _ = activations([lines[i] for i in key.permutation(len(lines))], 0, model)
    points = [(head, n) for n in design.sentences for head in design.heads]

    def row(point: tuple[int, int]) -> dict[str, Any]:
        head, n = point
        return {"head": head, "sentences": n, **_point(attention.head(head), tokens, n, design)}

    table, seconds = each("minilm-activations", design, points, row)
    return Study("minilm-activations", QUESTION, _answer(table), asdict(design), table, seconds)


def _point(head: SelfAttention, tokens: list[np.ndarray], n: int, design: Design) -> dict[str, Any]:
    """One head from the first `n` sentences, judged on the last ones."""
    seen, held_out = _examples(head, tokens[:n]), _examples(head, tokens[len(tokens) - design.held_out :])
    truth, head_dim = head.circuits(), head.query.shape[1]
    support = Support.of(truth.slots, seen.inputs)
    start = time.perf_counter()
    layer, residual = _learned(seen, head_dim)
    return {
        "tokens": seen.answers,
        "query_directions": len(support.asked),
        "key_directions": len(support.keys),
        "condition": _condition(seen),
        "hidden": sum(family.dimension for family in gauge(truth, seen.inputs)[0]),
        "unknowns": _unknowns(support, head_dim),
        "observed": seen.scalars,
        "seconds": time.perf_counter() - start,
        "residual": residual,
        "errors": None if layer is None else _errors(layer, truth, support, held_out),
    }


def _learned(examples: Examples, head_dim: int) -> tuple[AttentionLayer | None, float | None]:
    """The head behind the examples and its relative residual; `None` from fewer numbers than there are unknowns."""
    model = Model(Slots(), query_bias=True, offset=True, head_dim=head_dim)
    fitting = Fitting(examples, model, 0.0, Effort(), Work(), np.random.default_rng(0))  # draws nothing: one run
    queries, keys, _ = fitting.problem.width
    if fitting.unknowns(1) > fitting.problem.scalars:
        return None, None
    uniform = Outer(np.zeros((1, queries, keys)))  # attention that only averages
    fit = fitting.problem.run(descend(fitting.problem, uniform, min(head_dim, keys)), STALL, STEPS)
    return fitting.layer(fit), float(np.sqrt(fit.loss))


def _examples(head: SelfAttention, tokens: list[np.ndarray]) -> Examples:
    return Examples.from_sequences(tokens, [head(X[None])[0] for X in tokens])


def _condition(examples: Examples) -> float:
    """Largest over smallest standard deviation of the tokens, over the directions that they have."""
    tokens = examples.X[np.ones(examples.X.shape[:2], bool) if examples.mask is None else examples.mask]
    values = np.linalg.svd(tokens - tokens.mean(axis=0), compute_uv=False)
    return float(values[0] / values[values > 1e-10 * values[0]][-1])


def _unknowns(support: Support, head_dim: int) -> int:
    """Degrees of freedom of the head's part that the tokens touch: circuits of rank `head_dim`, and the offset."""
    queries, keys = len(support.asked), len(support.keys)
    rank = min(head_dim, keys)
    return rank * (queries + keys - rank) + keys * head_dim + head_dim


def _errors(layer: AttentionLayer, truth: AttentionLayer, support: Support, held_out: Examples) -> dict[str, float]:
    """Relative errors of what the tokens can touch of QK (with its bias) and OV, and of held-out outputs' deviations
    from their mean."""
    there = np.asarray(held_out.inputs.answered())
    expected = held_out.targets[there]
    predicted = np.asarray(layer(held_out.X, held_out.mask))[there]
    seen, true = _touched(layer, support), _touched(truth, support)
    return {
        "qk": float(np.linalg.norm(seen[0] - true[0]) / np.linalg.norm(true[0])),
        "ov": float(np.linalg.norm(seen[1] - true[1]) / np.linalg.norm(true[1])),
        "held_out": float(np.linalg.norm(predicted - expected) / np.linalg.norm(expected - expected.mean(axis=0))),
    }


def _touched(layer: AttentionLayer, support: Support) -> tuple[np.ndarray, np.ndarray]:
    """Both circuits of one head between the directions that are asked and seen."""
    scores = np.concatenate([layer.qk[0], layer.query_bias[0][None]])
    return support.asked @ scores @ support.keys.T, support.keys @ layer.ov[0]


def _answer(table: Sequence[dict[str, Any]]) -> str:
    """The least number of sentences from which each head was found, in words."""
    words = []
    for head in sorted({row["head"] for row in table}):
        rows = [row for row in table if row["head"] == head]
        enough = [row for row in rows if row["errors"] and row["errors"]["held_out"] <= FOUND]
        if enough:
            least = min(enough, key=lambda row: row["sentences"])
            words.append(
                f"Head {head + 1} is found from {least['sentences']} sentences: {least['observed']:,} numbers seen, "
                f"{least['observed'] / least['unknowns']:.1f} for each of its {least['unknowns']:,} unknowns."
            )
        else:
            most = max(rows, key=lambda row: row["sentences"])
            error = f", where held-out errors are {most['errors']['held_out']:.1g}" if most["errors"] else ""
            words.append(f"Head {head + 1} is not found from {most['sentences']} sentences{error}.")
    return " ".join(words)
