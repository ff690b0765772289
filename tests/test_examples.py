"""The scripts in `examples/` run, and print what they promise."""

import runpy
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"


def printed(name: str, capsys: pytest.CaptureFixture[str]) -> str:
    """What the example prints when it is run as a script."""
    runpy.run_path(str(EXAMPLES / name), run_name="__main__")
    return capsys.readouterr().out


@pytest.mark.slow
def test_a_function_is_recovered_with_its_mask(capsys):
    out = printed("recover_function.py", capsys)
    assert out.startswith("Recovered") and "3 heads, mask Causal()" in out and "FAILS" not in out


@pytest.mark.slow
def test_a_disguised_layer_is_the_same_and_a_changed_one_is_not(capsys):
    out = printed("compare_layers.py", capsys)
    assert "5 heads, 3 in canonical form" in out
    assert "every QK longer by a thousandth: QK 1.0e-03, OV 0.0e+00" in out
    assert "a head left out: QK inf" in out


@pytest.mark.slow
def test_a_larger_budget_never_knows_less(capsys):
    rows = printed("budget_curve.py", capsys).splitlines()[1:]
    order = ["nothing", "offset", "number", "every", "everything:"]
    known = [order.index(row.split()[2]) for row in rows]
    assert len(rows) == 8 and known == sorted(known) and "RECOVERED" in rows[-1]


@pytest.mark.slow
def test_a_grid_search_finds_heads_and_mask(capsys):
    out = printed("fit_estimator.py", capsys)
    assert "heads=2, causal softmax  R2 1.000" in out and out.count("R2 1.000") == 1
    assert "Recovered" in out and "R2 on new sentences 1.000000" in out


@pytest.mark.slow
def test_every_example_is_run_here():
    source = Path(__file__).read_text()
    assert all(f'"{path.name}"' in source for path in EXAMPLES.glob("*.py"))
