"""Exit codes, what is printed where, and what is left in the folder."""

import json
import sys
import types

import numpy as np
import pytest

import attnlearn as al
from attnlearn._progress import progress
from attnlearn.cli import terminal
from attnlearn.records import Record, Study
from attnlearn.studies import STUDIES
from attnlearn.studies.points import each


def test_a_recovered_layer_ends_with_0_and_its_folder_is_whole(attnlearn, asked, layer_file, tmp_path):
    out = tmp_path / "out"
    done = attnlearn("recover", layer_file, "--out", out)
    assert done.exit_code == 0, done.output
    assert "2 of 2 heads recovered" in done.stdout
    assert str(out / "index.html") in done.stdout
    names = {path.name for path in out.iterdir()}
    assert {"record.json", "arrays.npz", "layer.safetensors", "index.html", "spectra.png"} <= names
    kept, truth = al.AttentionLayer.load(out / "layer.safetensors"), al.AttentionLayer.load(layer_file)
    assert np.array_equal(kept.qk, truth.qk)
    assert Record.load(out)[0].recovered


def test_a_layer_not_recovered_ends_with_1_and_says_why(attnlearn, asked, layer_file, tmp_path):
    asked["end"] = al.Status.HEADS_UNRESOLVED
    done = attnlearn("recover", layer_file, "--out", tmp_path / "out")
    assert done.exit_code == 1
    for said in ("Heads unresolved", al.Status.HEADS_UNRESOLVED.value, "figure 9 where 1 is allowed", "affine"):
        assert said in done.stdout
    record, arrays = Record.load(tmp_path / "out")
    assert record.status == "HEADS_UNRESOLVED"
    assert set(arrays) == {"ov_sum"}


@pytest.mark.slow
def test_a_failed_run_leaves_no_layer_of_an_earlier_one(attnlearn, asked, layer_file, tmp_path):
    attnlearn("recover", layer_file, "--out", tmp_path / "out")
    asked["end"] = al.Status.ISOLATION_FAILED
    attnlearn("recover", layer_file, "--out", tmp_path / "out")
    assert not (tmp_path / "out" / "layer.safetensors").exists()


@pytest.mark.parametrize("end", [al.Status.RECOVERED, al.Status.BUDGET_EXHAUSTED])
def test_json_prints_the_record_and_nothing_else(attnlearn, asked, layer_file, end):
    asked["end"] = end
    done = attnlearn("recover", layer_file, "--json")
    assert json.loads(done.stdout)["status"] == end.name
    assert done.stderr == ""
    assert done.exit_code == (end is not al.Status.RECOVERED)


def test_quiet_prints_one_line(attnlearn, asked, layer_file):
    done = attnlearn("recover", layer_file, "--quiet")
    assert done.stdout == f"2 of 2 heads recovered: {layer_file}\n"


def test_words_become_options(attnlearn, asked, layer_file):
    words = "--heads 2 --head-dim 3 --seed 5 --rtol 1e-4 --max-queries 100 --dtype float32 --noise 0.5 -o economy=true"
    done = attnlearn("recover", layer_file, *words.split(), "--json")
    given = {"heads": 2, "head_dim": 3, "rtol": 1e-4, "economy": True}
    assert {name: asked[name] for name in given} == given
    assert asked["seed"] == 5
    source = asked["source"]
    assert (source.max_queries, source.noise, np.dtype(source.dtype).name) == (100, 0.5, "float32")
    assert json.loads(done.stdout)["options"] == given


def test_a_learner_by_name_gets_its_fields_and_the_certificate_its_tolerance(attnlearn, asked, layer_file):
    done = attnlearn("recover", layer_file, "--learner", "MultiHeadQueries", "--head-dim", "2", "--rtol", "1e-3")
    assert done.exit_code == 0, done.output
    assert set(asked) == {"end", "source", "learner", "seed", "rtol"}
    assert type(asked["learner"]).__name__ == "MultiHeadQueries"
    assert asked["learner"].head_dim == 2


def test_options_not_given_are_not_passed(attnlearn, asked, layer_file):
    attnlearn("recover", layer_file, "--json")
    assert set(asked) == {"end", "source", "slots", "seed"}  # a saved layer knows its slots


def test_examples_are_learned_from_and_shown_as_such(attnlearn, asked, examples_file, tmp_path):
    words = ["--heads", "2", "--head-dim", "2", "--causal", "--noise", "0.1", "-o", "restarts=2"]
    done = attnlearn("recover", examples_file, *words, "--out", tmp_path / "out")
    assert done.exit_code == 0, done.output
    given = {"heads": 2, "head_dim": 2, "noise": 0.1, "restarts": 2}
    assert {name: asked[name] for name in given} == given
    assert asked["slots"] == al.Slots(mask=al.Causal())
    assert len(asked["source"]) == 10
    record, arrays = Record.load(tmp_path / "out")
    assert (record.examples, record.ledger, record.options) == (10, None, given)
    assert record.sentences == (("1", "2", "3", "4", "5"),) * 3
    assert arrays["maps_learned_2"].shape == (2, 5, 5)
    page = (tmp_path / "out" / "index.html").read_text(encoding="utf-8")
    for text in (done.stdout, page):
        assert "examples learned from" in text
        assert "largest error on examples held out" in text
        assert "question" not in text


def test_a_file_that_does_not_say_its_rows_is_told(attnlearn, asked, tmp_path):
    np.savez(tmp_path / "own.npz", X=np.ones((3, 4, 2)), Y=np.ones((3, 2)))
    done = attnlearn("recover", tmp_path / "own.npz", "--rows", "last", "--json")
    assert done.exit_code == 0, done.output
    assert (asked["source"].rows, json.loads(done.stdout)["examples"]) == ("last", 3)
    assert "Y must be (n, k, d_out)" in attnlearn("recover", tmp_path / "own.npz").stderr


def test_an_interruption_of_examples_has_no_ledger(attnlearn, asked, examples_file):
    asked["end"] = KeyboardInterrupt()
    done = attnlearn("recover", examples_file, "--json")
    record = json.loads(done.stdout)
    assert (done.exit_code, record["ledger"], record["examples"]) == (1, None, 10)


def test_an_interruption_ends_with_1_and_keeps_what_there_is(attnlearn, asked, layer_file, tmp_path):
    asked["end"] = KeyboardInterrupt()
    done = attnlearn("recover", layer_file, "--out", tmp_path / "out")
    assert done.exit_code == 1
    record, _ = Record.load(tmp_path / "out")
    assert record.status == "INTERRUPTED"
    assert record.ledger is not None
    assert record.ledger.calls == 4


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("recover", "nosuch"), "unknown SOURCE 'nosuch'. Wanted: minilm:0"),
        (("recover", "nosuch.safetensors"), "nosuch.safetensors"),
        (("recover", "nosuch.safetensors:0"), "there is no file"),
        (("recover", "data.npz"), "there is no 'data.npz'"),
        (("recover", "data.npx"), "unknown SOURCE 'data.npx'. Wanted: minilm:0"),
        (("recover", "data.npx"), "Did you mean 'data.npz'?"),
        (("recover", "mnilm:0"), "Did you mean 'minilm:0'?"),
        (("recover", "model.safetensor:0"), "Did you mean 'model.safetensors:0'?"),
        (("recover", "minilm:0", "--rows", "last"), "--rows does not go with 'minilm:0'"),
        (("recover", "data.npz", "--max-queries", "5"), "do not go with the examples in 'data.npz'"),
        (("recover", "data.npz", "--dtype", "float32"), "do not go with the examples in 'data.npz'"),
        (("recover", "data.npz", "--width", "3"), "has its own width"),
        (("recover", "nosuch_module:f"), "cannot import 'nosuch_module:f'"),
        (("recover", "nosuch_module:f"), "Wanted: minilm:0"),
        (("recover", "minilm:99"), "layer must be from 0 to 5"),
        (("recover", "minilm:0", "--width", "3"), "has its own width"),
        (("recover", "math:sqrt"), "width"),
        (("report", "nosuch"), "Cannot read a run from 'nosuch'"),
        (("distance", "nosuch", "minilm:0"), "is no layer whose weights are known"),
        (("canonical", "nosuch"), "is no layer whose weights are known"),
        (("identifiability", "math:sqrt"), "is no layer whose weights are known"),
        (("identifiability", "layer.safetensors", "--heads", "2"), "go with examples; 'layer.safetensors' is a layer"),
        (("identifiability", "data.npz", "--tokens", "X.npy"), "'data.npz', which holds its own sequences"),
        (("study", "nosuch"), "unknown study 'nosuch'"),
    ],
)
def test_wrong_use_ends_with_2_and_the_way_out(attnlearn, words, said):
    done = attnlearn(*words)
    assert done.exit_code == 2
    assert done.stdout == ""
    assert said in done.stderr
    assert "Traceback" not in done.output


@pytest.mark.parametrize("words", ["--nosuch", "recover", "recover a b", "recover minilm:0 --seed x", "nosuch"])
def test_words_that_are_no_command_end_with_2(attnlearn, words):
    assert attnlearn(*words.split()).exit_code == 2


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--learner", "Nosuch"), "unknown learner 'Nosuch'. Wanted: auto"),
        (("--dtype", "float16"), "float64"),
        (("--noise", "-1"), "noise"),
        (("--max-queries", "0"), "max_queries"),
        (("-o", "economy"), "--option takes NAME=VALUE"),
        (("--causal",), "a saved layer has its own mask"),
    ],
)
def test_options_out_of_range_end_with_2(attnlearn, asked, layer_file, words, said):
    done = attnlearn("recover", layer_file, *words)
    assert done.exit_code == 2
    assert said in done.stderr


def test_an_option_unknown_to_the_learner_ends_with_2(attnlearn, asked, layer_file):
    asked["end"] = TypeError("unknown option 'head_dim'; known: rtol")
    done = attnlearn("recover", layer_file, "--head-dim", "2")
    assert (done.exit_code, "known: rtol" in done.stderr) == (2, True)


def test_a_damaged_layer_ends_with_2(attnlearn, asked, layer_file):
    layer_file.write_bytes(layer_file.read_bytes()[:100])
    done = attnlearn("recover", layer_file)
    assert done.exit_code == 2
    assert "no readable safetensors file" in done.stderr


@pytest.mark.slow
def test_report_draws_the_folder_again(attnlearn, asked, layer_file, tmp_path):
    attnlearn("recover", layer_file, "--out", tmp_path / "out")
    page = tmp_path / "out" / "index.html"
    page.unlink()
    done = attnlearn("report", tmp_path / "out")
    assert (done.exit_code, done.stdout.strip()) == (0, str(page))
    assert page.exists()


def test_distance_of_a_layer_to_itself_is_zero(attnlearn, layer_file):
    done = attnlearn("distance", layer_file, layer_file, "--json")
    found = json.loads(done.stdout)
    assert (done.exit_code, found["qk"], found["permutation"]) == (0, 0.0, [0, 1])
    assert "worst" in attnlearn("distance", layer_file, layer_file).stdout


def test_distance_says_why_it_is_infinite(attnlearn, layer_file, tmp_path):
    al.random_layer(1, heads=3, width=6).save(tmp_path / "three.safetensors")
    done = attnlearn("distance", tmp_path / "three.safetensors", layer_file)
    assert done.exit_code == 0
    assert "3 heads against 2" in done.stdout
    assert "∞" in done.stdout


def test_distance_of_layers_of_other_width_ends_with_2(attnlearn, layer_file, tmp_path):
    al.random_layer(1, width=5).save(tmp_path / "other.safetensors")
    done = attnlearn("distance", tmp_path / "other.safetensors", layer_file)
    assert (done.exit_code, "widths differ" in done.stderr) == (2, True)


def test_canonical_merges_and_writes(attnlearn, layer_file, tmp_path):
    layer = al.AttentionLayer.load(layer_file)
    double = al.AttentionLayer(layer.qk[[0, 0, 1]], layer.ov[[0, 0, 1]])
    double.save(tmp_path / "double.safetensors")
    done = attnlearn("canonical", tmp_path / "double.safetensors", "--out", tmp_path / "one.safetensors")
    assert done.exit_code == 0
    assert done.stdout.startswith("3 heads, 2 after merging")
    assert al.AttentionLayer.load(tmp_path / "one.safetensors").heads == 2


def test_identifiability_of_generic_tokens_leaves_nothing_open(attnlearn, tmp_path):
    al.random_layer(0, heads=1, width=3).save(tmp_path / "small.safetensors")
    done = attnlearn("identifiability", tmp_path / "small.safetensors", "--json")
    found = json.loads(done.stdout)
    assert (done.exit_code, found["dimension"], found["expected"]) == (0, 0, 0)


def test_identifiability_names_the_directions_that_given_tokens_hide(attnlearn, tmp_path, key):
    al.random_layer(0, heads=1, width=3).save(tmp_path / "small.safetensors")
    X = key.standard_normal((40, 4, 3))
    X[..., 0] = 1  # a constant coordinate hides m (2 d + d_out) directions
    np.save(tmp_path / "X.npy", X)
    done = attnlearn("identifiability", tmp_path / "small.safetensors", "--tokens", tmp_path / "X.npy")
    assert done.exit_code == 0
    assert done.stdout.startswith("9 of ")


@pytest.mark.slow
def test_identifiability_of_examples_is_that_of_their_tokens(attnlearn, tmp_path, key):
    X = key.standard_normal((40, 4, 3))
    X[..., 0] = 1  # hides m (2 d + d_out) directions
    al.Examples(X, X[..., :2]).save(tmp_path / "data.npz")
    done = attnlearn("identifiability", tmp_path / "data.npz", "--heads", "2", "--json")
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert (found["dimension"], found["outputs"]) == (16, 40 * 4 * 2)
    one = attnlearn("identifiability", tmp_path / "data.npz", "--causal", "--json")
    assert json.loads(one.stdout)["dimension"] == 8


def test_too_few_outputs_are_said_first(attnlearn, tmp_path, key):
    al.random_layer(0, heads=1, width=3).save(tmp_path / "small.safetensors")  # 24 parameters
    np.save(tmp_path / "X.npy", key.standard_normal((1, 4, 3)))
    done = attnlearn("identifiability", tmp_path / "small.safetensors", "--tokens", tmp_path / "X.npy")
    assert done.stdout.startswith("Too few outputs: 12 numbers cannot show 24 parameter directions, which enough")


def test_version_is_the_version(attnlearn):
    assert attnlearn("--version").stdout == al.__version__ + "\n"


def test_studies_are_listed_and_run(attnlearn, monkeypatch):
    assert attnlearn("study", "--list").exit_code == 0

    def cost_curve():
        """How many questions a layer takes."""
        return {"calls": [1, 2]}

    room = types.ModuleType("attnlearn.studies")
    room.__spec__ = types.SimpleNamespace(name="attnlearn.studies")  # what find_spec looks at
    room.STUDIES = {"cost_curve": cost_curve}
    monkeypatch.setitem(sys.modules, "attnlearn.studies", room)
    assert attnlearn("study", "--list").stdout == "cost_curve  How many questions a layer takes.\n"
    assert json.loads(attnlearn("study", "cost_curve").stdout) == {"calls": [1, 2]}


def test_a_study_is_kept_with_its_figure_and_drawn_again(attnlearn, monkeypatch, tmp_path):
    errors = {"qk": 1e-3, "ov": 1e-3, "held_out": 1e-3}
    row = {"head": 0, "sentences": 9, "observed": 90, "unknowns": 30, "errors": errors}
    found = Study("minilm-activations", "How many?", "Nine.", {}, (row,))
    monkeypatch.setitem(STUDIES, "minilm-activations", lambda: found)
    done = attnlearn("study", "minilm-activations", "--out", tmp_path)
    figure = tmp_path / "minilm-activations.png"
    assert done.stdout.splitlines() == ["Nine.", str(figure)]
    figure.unlink()
    assert attnlearn("report", tmp_path).stdout == f"{figure}\n" and figure.is_file()


def test_an_interrupted_study_says_what_is_kept_and_goes_on(attnlearn, monkeypatch, tmp_path):
    made = []

    def work(point):
        if point == 1 and None not in made:
            made.append(None)
            raise KeyboardInterrupt
        made.append(point)
        return {"point": point}

    def run():
        rows, seconds = each("minilm-activations", {}, [0, 1], work)
        return Study("another", "Why?", "Because.", {}, rows, seconds)

    monkeypatch.setitem(STUDIES, "minilm-activations", run)
    stopped = attnlearn("study", "minilm-activations", "--out", tmp_path)
    assert stopped.exit_code == 1 and f"{tmp_path} holds what is done: run the same again to go on" in stopped.stderr
    assert attnlearn("study", "minilm-activations", "--out", tmp_path).exit_code == 0
    assert made == [0, None, 1] and [path.name for path in tmp_path.iterdir()] == ["study.json"]
    made.clear()
    stopped = attnlearn("study", "minilm-activations")
    assert stopped.exit_code == 1 and "without --out nothing is kept" in stopped.stderr


def test_stages_are_shown_on_a_terminal_and_not_in_a_pipe(monkeypatch, capsys):
    def work():
        with terminal.stages(shown=True):
            for step in range(3):
                progress("affine", step, 3)
            progress("atoms", 1, 0)

    work()
    assert capsys.readouterr().err == ""
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    work()
    assert "affine" in capsys.readouterr().err
