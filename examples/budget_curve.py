"""How much of a layer a budget of questions buys: the status and what is known, budget by budget."""

import numpy as np

import attnlearn as al

KNOWN = {"ov_sum": "offset and sum of the OV circuits", "atoms": "number of heads", "ov": "every OV circuit"}


def what_is_known(result: al.Recovery, hidden: al.AttentionLayer) -> str:
    """The furthest that a run came, in words."""
    if result.layer is not None:
        apart = al.distance(result.layer, hidden)
        return f"everything: QK to {apart.qk:.0e}, OV to {apart.ov:.0e}"
    return next((words for name, words in reversed(KNOWN.items()) if name in result.arrays), "nothing")


def main() -> None:
    hidden = al.random_layer(0, heads=2, width=16, head_dim=4)
    needed = al.recover(al.oracles.from_layer(hidden)).ledger.calls
    print(f"{needed} sequences recover the layer, the certificate's 64 among them")
    for budget in np.linspace(needed / 8, needed, 8).astype(int):
        oracle = al.oracles.from_layer(hidden, max_queries=int(budget))
        result = al.recover(oracle)
        print(f"{budget:>5}  {result.status.name:<17}  {what_is_known(result, hidden)}")


if __name__ == "__main__":
    main()
