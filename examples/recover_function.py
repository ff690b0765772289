"""Recovers an attention layer that is known only as a NumPy function, and says how it went."""

import numpy as np

import attnlearn as al

HEADS, WIDTH, HEAD_DIM = 3, 16, 4


def hidden_attention(seed: int):
    """A causal attention layer as a function of arrays (batch, k, WIDTH), and its weights for judging."""
    rng = np.random.default_rng(seed)
    W_Q, W_K, W_V = rng.normal(size=(3, HEADS, WIDTH, HEAD_DIM)) / np.sqrt(WIDTH)
    W_O = rng.normal(size=(HEADS, HEAD_DIM, WIDTH)) / np.sqrt(HEAD_DIM)

    def answer(X: np.ndarray) -> np.ndarray:
        queries, keys, values = (np.einsum("nkd,mdh->nmkh", X, W) for W in (W_Q, W_K, W_V))
        scores = queries @ keys.swapaxes(2, 3) / np.sqrt(HEAD_DIM)
        scores = np.where(np.tri(X.shape[1], dtype=bool), scores, -np.inf)
        weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
        weights /= weights.sum(axis=-1, keepdims=True)
        return np.einsum("nmkh,mhd->nkd", weights @ values, W_O)

    return answer, (W_Q, W_K, W_V, W_O)


def main() -> None:
    answer, weights = hidden_attention(seed=0)
    oracle = al.QueryOracle(answer, width=WIDTH)
    result = al.recover(oracle)

    print(result.status.value)
    print(f"{result.layer.heads} heads, mask {result.layer.slots.mask}, {result.ledger.calls} sequences asked")
    for phase in result.phases:
        print(f"  {phase.name:<12}{phase.calls:>5} calls")
    for statement in result.certificate.statements:
        print(f"  {'holds' if statement.holds else 'FAILS'}  {statement.name}: {statement.value:.1e}")

    truth = al.AttentionLayer.from_qkvo(*weights, slots=al.Slots(mask=al.Causal()))
    apart = al.distance(result.layer, truth)
    print(f"worst head against the truth: QK {apart.qk:.1e}, OV {apart.ov:.1e}")


if __name__ == "__main__":
    main()
