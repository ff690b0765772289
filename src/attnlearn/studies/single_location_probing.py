"""Can the sign of one adjective be read by a linear rule from a layer of MiniLM?

Logistic regression on the hidden states of sentences that differ in words and their order, for every layer: from the
first token alone and from the mean of all tokens, with features as they are and standardised. Accuracies on the
sentences it was fitted to, on others with new words around the adjective, with new adjectives, in another sentence,
and with both; and how often a sentence of sign 1 scores above one of sign -1, which needs no threshold. Sentences and
published numbers: [@marion2025].
"""

import functools
import hashlib
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from attnlearn.data.bert import Bert
from attnlearn.data.encoder import Encoder
from attnlearn.data.hidden_states import HiddenStates, hidden_states
from attnlearn.data.minilm import minilm_file
from attnlearn.data.probing import ADJECTIVE_LAST, PUBLISHED_SETS, SentenceSet
from attnlearn.records import Study, to_json, versions, write_whole
from attnlearn.studies.points import Row, each, kept_path

NAME = "single-location-probing"
QUESTION = (
    "Is the sign of one adjective linearly readable from each layer of MiniLM, also with other words and sentences?"
)
TRAIN = "train"
PUBLISHED = {  # context: another model, which has 12 layers; its bars pool layers 1 to 12
    "model": "bert-base-uncased",
    "source": "stored figure of linear_probing.ipynb, PierreMarion23/single-location-regression, two decimals",
    "accuracy": {
        "initial": 0.5,
        "train": 1.0,
        "test": 0.95,
        "ood_tokens": 0.64,
        "ood_structure": 0.75,
        "ood_structure_tokens": 0.69,
    },
}

Point = tuple[str, str, int]  # pooling, features, layer
Groups = Mapping[str, tuple[np.ndarray, np.ndarray]]  # name -> places in the list of all sentences, labels


@dataclass(frozen=True)
class Design:
    """Sentences; layers, from 0 (the embeddings); poolings ("first", "mean"); `C` of the fits and, for each kind of
    features ("standardised" on train, "raw"), the tolerance and the iterations after which they stop."""

    sets: tuple[SentenceSet, ...] = (*PUBLISHED_SETS, ADJECTIVE_LAST)
    layers: tuple[int, ...] = (0, 1, 2, 3, 4, 5, 6)
    poolings: tuple[str, ...] = ("first", "mean")
    C: float = 1.0
    stop: Mapping[str, tuple[float, int]] = field(
        default_factory=lambda: {"standardised": (1e-4, 500), "raw": (1e-6, 3000)}
    )
    published: Mapping[str, Any] = field(default_factory=lambda: PUBLISHED)


def single_location_probing(
    design: Design = Design(), model: Bert | None = None, encoder: Encoder | None = None
) -> Study:
    """Whether the sign of one adjective is linearly readable from each layer of MiniLM.

    `model`: another encoder (`None`: MiniLM in float64); `encoder`: what computes its states (`None`: NumPy), for
    example `transformers_encoder`. The sentences are embedded once, when the first row is made: 215 of the 235 seconds
    that one core takes, and 1.5 GB. Their states are kept with the rows of an unfinished study, .93 GB.
    """
    points = [
        (pooling, features, layer) for pooling in design.poolings for features in design.stop for layer in design.layers
    ]
    model = Bert(minilm_file()) if model is None else model
    sentences = list(dict.fromkeys(sentence for one in design.sets for sentence in one.sentences()))
    source, path = _source(sentences, model, encoder), kept_path(f"{NAME}.npz")
    states = functools.cache(lambda: _kept(path, source, lambda: hidden_states(sentences, model, encoder)))
    groups = _groups(design.sets, sentences)
    rows, seconds = each(NAME, (design, source), points, lambda point: _row(point, states(), groups, design))
    return Study(NAME, QUESTION, _answer(rows), asdict(design), rows, seconds)


def _source(sentences: Sequence[str], model: Bert, encoder: Encoder | None) -> str:
    """A digest of what decides the states; a given encoder counts by its states of the first sentence."""
    with model.path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256")
    digest.update(to_json((model.heads, str(model.dtype), sentences, versions())).encode())
    if encoder is not None:
        digest.update(hidden_states(sentences[:1], model, encoder).first.tobytes())
    return digest.hexdigest()


def _kept(path: Path | None, source: str, make: Callable[[], HiddenStates]) -> HiddenStates:
    """The states of `source` in `path`, or those that are made and put there; `None`: only made."""
    if path is not None and path.is_file():
        with np.load(path, allow_pickle=False) as file:
            if file["source"] == source:
                return HiddenStates(file["first"], file["mean"])
    states = make()
    if path is not None:
        write_whole(path, lambda part: _write(part, source, states))
    return states


def _write(path: Path, source: str, states: HiddenStates) -> None:
    with path.open("wb") as file:
        np.savez(file, allow_pickle=False, source=np.array(source), **states._asdict())


def _groups(sets: Sequence[SentenceSet], sentences: Sequence[str]) -> Groups:
    """For every group, where its sentences stand in `sentences`, and their labels."""
    place = {sentence: number for number, sentence in enumerate(sentences)}
    found = {}
    for name in dict.fromkeys(one.group for one in sets):
        some = [one for one in sets if one.group == name]
        index = np.array([place[sentence] for one in some for sentence in one.sentences()])
        found[name] = index, np.concatenate([one.labels() for one in some])
    return found


def _row(point: Point, states: HiddenStates, groups: Groups, design: Design) -> Row:
    pooling, features, layer = point
    X = getattr(states, pooling)[:, layer]
    index, labels = groups[TRAIN]
    tolerance, iterations = design.stop[features]
    regression = LogisticRegression(C=design.C, tol=tolerance, max_iter=iterations)
    probe = make_pipeline(StandardScaler(), regression) if features == "standardised" else regression
    converged = _fit(probe, X[index], labels)
    scores = {name: probe.decision_function(X[places]) for name, (places, _) in groups.items()}
    signs = {name: found for name, (_, found) in groups.items()}
    return {
        "pooling": pooling,
        "features": features,
        "layer": layer,
        "accuracy": {name: float(np.mean((score > 0) == (signs[name] > 0))) for name, score in scores.items()},
        "ranking": {name: float(roc_auc_score(signs[name], score)) for name, score in scores.items()},
        "spread": float(np.median((X[index] - X[index[0]]).std(axis=0))),  # exactly 0 of a constant
        "iterations": int(regression.n_iter_[0]),
        "converged": converged,
    }


def _fit(probe: Any, X: np.ndarray, labels: np.ndarray) -> bool:
    """Fits `probe`; whether it met its tolerance. Other warnings are passed on."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        probe.fit(X, labels)
    for one in told:
        if not issubclass(one.category, ConvergenceWarning):
            warnings.warn_explicit(one.message, one.category, one.filename, one.lineno)
    return not any(issubclass(one.category, ConvergenceWarning) for one in told)


def _answer(rows: Sequence[Row]) -> str:
    """Mean accuracies and rankings of every kind of probe over the layers above the embeddings."""
    words = ["Mean accuracy over the layers above the embeddings (and area under the ROC curve)."]
    for pooling, features in dict.fromkeys((row["pooling"], row["features"]) for row in rows):
        some = [row for row in rows if (row["pooling"], row["features"]) == (pooling, features)]
        above = [row for row in some if row["layer"] > 0] or some
        means = [
            f"{name.replace('_', ' ')} {np.mean([row['accuracy'][name] for row in above]):.2f} "
            f"({np.mean([row['ranking'][name] for row in above]):.2f})"
            for name in above[0]["accuracy"]
        ]
        late = sum(not row["converged"] for row in some)
        words.append(
            f"{_WORDS[pooling]}, {features}: {', '.join(means)}{f' ({late} fits not converged)' * (late > 0)}."
        )
    return " ".join(words)


_WORDS = {"first": "First token", "mean": "Mean of the tokens"}
