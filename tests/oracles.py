"""Brute-force twins: every formula once more from its definition, by loops in NumPy."""

import math

import numpy as np


def visible(slots, query, token):
    """Whether `query` may see `token`."""
    return slots.mask is None or token <= query


def softmax(scores):
    exponentials = np.exp(scores - max(scores))
    return exponentials / exponentials.sum()


def attention_maps(layer, X):
    """Attention weights (m, k, k) of one sequence (k, d), a head and a querying token at a time."""
    k = len(X)
    maps = np.zeros((layer.heads, k, k))
    for head in range(layer.heads):
        for query in range(k):
            seen = [token for token in range(k) if visible(layer.slots, query, token)]
            scores = [X[query] @ layer.qk[head] @ X[j] + layer.query_bias[head] @ X[j] for j in seen]
            maps[head, query, seen] = softmax(np.array(scores))
    return maps


def attention(layer, X):
    """Outputs (k, d_out) of one sequence (k, d), a head and two tokens at a time."""
    maps = attention_maps(layer, X)
    outputs = np.tile(layer.offset, (len(X), 1))
    for head in range(layer.heads):
        for query in range(len(X)):
            for token in range(len(X)):
                outputs[query] += maps[head, query, token] * (X[token] @ layer.ov[head])
    return outputs


def attention_from_projections(ordinary, slots, X, scale=None):
    """Outputs of one sequence from $W_Q, W_K, W_V, W_O$ and all four biases, with grouped key and value heads."""
    W_Q, W_K, W_V, W_O, b_Q, b_K, b_V, b_O = ordinary
    group = len(W_Q) // len(W_K)
    scale = 1 / np.sqrt(W_Q.shape[2]) if scale is None else scale
    outputs = np.tile(b_O, (len(X), 1))
    for head in range(len(W_Q)):
        queries = X @ W_Q[head] + b_Q[head]
        keys = X @ W_K[head // group] + b_K[head // group]
        values = X @ W_V[head // group] + b_V[head // group]
        for query in range(len(X)):
            seen = [token for token in range(len(X)) if visible(slots, query, token)]
            mixture = softmax(np.array([scale * queries[query] @ keys[token] for token in seen]))
            outputs[query] += mixture @ values[seen] @ W_O[head]
    return outputs


def layer_norm(row, weight, bias, epsilon):
    """One token minus its mean, divided by its standard deviation, scaled and shifted."""
    mean = sum(row) / len(row)
    variance = sum((x - mean) ** 2 for x in row) / len(row)
    return np.array(
        [w * (x - mean) / math.sqrt(variance + epsilon) + b for x, w, b in zip(row, weight, bias, strict=True)]
    )


def bert_projections(tensors, layer, heads):
    """The eight arrays of `attention_from_projections` from tensors (out, in) with the names of BERT."""
    start = f"encoder.layer.{layer}.attention."
    W_Q, W_K, W_V = (np.split(tensors[f"{start}self.{n}.weight"].T, heads, 1) for n in ("query", "key", "value"))
    b_Q, b_K, b_V = (np.split(tensors[f"{start}self.{n}.bias"], heads) for n in ("query", "key", "value"))
    W_O = np.split(tensors[f"{start}output.dense.weight"].T, heads)
    return *map(np.array, (W_Q, W_K, W_V, W_O, b_Q, b_K, b_V)), tensors[f"{start}output.dense.bias"]


def bert_block(tensors, layer, heads, slots, X, epsilon):
    """Encoder layer of BERT, a token at a time: norm(x + attention), then norm(h + network(h)) with exact GELU."""
    start = f"encoder.layer.{layer}."
    attended = X + attention_from_projections(bert_projections(tensors, layer, heads), slots, X)
    outputs = []
    for row in attended:
        norm = [tensors[f"{start}attention.output.LayerNorm.{part}"] for part in ("weight", "bias")]
        hidden = layer_norm(row, *norm, epsilon)
        inner = tensors[f"{start}intermediate.dense.weight"] @ hidden + tensors[f"{start}intermediate.dense.bias"]
        gelu = np.array([x * (1 + math.erf(x / math.sqrt(2))) / 2 for x in inner])
        outer = tensors[f"{start}output.dense.weight"] @ gelu + tensors[f"{start}output.dense.bias"]
        norm = [tensors[f"{start}output.LayerNorm.{part}"] for part in ("weight", "bias")]
        outputs.append(layer_norm(hidden + outer, *norm, epsilon))
    return np.array(outputs)
