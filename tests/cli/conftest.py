"""Layers on disk, and a `recover` that answers at once with what a test wants."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

import attnlearn as al
from attnlearn import cli, records
from attnlearn._progress import progress


@dataclass(frozen=True)
class Result:
    """What `recover` returns, as far as the command line needs it."""

    layer: Any
    status: Any
    ledger: Any
    certificate: Any = None
    evidence: str = ""
    cost: Any = field(default_factory=lambda: records.Cost(4, 8, 48, 0.5))
    phases: tuple = field(default_factory=lambda: (records.Phase("affine", {"conditioning": 2.0}, 4, 0.5),))
    arrays: dict = field(default_factory=lambda: {"ov_sum": np.eye(6)})


@pytest.fixture
def layer_file(tmp_path):
    path = tmp_path / "layer.safetensors"
    al.random_layer(0, heads=2, width=6, head_dim=2).save(path)
    return path


@pytest.fixture
def examples_file(tmp_path, key):
    """Ten sequences of five tokens of width 6, and what a layer does to them."""
    X = key.standard_normal((10, 5, 6))
    al.Examples(X, al.random_layer(0, heads=2, width=6, head_dim=2)(X)).save(tmp_path / "data.npz")
    return tmp_path / "data.npz"


@pytest.fixture
def attnlearn():
    """Runs the command line in this process."""
    return lambda *words: CliRunner().invoke(cli.app, [str(word) for word in words])


@pytest.fixture
def asked(monkeypatch):
    """Replaces `recover`; holds what it was called with. `asked["end"]` is the status, or what is raised."""
    asked: dict[str, Any] = {"end": al.Status.RECOVERED}

    def recover(source, **options):
        asked.update(options, source=source)
        progress("affine", 1, 2)
        end = asked["end"]
        if isinstance(source, al.QueryOracle):
            source.ask(np.ones((4, 2, source.width)))
        if not isinstance(end, al.Status):
            raise end
        if isinstance(source, al.Examples):
            layer = al.random_layer(0, heads=2, width=source.width, head_dim=2)
            return Result(layer, end, None, records.Certificate(True, 1e-12), cost=records.Cost(8, 40, 240, 0.5))
        if end is not al.Status.RECOVERED:
            return Result(None, end, source.ledger, evidence="figure 9 where 1 is allowed")
        return Result(source.truth, end, source.ledger, records.Certificate(True, 1e-12))

    monkeypatch.setattr("attnlearn.cli.commands.recover_layer", recover)
    monkeypatch.setattr("attnlearn.report.page._DPI", 30)
    return asked
