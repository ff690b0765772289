"""Compares layers by what they compute: order of heads, factors, split and zero heads do not count."""

import numpy as np

import attnlearn as al


def disguised(layer: al.AttentionLayer) -> al.AttentionLayer:
    """The same function: heads reversed, the first one split in two, and one without effect added."""
    order = [*reversed(range(layer.heads)), 0, 1]
    share = np.ones(len(order))
    share[layer.heads - 1], share[layer.heads], share[-1] = 0.25, 0.75, 0.0
    return al.AttentionLayer(
        layer.qk[order], layer.ov[order] * share[:, None, None], layer.query_bias[order], layer.offset
    )


def main() -> None:
    layer = al.random_layer(0, heads=3, width=8, head_dim=4)
    other = disguised(layer)
    print(f"{other.heads} heads, {al.canonical(other).heads} in canonical form")
    same = al.distance(other, layer)
    print(f"disguised: QK {same.qk:.1e}, OV {same.ov:.1e}, heads {same.permutation}")

    changed = al.AttentionLayer(layer.qk * (1 + 1e-3), layer.ov, layer.query_bias, layer.offset)
    apart = al.distance(changed, layer)
    print(f"every QK longer by a thousandth: QK {apart.qk:.1e}, OV {apart.ov:.1e}")

    missing = al.distance(al.AttentionLayer(layer.qk[:2], layer.ov[:2]), layer)
    print(f"a head left out: QK {missing.qk}, because {missing.reason}")


if __name__ == "__main__":
    main()
