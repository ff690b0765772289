"""The study of linear probes, on a small encoder with the same steps as the large one, and on part of the real one."""

import contextlib
import importlib
from dataclasses import replace

import numpy as np
import pytest
from data.conftest import bert_file, tensors  # noqa: F401 (fixtures)
from sklearn.linear_model import LogisticRegression

from attnlearn.data.bert import Bert
from attnlearn.data.hidden_states import hidden_states
from attnlearn.data.probing import ADJECTIVE_LAST, PUBLISHED_SETS, SentenceSet
from attnlearn.records import Study
from attnlearn.studies.points import kept_in
from attnlearn.studies.single_location_probing import PUBLISHED, Design, single_location_probing

module = importlib.import_module("attnlearn.studies.single_location_probing")  # a function of the room has its name
OWNERS, ANIMALS, SIGNED = ("my", "his", "her"), ("dog", "owl", "cow"), ("nice", "mean", "cute", "dreadful")
SETS = (
    SentenceSet("a", "train", (OWNERS, ANIMALS, SIGNED)),
    SentenceSet("b", "train", (OWNERS, SIGNED, ANIMALS)),
    SentenceSet("c", "test", (("our",), SIGNED, ("goat", "cat"))),
)
DESIGN = Design(SETS, layers=(0, 1, 2))


@pytest.fixture
def model(monkeypatch, bert_file):  # noqa: F811
    return Bert(bert_file)


@pytest.fixture(autouse=True)
def words(monkeypatch):
    """The small encoder knows the words of `SETS` but "our", "cat" and "goat"."""
    monkeypatch.setattr("data.conftest.WORDS", ["[CLS]", "[SEP]", "[UNK]", *OWNERS, *ANIMALS, *SIGNED])


def by_kind(study):
    return {(row["pooling"], row["features"], row["layer"]): row for row in study.table}


def left_by_an_interruption(folder, *arguments):
    """The study, with all that it keeps left in `folder`."""
    made = []
    with contextlib.suppress(KeyboardInterrupt), kept_in(folder):
        made.append(single_location_probing(*arguments))
        raise KeyboardInterrupt
    return made[0]


def test_the_first_token_says_nothing_before_it_sees_the_others(model):
    rows = by_kind(single_location_probing(DESIGN, model))
    assert list(rows) == [(p, f, n) for p in ("first", "mean") for f in ("standardised", "raw") for n in (0, 1, 2)]
    for features in ("standardised", "raw"):
        bottom = rows["first", features, 0]
        assert bottom["accuracy"] == bottom["ranking"] == {"train": 0.5, "test": 0.5}
        assert rows["mean", features, 0]["accuracy"]["train"] > 0.8  # it holds the words themselves
        assert rows["first", features, 1]["accuracy"]["train"] > 0.5
    assert rows["first", "raw", 0]["spread"] == 0.0 < 1e-3 < rows["first", "raw", 1]["spread"]


def test_accuracies_are_those_of_logistic_regression_by_hand(model):
    rows = by_kind(single_location_probing(replace(DESIGN, C=0.3), model))
    train = [sentence for one in SETS[:2] for sentence in one.sentences()]
    y = np.concatenate([one.labels() for one in SETS[:2]])
    X, other = (hidden_states(some, model).first[:, 1] for some in (train, SETS[2].sentences()))
    centre, scale = X.mean(axis=0), X.std(axis=0)
    for features, (a, b) in {
        "raw": (X, other),
        "standardised": ((X - centre) / scale, (other - centre) / scale),
    }.items():
        tolerance, steps = DESIGN.stop[features]
        fit = LogisticRegression(C=0.3, tol=tolerance, max_iter=steps).fit(a, y)
        expected = {"train": fit.score(a, y), "test": fit.score(b, SETS[2].labels())}
        assert rows["first", features, 1]["accuracy"] == pytest.approx(expected, abs=0.02)  # of 72 and 8 sentences
        plus, minus = (fit.decision_function(b)[SETS[2].labels() == sign] for sign in (1, -1))
        ranking = np.mean([(one > other) + (one == other) / 2 for one in plus for other in minus])
        assert rows["first", features, 1]["ranking"]["test"] == pytest.approx(ranking, abs=0.01)  # of 16 pairs


def test_a_fit_that_stops_early_is_told_in_its_row_and_warns_nobody(model):
    study = single_location_probing(replace(DESIGN, stop={"raw": (1e-6, 1)}, poolings=("mean",)), model)
    assert [row["converged"] for row in study.table] == [False] * 3
    assert [row["iterations"] for row in study.table] == [1] * 3
    assert study.answer.endswith("(3 fits not converged).")
    assert all(row["converged"] for row in single_location_probing(DESIGN, model).table)


def test_other_warnings_of_a_fit_are_passed_on():
    class Loud:
        def fit(self, X, labels):
            module.warnings.warn("odd data", UserWarning, stacklevel=1)

    with pytest.warns(UserWarning, match="odd data"):
        assert module._fit(Loud(), np.zeros((2, 1)), np.zeros(2))


def test_sentences_are_embedded_once_and_not_for_rows_that_are_there(model, tmp_path, monkeypatch):
    calls, real = [], module.hidden_states

    def counted(sentences, *how):
        calls.append(len(sentences))
        return real(sentences, *how)

    monkeypatch.setattr(module, "hidden_states", counted)
    whole = left_by_an_interruption(tmp_path, DESIGN, model)
    assert calls == [36 + 36 + 8]
    with kept_in(tmp_path):
        again = single_location_probing(DESIGN, model)
    assert len(calls) == 1 and again.table == whole.table


def test_an_interrupted_study_finds_its_states_again(model, tmp_path, monkeypatch):
    calls, real = [], module.hidden_states

    def counted(sentences, *how):
        calls.append(len(sentences))
        return real(sentences, *how)

    def interrupted(*fit):
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "hidden_states", counted)
    with monkeypatch.context() as patch, contextlib.suppress(KeyboardInterrupt), kept_in(tmp_path):
        patch.setattr(module, "_fit", interrupted)
        single_location_probing(DESIGN, model)
    with kept_in(tmp_path):
        again = single_location_probing(DESIGN, model)
    assert len(calls) == 1 and again.table == single_location_probing(DESIGN, model).table
    assert not [path for path in tmp_path.iterdir() if path.suffix in (".npz", ".jsonl")]


@pytest.mark.parametrize("change", ["precision", "program", "sentences"])
def test_states_and_rows_of_another_source_are_not_read(model, tmp_path, change):
    def encoder(factor):
        return lambda ids: [factor * state for state in model.encoder()(ids)]

    before, after = {
        "precision": ((DESIGN, model), (DESIGN, Bert(model.path, dtype="float32"))),
        "program": ((DESIGN, model, encoder(1.0)), (DESIGN, model, encoder(2.0))),
        "sentences": ((DESIGN, model), (replace(DESIGN, sets=SETS[::-1]), model)),  # as many of them
    }[change]
    old = left_by_an_interruption(tmp_path, *before)
    with kept_in(tmp_path):
        new = single_location_probing(*after)
    assert new.table == single_location_probing(*after).table != old.table
    assert not [path for path in tmp_path.iterdir() if path.suffix in (".npz", ".jsonl")]


def test_another_program_may_compute_the_states(model):
    asked = []

    def encoder(ids):
        asked.append(len(ids))
        return model.encoder()(ids)

    assert single_location_probing(DESIGN, model, encoder).table == single_location_probing(DESIGN, model).table
    assert sum(asked) == 1 + 36 + 36 + 8  # the first sentence once more, to tell this program from others


def test_a_sentence_in_two_sets_is_embedded_once_and_counted_twice(model, monkeypatch):
    twice = (*SETS, replace(SETS[2], name="again"))
    index, labels = module._groups(twice, [s for one in SETS for s in one.sentences()])["test"]
    assert index.tolist() == 2 * list(range(72, 80)) and labels.tolist() == 2 * SETS[2].labels().tolist()


def test_the_answer_has_means_over_the_layers_above_the_embeddings(model):
    study = single_location_probing(replace(DESIGN, poolings=("first",), stop={"raw": (1e-6, 3000)}), model)
    means = [
        sum(row[quantity][name] for row in study.table[1:]) / 2
        for name in ("train", "test")
        for quantity in ("accuracy", "ranking")
    ]
    assert study.answer == (
        "Mean accuracy over the layers above the embeddings (and area under the ROC curve). "
        "First token, raw: train {:.2f} ({:.2f}), test {:.2f} ({:.2f}).".format(*means)
    )


def test_the_record_holds_the_published_numbers_as_context(model, tmp_path):
    single_location_probing(DESIGN, model).save(tmp_path)
    study = Study.load(tmp_path)
    assert study.name == "single-location-probing"
    assert study.design["published"] == PUBLISHED
    assert study.design["sets"][0]["slots"] == [list(OWNERS), list(ANIMALS), list(SIGNED)]


@pytest.mark.slow  # six layers of MiniLM
def test_every_layer_of_minilm_tells_the_sign_in_a_part_of_the_sentences():
    """All adjectives and animals; of the other words the first two where there are more than two, else the first."""

    def part(one):
        city, about, *others = one.slots
        kept = [slot if {"nice", "dog", "cat"} & set(slot) else slot[: 1 + (len(slot) > 2)] for slot in others]
        return replace(one, slots=(city, about[:1], *kept))

    sets = tuple(part(one) for one in (*PUBLISHED_SETS[:2], ADJECTIVE_LAST))
    study = single_location_probing(Design(sets, poolings=("first",), stop={"standardised": (1e-4, 500)}))
    (bottom, *above) = [row["accuracy"] for row in study.table]
    assert bottom == {"train": 0.5, "adjective_last": 0.5}
    assert [one["train"] for one in above] == [1.0] * 6
    assert min(one["adjective_last"] for one in above) > 0.75  # measured: .854 to 1
