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


def sees(mask, query, token):
    """Whether `query` may see `token` under no mask, a causal one or a window."""
    width = getattr(mask, "width", math.inf)
    return mask is None or 0 <= query - token < width


def row_of_weights(normaliser, scores):
    """Weights of the visible tokens of one row, by the name of the normaliser."""
    number = len(scores) if getattr(normaliser, "mean", True) else 1
    one_by_one = {
        "Sigmoid": lambda s: 1 / (1 + math.exp(-(s - math.log(number)))),
        "ReLU": lambda s: max(s, 0.0) / number,
        "Linear": lambda s: s / number,
        "Erf": lambda s: math.erf(s) / number,
    }
    name = type(normaliser).__name__
    return softmax(np.array(scores)) if name == "Softmax" else np.array([one_by_one[name](s) for s in scores])


def answers(layer, X, present, rows):
    """What is read of one sequence (k, d) of which the tokens `present` are there, a head and two tokens at a time."""
    there = [t for t in range(len(X)) if present[t]]
    outputs = np.zeros((len(X), layer.width_out))
    for query in there:
        outputs[query] = layer.offset
        for head in range(layer.heads):
            seen = [token for token in there if sees(layer.slots.mask, query, token)]
            scores = [X[query] @ layer.qk[head] @ X[j] + layer.query_bias[head] @ X[j] for j in seen]
            for weight, token in zip(row_of_weights(layer.slots.normaliser, scores), seen, strict=True):
                outputs[query] += weight * (X[token] @ layer.ov[head])
    if rows == "all":
        return outputs
    return outputs[there[-1]] if rows == "last" else sum(outputs[t] for t in there) / len(there)


def features(X, present, rows, circuits, slots, offset):
    """Features of what is read of one sequence (k, d), a head and two tokens at a time.

    `circuits`: for each head the dense score matrix (d, d) or with a query bias (d + 1, d), and V (d, s).
    """
    there = [t for t in range(len(X)) if present[t]]
    width = sum(values.shape[1] for _, values in circuits)
    found = np.zeros((len(X), width + offset))
    for query in there:
        seen = [token for token in there if sees(slots.mask, query, token)]
        start = 0
        for scores, values in circuits:
            asking = np.append(X[query], 1.0) if len(scores) > X.shape[1] else X[query]
            weights = row_of_weights(slots.normaliser, [asking @ scores @ X[j] for j in seen])
            for weight, token in zip(weights, seen, strict=True):
                found[query, start : start + values.shape[1]] += weight * (X[token] @ values)
            start += values.shape[1]
        found[query, start:] = 1.0
    if rows == "all":
        return found
    return (found[there[-1]] if rows == "last" else sum(found[t] for t in there) / len(there))[None]
