"""A run as `attnlearn recover --out` would leave it, with figures of every kind, made without a layer."""

import numpy as np
import pytest

from attnlearn.records import Certificate, Cost, Head, Judgement, Ledger, Phase, Record, Statement, floor

HEADS = tuple(Head(2.5, 3.5, 0.5, 3, 2, 1e-10 * (i + 1), 0.0) for i in range(5))


def attention(key, tokens):
    maps = np.exp(key.standard_normal((5, tokens, tokens)) * np.arange(1, 6)[:, None, None])
    return maps / maps.sum(axis=-1, keepdims=True)


@pytest.fixture(autouse=True, scope="session")
def coarse():
    """Small images: no test looks at single dots."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("attnlearn.report.page._DPI", 40)
        yield


@pytest.fixture(scope="session")
def record():
    return Record(
        source="minilm:0",
        status="RECOVERED",
        sentence="Recovered: the layer was learned and its certificate passed.",
        width=8,
        width_out=8,
        slots={"normaliser": "Softmax", "mask": "none"},
        cost=Cost(1512, 9804, 78432, 14.2, 3.0),
        ledger=Ledger(1576, 10572, 84576, {1: 9, 2: 1503, 12: 64}, {"learning": 1512, "certificate": 64}),
        phases=(Phase("affine", {"rounds": 1}, 9, 0.2), Phase("atoms", {"ranks": [3, 3], "gap": 1e-12}, 1503, 14.0)),
        certificate=Certificate(True, 3.9e-10, (Statement("fresh questions", "same", "none", 3.9e-10, 1e-6, True),)),
        heads=HEADS,
        floor=floor(HEADS, 8, 8),
        judgement=Judgement(5, 5e-10, 0.0, 1e-11, 0.0, 2e-10, 3e-11),
        conditioning={"atoms": 18.2, "isolation: bases": 935.0},
        sentences=(("[CLS]", "ice", "##berg", "$x$", "[SEP]"), ("[CLS]", "<b>", "[SEP]")),
    )


@pytest.fixture(scope="session")
def arrays():
    key = np.random.default_rng(0)
    learned = {f"maps_learned_{n}": attention(key, k) for n, k in enumerate((5, 3))}
    true = {f"maps_true_{n}": learned[f"maps_learned_{n}"] + 1e-10 for n in range(2)}
    spectra = {
        "spectrum_heads": np.geomspace(1, 1e-17, 9),
        "spectrum_qk": np.ones((5, 8)),
        "spectrum_ov": np.ones((5, 8)),
    }
    return learned | true | spectra
