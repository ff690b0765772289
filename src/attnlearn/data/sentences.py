"""Real sentences: their word pieces, and what a layer of a trained encoder sees of them."""

from collections.abc import Iterator, Sequence
from importlib import resources
from pathlib import Path

import numpy as np
from tokenizers import Encoding, Tokenizer

from attnlearn.data.bert import Bert
from attnlearn.data.minilm import minilm_file

BATCH = 32  # sentences that are computed together: enough for the matrix products, few enough for the cache


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

    Embeddings and all layers before `layer` are computed with the weights and in the precision of `model` (`None`:
    MiniLM in float64). The word pieces come from the `tokenizer.json` beside the weights and include its first and
    last marks; a sentence longer than the position embeddings is cut; none is padded.

    **Raises:** `ValueError` where there is no tokenizer or no such layer.
    """
    model = Bert(minilm_file()) if model is None else model
    model.check_layer(layer)
    pieces, encoder = word_pieces(sentences, model), model.encoder(layer)
    rows: list[np.ndarray] = [np.empty(0)] * len(pieces)
    for index, ids in equal_lengths([one.ids for one in pieces]):
        for place, row in zip(index, encoder(ids)[-1], strict=True):
            rows[place] = row
    return rows, [list(one.tokens) for one in pieces]


def word_pieces(sentences: Sequence[str], model: Bert) -> list[Encoding]:
    """The `ids` and `tokens` that the tokenizer beside the weights of `model` makes of each sentence."""
    tokenizer = _tokenizer(model)
    return [tokenizer.encode(sentence) for sentence in sentences]


def equal_lengths(ids: Sequence[Sequence[int]], batch: int = BATCH) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """All lists of `ids`, at most `batch` of one length at a time: their places and their array (batch, k)."""
    lengths = np.array([len(one) for one in ids])
    for length in np.unique(lengths):
        (places,) = np.nonzero(lengths == length)
        for start in range(0, len(places), batch):
            index = places[start : start + batch]
            yield index, np.array([ids[place] for place in index])


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
