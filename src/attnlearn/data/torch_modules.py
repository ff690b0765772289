"""Attention modules of torch and transformers as black boxes."""

import contextlib
import copy
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from attnlearn.data.queries import QueryOracle, precision
from attnlearn.data.self_attention import SelfAttention

SUPPORTED = "nn.MultiheadAttention as self-attention, or BertSelfAttention or BertAttention of transformers"


def from_torch(module: Any, causal: bool = False, dtype: Any = None, **oracle_kwargs: Any) -> QueryOracle:
    """A black box over a torch module; `truth` holds its circuits, for judging.

    `nn.MultiheadAttention` is asked for self-attention (`batch_first` either way). `BertSelfAttention` answers with
    its heads side by side; of `BertAttention` the self-attention and the output projection are asked, residual and
    LayerNorm are left outside. The module is asked in evaluation mode without gradients, on the device where it is,
    and left in the mode in which it was found.

    **Arguments:**

    - `causal`: adds a causal mask; a module that is a decoder has one anyway.
    - `dtype`: "float64" or "float32"; `None`: that of the module. For another than the module's, a copy of it is cast.
    - `oracle_kwargs`: `max_queries`, `noise` of `QueryOracle`.

    **Raises:** `ImportError` without torch, `TypeError` for another module, `ValueError` for one of these with
    settings under which it is no self-attention layer (other key widths, `bias_k`, `add_zero_attn`).
    """
    try:
        import torch
    except ImportError as error:
        raise ImportError("torch is not installed; install it with: pip install 'attnlearn[torch]'") from error
    kind = type(module).__name__
    if isinstance(module, torch.nn.MultiheadAttention):
        attention, answer = _multihead_attention(module, causal), _ask_multihead_attention
    elif _is_bert(getattr(module, "self", module)):
        attention, answer = _bert(module, causal), _ask_bert
    else:
        raise TypeError(
            f"wanted {SUPPORTED}, got {kind}; any other module can be asked through QueryOracle(fn, width) with a "
            "function fn of arrays (batch, k, d)"
        )
    own = next(module.parameters()).dtype
    wanted = precision(str(own).removeprefix("torch.") if dtype is None else dtype)
    if str(own) != f"torch.{wanted.name}":
        module = copy.deepcopy(module).to(getattr(torch, wanted.name))
    oracle = QueryOracle(_box(module, attention.causal, answer), attention.width, dtype=wanted, **oracle_kwargs)
    oracle.truth = attention.circuits()
    oracle.name = kind
    return oracle


def _box(module: Any, causal: bool, answer: Callable[..., Any]) -> Callable[[np.ndarray], np.ndarray]:
    import torch

    device = next(module.parameters()).device

    def ask(X: np.ndarray) -> np.ndarray:
        k = X.shape[1]
        hidden = torch.triu(torch.ones(k, k, dtype=torch.bool, device=device), 1) if causal else None
        with torch.no_grad(), _evaluating(module):
            return answer(module, torch.from_numpy(X).to(device), hidden).cpu().numpy()

    return ask


@contextlib.contextmanager
def _evaluating(module: Any) -> Iterator[None]:
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training


def _ask_multihead_attention(module: Any, X: Any, hidden: Any) -> Any:
    X = X if module.batch_first else X.transpose(0, 1)
    answer = module(X, X, X, need_weights=False, attn_mask=hidden)[0]
    return answer if module.batch_first else answer.transpose(0, 1)


def _ask_bert(module: Any, X: Any, hidden: Any) -> Any:
    k = X.shape[1]
    mask = X.new_zeros(len(X), 1, k, k)
    if hidden is not None:
        mask = mask.masked_fill(hidden, float("-inf"))
    answer = getattr(module, "self", module)(X, attention_mask=mask)[0]
    return module.output.dense(answer) if hasattr(module, "self") else answer


def _is_bert(module: Any) -> bool:
    return all(hasattr(module, name) for name in ("query", "key", "value", "num_attention_heads"))


def _multihead_attention(module: Any, causal: bool) -> SelfAttention:
    if module.in_proj_weight is None:
        raise ValueError(
            f"wanted self-attention, got keys of width {module.kdim} and values of {module.vdim} for tokens of "
            f"{module.embed_dim}"
        )
    if module.bias_k is not None or module.add_zero_attn:
        raise ValueError("bias_k and add_zero_attn add a token of their own: such a module is no layer of this family")
    stacked, width, output = _array(module.in_proj_weight), module.embed_dim, module.out_proj
    stacked_bias = np.zeros(3 * width) if module.in_proj_bias is None else _array(module.in_proj_bias)
    matrices = [weight.T for weight in np.split(stacked, 3)] + [_array(output.weight).T]
    biases = [*np.split(stacked_bias, 3), _bias(output)]
    return SelfAttention(*matrices, *biases, heads=module.num_heads, causal=causal)


def _bert(module: Any, causal: bool) -> SelfAttention:
    inner = getattr(module, "self", module)
    if getattr(inner, "position_embedding_type", "absolute") != "absolute":
        raise ValueError(f"wanted absolute position embeddings, got {inner.position_embedding_type!r}")
    parts = [inner.query, inner.key, inner.value]
    matrices = [_array(part.weight).T for part in parts]
    biases = [_bias(part) for part in parts]
    whole = hasattr(module, "self")
    matrices.append(_array(module.output.dense.weight).T if whole else np.eye(matrices[2].shape[1]))
    biases.append(_bias(module.output.dense) if whole else np.zeros(matrices[2].shape[1]))
    causal = causal or bool(getattr(inner, "is_decoder", False) or getattr(inner, "is_causal", False))
    return SelfAttention(*matrices, *biases, heads=inner.num_attention_heads, causal=causal)


def _bias(linear: Any) -> np.ndarray:
    return np.zeros(linear.weight.shape[0]) if linear.bias is None else _array(linear.bias)


def _array(tensor: Any) -> np.ndarray:
    return tensor.detach().cpu().double().numpy()
