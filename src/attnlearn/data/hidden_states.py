"""What every layer of an encoder makes of many sentences: the first token, and the mean of all tokens."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from attnlearn._progress import progress
from attnlearn.data.bert import Bert
from attnlearn.data.encoder import Encoder
from attnlearn.data.minilm import minilm_file
from attnlearn.data.sentences import equal_lengths, word_pieces


class HiddenStates(NamedTuple):
    """Hidden states of sentences, 0 (the embeddings) to m (above layer m), in the precision of their encoder."""

    first: Float[np.ndarray, "sentences states d"]
    mean: Float[np.ndarray, "sentences states d"]


def hidden_states(sentences: Sequence[str], model: Bert | None = None, encoder: Encoder | None = None) -> HiddenStates:
    """Hidden states of each sentence: of its first token ("[CLS]" in BERT), and their mean over all its tokens.

    The word pieces come from the tokenizer beside the weights of `model` (`None`: MiniLM in float64), the states from
    `encoder` (`None`: that of `model`). Sentences of as many word pieces are computed together, so none is padded.

    **Raises:** `ValueError` for no sentences, `TypeError` for a string instead of a list.
    """
    if isinstance(sentences, str):
        raise TypeError(f"hidden_states wants a list of sentences, got one string: give [{sentences[:20]!r}]")
    if not sentences:
        raise ValueError("hidden_states wants at least one sentence, got none")
    model = Bert(minilm_file()) if model is None else model
    encoder = model.encoder() if encoder is None else encoder
    ids = [one.ids for one in word_pieces(sentences, model)]
    first = mean = np.empty(0)
    done = 0
    for index, batch in equal_lengths(ids):
        progress("embed", done, len(ids))
        states = np.stack(encoder(batch), axis=1)
        if not done:
            shape = (len(ids), states.shape[1], states.shape[3])
            first, mean = np.empty(shape, states.dtype), np.empty(shape, states.dtype)
        first[index], mean[index] = states[:, :, 0], states.mean(axis=2)
        done += len(index)
    progress("embed", done, len(ids))
    return HiddenStates(first, mean)


def transformers_encoder(folder: str | Path) -> Encoder:
    """The BERT in `folder` (`config.json`, `model.safetensors`) as transformers computes it, in float32.

    **Raises:** `ImportError` without torch and transformers.
    """
    try:
        import torch
        from transformers import BertModel
    except ImportError as error:
        raise ImportError(
            "torch or transformers is not installed; install them with: pip install 'attnlearn[torch]'"
        ) from error
    model = BertModel.from_pretrained(str(folder), add_pooling_layer=False, local_files_only=True).eval()

    def encoder(ids: np.ndarray) -> list[np.ndarray]:
        with torch.no_grad():
            return [state.numpy() for state in model(torch.from_numpy(ids), output_hidden_states=True).hidden_states]

    return encoder
