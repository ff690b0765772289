"""One page, nothing outside it, the result first."""

import re
from dataclasses import replace

import pytest

from attnlearn.records import Certificate, Cost, Phase, Record
from attnlearn.report import headline, scientific, tiles, write
from attnlearn.report.page import STAGES, duration


@pytest.fixture(scope="module")
def folder(record, arrays, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    record.save(folder, arrays)
    write(folder)
    return folder


@pytest.fixture(scope="module")
def page(folder):
    return (folder / "index.html").read_text(encoding="utf-8")


def test_nothing_comes_from_outside_the_page(page):
    assert not re.search(r"https?://|<script|<link|@import|url\(", page)
    assert all(source.startswith("data:image/png;base64,") for source in re.findall(r'src="([^"]{0,40})', page))


def test_the_page_holds_every_figure_and_the_folder_their_files(page, folder):
    files = {path.stem for path in folder.glob("*.png")}
    assert files == {"maps_0", "maps_1", "errors", "spectra", "questions", "conditioning"}
    assert page.count('src="data:image/png;base64,') == len(files)
    assert page.count("alt=") == len(files)


def test_the_result_stands_first(page):
    text = re.sub(r"<style>.*?</style>|<[^>]+>", " ", page, flags=re.DOTALL)
    places = [text.index(part) for part in ("5 of 5 heads recovered", "5.0 × 10⁻¹⁰", "1,512", "14 s", "What was asked")]
    assert places == sorted(places)


def test_words_from_a_run_are_escaped(tmp_path):
    Record("<b>me</b>:f", "LEARNED", "Learned.", "a < b").save(tmp_path, {})
    page = write(tmp_path).read_text(encoding="utf-8")
    assert "&lt;b&gt;me&lt;/b&gt;:f" in page
    assert "a &lt; b" in page
    assert "<b>me</b>" not in page


def test_a_run_that_stopped_says_why_and_where(record, tmp_path):
    stopped = replace(
        record,
        status="HEADS_UNRESOLVED",
        sentence="The heads could not be told apart.",
        evidence="sum rule .9",
        heads=(),
        floor=None,
        judgement=None,
        certificate=None,
        sentences=(),
    )
    stopped.save(tmp_path, {})
    page = write(tmp_path).read_text(encoding="utf-8")
    for said in ("Heads unresolved", stopped.sentence, "sum rule .9", "Stage reached: <b>atoms</b>", "arrays.npz"):
        assert said in page
    assert "recovered</h1>" not in page


def test_a_bare_record_has_a_page(tmp_path):
    Record("f", "ORACLE_FAILED", "The black box failed.", "It raised.").save(tmp_path, {})
    assert "Oracle failed" in write(tmp_path).read_text(encoding="utf-8")


@pytest.mark.slow
def test_drawing_again_gives_the_same_page(page, folder):
    assert write(folder).read_text(encoding="utf-8") == page


def test_what_was_given_in_advance_is_said(tmp_path):
    Record("f", "LEARNED", "Learned.", options={"head_dim": 3}).save(tmp_path, {})
    assert "given in advance: head dim 3." in write(tmp_path).read_text(encoding="utf-8")


def test_a_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(ValueError, match="Cannot read a run from"):
        write(tmp_path)


def test_the_headline_counts_heads_only_after_success(record):
    assert headline(record) == "5 of 5 heads recovered"
    assert headline(replace(record, judgement=None)) == "5 heads recovered"
    assert headline(replace(record, judgement=None, heads=record.heads[:1])) == "1 head recovered"
    assert headline(replace(record, status="NOT_CERTIFIED")) == "Not certified"


def test_tiles_are_the_numbers_of_the_run(record):
    assert [tile.value for tile in tiles(record)][:4] == ["5.0 × 10⁻¹⁰", "3.9 × 10⁻¹⁰", "1,512", "14 s"]
    assert [tile.label for tile in tiles(Record("f", "LEARNED", "Learned."))] == ["of learning"]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"),
        (0.0, "0"),
        (0.25, "0.25"),
        (935.0, "935"),
        (2.34e-10, "2.3 × 10⁻¹⁰"),
        (1e12, "1.0 × 10¹²"),
        (float("inf"), "∞"),
        (float("nan"), "undefined"),
    ],
)
def test_numbers_are_written_for_people(value, text):
    assert scientific(value) == text


def test_figures_of_a_stage_are_a_line(record, tmp_path):
    figures = {"causal": False, "ranks": [2, 5, 3], "left_for": "another way", "gap": None, "steps": 1200}
    replace(record, phases=(Phase("atoms", figures, 3, 0.1),), sentences=()).save(tmp_path, {})
    page = write(tmp_path).read_text(encoding="utf-8")
    assert "causal no · ranks 2 to 5 · left for another way · gap None · steps 1,200" in page
    assert "the jumps of hard attention" in page


def test_words_of_a_stage_are_shown_whole(record, tmp_path):
    words = "12 slabs narrower than 0.1, certain for one head and the exact sum; evidence otherwise"
    figures = {"in": words, "norms": {f"estimate {number}": 0.1 for number in range(7)}, "path": ["a", "b"]}
    replace(record, phases=(Phase("certificates", figures, 3, 0.1),), sentences=()).save(tmp_path, {})
    page = write(tmp_path).read_text(encoding="utf-8")
    assert f"in {words} · norms (7 entries) · path " in page
    assert "rows in which all heads share their weight between two tokens" in page


@pytest.mark.parametrize(
    "phase", ["crude", "ov_sum", "certificates", "hull", "net", "faithful", "sharpened", "polished"]
)
def test_every_phase_of_sculpting_has_its_words(phase):
    assert phase in STAGES


def test_times_are_written_for_people():
    assert [duration(seconds) for seconds in (0.0312, 1.26, 14.2, 150.0)] == ["31 ms", "1.3 s", "14 s", "2.5 min"]


def test_the_page_of_examples_speaks_of_no_questions(record, arrays, tmp_path):
    cost = Cost(600, 4800, 38400, 3.0)
    certificate = Certificate(True, 1e-9)
    given = replace(record, source="data.npz", examples=600, ledger=None, cost=cost, certificate=certificate)
    given.save(tmp_path, arrays)
    page = write(tmp_path).read_text(encoding="utf-8")
    words = ("600 sequences of tokens of width 8", "What was given", "Attention on the first examples", "Example 2,")
    for said in (*words, "The outputs of 600 sequences were learned from.", "the numbers that any method needs"):
        assert said in page
    for word in ("question", "Question", "black box", "What was asked"):
        assert word not in page
