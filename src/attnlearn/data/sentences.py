"""Real sentences: their word pieces, and what a layer of a trained encoder sees of them."""

from collections.abc import Sequence
from importlib import resources
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from attnlearn.data.bert import Bert
from attnlearn.data.minilm import minilm_file


def corpus() -> list[str]:
    """The sentences of the public-domain text that comes with the package; its head names the sources."""
    return _lines("corpus.txt")


def novels() -> list[str]:
    """Six hundred sentences of Jane Austen, of 10 to 20 MiniLM word pieces; for studies that need many."""
    return _lines("novels.txt")


def _lines(name: str) -> list[str]:
    text = resources.files("attnlearn.data").joinpath(name).read_text(encoding="utf-8")
    return [line for line in text.splitlines() if line and not line.startswith("#")]


def activations(
    sentences: Sequence[str], layer: int, model: Bert | None = None
) -> tuple[list[np.ndarray], list[list[str]]]:
    r"""Input of encoder layer `layer` for each sentence, arrays (k_i, d), and the word pieces, lists of k_i words.

    Embeddings and all layers before `layer` are computed in float64 with the weights of `model` (`None`: MiniLM),
    each sentence for itself. The word pieces come from the `tokenizer.json` beside the weights and include its first
    and last marks; a sentence longer than the position embeddings is cut.

    **Raises:** `ValueError` where there is no tokenizer or no such layer.
    """
    model = Bert(minilm_file()) if model is None else model
    model.check_layer(layer)
    tokenizer = _tokenizer(model)
    encoded = [tokenizer.encode(sentence) for sentence in sentences]
    rows = model.embedded([e.ids for e in encoded])
    for below in range(layer):
        rows = model.block(below, rows)
    return rows, [list(e.tokens) for e in encoded]


def tokenizer_beside(path: Path) -> Path:
    """Where the tokenizer of the weights at `path` is looked for."""
    return path.with_name("tokenizer.json")


def _tokenizer(model: Bert) -> Tokenizer:
    path = tokenizer_beside(model.path)
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises plain Exception
        raise ValueError(f"{path} is no readable tokenizer: {error}") from error
    tokenizer.no_padding()
    tokenizer.enable_truncation(model.positions)
    return tokenizer
