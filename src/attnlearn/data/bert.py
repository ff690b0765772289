"""A BERT encoder as stored in a safetensors file, computed in NumPy."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from safetensors import SafetensorError, safe_open

from attnlearn.data.encoder import Embeddings, EncoderLayer, Norm, NumpyEncoder
from attnlearn.data.queries import precision
from attnlearn.data.self_attention import SelfAttention

PROJECTIONS = ("self.query", "self.key", "self.value", "output.dense")
EMBEDDINGS = ("word", "position", "token_type")


class Bert:
    """The encoder in a BERT-style safetensors file; tensors are read when they are needed.

    Names are `[bert.]encoder.layer.{l}.attention.{self.query, self.key, self.value, output.dense}.{weight, bias}`,
    weights (out, in). The number of heads comes from `heads` or from a `config.json` beside the file.
    What is read is held and computed in `dtype`, "float64" or "float32".

    **Raises:** `ValueError` for a file that cannot be read, has no such layer or no head count; for another dtype.
    """

    def __init__(self, path: str | Path, heads: int | None = None, dtype: Any = "float64"):
        self.path, self.dtype = Path(path), precision(dtype)
        try:
            self._file = safe_open(str(self.path), framework="np")
            names = set(self._file.keys())
        except (OSError, SafetensorError) as error:
            raise ValueError(f"{self.path} is not a readable safetensors file: {error}") from error
        self._prefix = "bert." if any(name.startswith("bert.") for name in names) else ""
        start = f"{self._prefix}encoder.layer."
        self.layers = len({name[len(start) :].split(".")[0] for name in names if name.startswith(start)})
        if not self.layers:
            raise ValueError(
                f"{self.path} holds no BERT encoder: wanted tensors named [bert.]encoder.layer.0.attention..., "
                f"got {', '.join(sorted(names)[:4])}, ..."
            )
        self.config = _config(self.path.with_name("config.json"))
        count = heads if heads is not None else self.config.get("num_attention_heads")
        if count is None:
            raise ValueError(
                f"the number of heads of {self.path} is not known: give heads=, or a config.json beside it"
            )
        self.heads = int(count)

    def tensor(self, name: str) -> Float[np.ndarray, "..."]:
        """One tensor in `dtype`."""
        try:
            return self._file.get_tensor(self._prefix + name).astype(self.dtype)
        except (SafetensorError, TypeError) as error:
            raise ValueError(f"{self.path} has no readable tensor {self._prefix + name}: {error}") from error

    def attention(self, layer: int, causal: bool = False) -> SelfAttention:
        """Self-attention of encoder layer `layer`, from 0; `causal` adds a causal mask that the model has not."""
        self.check_layer(layer)
        start = f"encoder.layer.{layer}.attention."
        matrices = [self.tensor(f"{start}{name}.weight").T for name in PROJECTIONS]
        biases = [self.tensor(f"{start}{name}.bias") for name in PROJECTIONS]
        inner = matrices[0].shape[-1]
        if self.heads < 1 or inner % self.heads:
            raise ValueError(f"{self.heads} heads do not divide the {inner} columns of W_Q in {self.path}")
        return SelfAttention(*matrices, *biases, heads=self.heads, causal=causal)

    def encoder(self, layers: int | None = None) -> NumpyEncoder:
        """Embeddings and the lowest `layers` layers (`None`: all), with their weights read."""
        count = self.layers if layers is None else layers
        return NumpyEncoder(self._embeddings(), tuple(self._layer(layer) for layer in range(count)))

    @property
    def positions(self) -> int:
        """The longest sequence for which there are position embeddings."""
        return len(self.tensor("embeddings.position_embeddings.weight"))

    def check_layer(self, layer: int) -> None:
        """Raises `ValueError` for a layer that the encoder has not."""
        if not 0 <= layer < self.layers:
            raise ValueError(f"layer must be from 0 to {self.layers - 1} in {self.path}, got {layer}")

    def _layer(self, layer: int) -> EncoderLayer:
        if (act := self.config.get("hidden_act", "gelu")) != "gelu":
            raise ValueError(f"{self.path} has the activation {act!r}; only 'gelu' is computed")
        start = f"encoder.layer.{layer}."
        inner, outer = (self._dense(f"{start}{name}.dense") for name in ("intermediate", "output"))
        norms = [self._norm(f"{start}{name}.LayerNorm") for name in ("attention.output", "output")]
        return EncoderLayer(self.attention(layer), norms[0], *inner, *outer, norms[1])

    def _embeddings(self) -> Embeddings:
        words, places, kinds = (self.tensor(f"embeddings.{name}_embeddings.weight") for name in EMBEDDINGS)
        return Embeddings(words, places, kinds[0], self._norm("embeddings.LayerNorm"))

    def _dense(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        return np.ascontiguousarray(self.tensor(f"{name}.weight").T), self.tensor(f"{name}.bias")

    def _norm(self, name: str) -> Norm:
        epsilon = self.config.get("layer_norm_eps", 1e-12)
        return Norm(self.tensor(f"{name}.weight"), self.tensor(f"{name}.bias"), epsilon)


def _config(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise ValueError(f"{path} is no JSON object: repair it, or take it away and give heads=")
    return found
