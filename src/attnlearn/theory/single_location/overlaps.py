r"""The state of a predictor of single-location regression: five overlaps, and which of them unit vectors can have."""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from attnlearn.theory.single_location.door import ROUNDING, checked_overlaps, checked_width, lowest_eigenvalue

Overlaps = Float[np.ndarray, "*runs 5"]


class OrderParameters(NamedTuple):
    r"""$\kappa=\langle k,k^\star\rangle,\ \nu=\langle v,v^\star\rangle,\ \theta=\langle v,k^\star\rangle,\
    \eta=\langle k,v^\star\rangle,\ \rho=\langle k,v\rangle$ of unit vectors, each of shape (runs)."""

    kappa: Any
    nu: Any
    theta: Any
    eta: Any
    rho: Any

    @classmethod
    def of(cls, overlaps: Any) -> "OrderParameters":
        """The five columns of an array (..., 5)."""
        return cls(*(overlaps[..., column] for column in range(5)))

    def array(self) -> Overlaps:
        """One array (..., 5)."""
        return np.stack(np.broadcast_arrays(*map(np.asarray, self)), axis=-1)


def overlaps(k: Any, v: Any, k_star: Any, v_star: Any) -> Overlaps:
    """The five overlaps of parameters `k`, `v` (..., d) with the directions `k_star`, `v_star` (d,) of the task.

    **Raises:** `ValueError` for vectors that have not length 1, or different widths.
    """
    k, v, k_star, v_star = (
        _checked_unit(name, vector) for name, vector in (("k", k), ("v", v), ("k_star", k_star), ("v_star", v_star))
    )
    if len({vector.shape[-1] for vector in (k, v, k_star, v_star)}) > 1 or k_star.ndim > 1 or v_star.ndim > 1:
        raise ValueError(
            f"k, v (..., d), k_star and v_star (d,) must have one width, got shapes {k.shape}, {v.shape}, "
            f"{k_star.shape}, {v_star.shape}"
        )
    return measured(k, v, k_star, v_star)


def measured(k: np.ndarray, v: np.ndarray, k_star: np.ndarray, v_star: np.ndarray) -> Overlaps:
    """`overlaps`, unchecked."""
    return OrderParameters(k @ k_star, v @ v_star, v @ k_star, k @ v_star, (k * v).sum(-1)).array()


def embed(state: Any, width: int = 6) -> tuple[np.ndarray, np.ndarray]:
    r"""Unit vectors $k, v$ (..., width) with these overlaps, in a frame that starts with $k^\star=e_1$, $v^\star=e_2$.

    **Raises:** `ValueError` for overlaps that no unit vectors have, or a width below 4.
    """
    return embedded(OrderParameters.of(checked_overlaps(state)), checked_width(width))


def embedded(state: OrderParameters, width: int) -> tuple[np.ndarray, np.ndarray]:
    """`embed`, unchecked: of overlaps that rounding has moved off those of unit vectors, nearby vectors."""
    zero = np.zeros(state.kappa.shape)
    k3 = np.sqrt(np.maximum(1 - state.kappa**2 - state.eta**2, 0.0))
    rest = state.rho - state.kappa * state.theta - state.eta * state.nu
    v3 = np.divide(rest, k3, out=zero.copy(), where=k3 > 0)
    v4 = np.sqrt(np.maximum(1 - state.theta**2 - state.nu**2 - v3**2, 0.0))
    others = [zero] * (width - 4)
    k = np.stack([state.kappa, state.eta, k3, zero, *others], axis=-1)
    return k, np.stack([state.theta, state.nu, v3, v4, *others], axis=-1)


def on_spheres(state: Overlaps) -> Overlaps:
    """`state`, and where rounding has moved it off the overlaps of unit vectors, those of vectors nearby."""
    off = lowest_eigenvalue(state) < -ROUNDING / 10
    if not off.any():
        return state
    k, v = (_unit(vector) for vector in embedded(OrderParameters.of(state), 4))
    return np.where(off[..., None], measured(k, v, *np.eye(4)[:2]), state)


def sphere_starts(seed: int, n_runs: int, d: int) -> Overlaps:
    r"""Overlaps of independent uniform unit vectors $k, v$ in $\mathbb R^d$, exactly in law and without vectors."""
    key = _key(seed, n_runs, d)
    k, v = np.zeros((2, n_runs, 4))
    k[:, :2], k[:, 2] = key.standard_normal((n_runs, 2)), _chi(key, d - 2, n_runs)
    v[:, :3], v[:, 3] = key.standard_normal((n_runs, 3)), _chi(key, d - 3, n_runs)
    return measured(_unit(k), _unit(v), *np.eye(4)[:2])


def manifold_starts(seed: int, n_runs: int, d: int) -> Overlaps:
    r"""Overlaps of the authors' start on $\theta=\eta=\rho=0$, exactly in law and without vectors."""
    key = _key(seed, n_runs, d)
    found = np.zeros((n_runs, 5))
    for column, freedom in ((0, d - 2), (1, d - 3)):
        along = key.standard_normal(n_runs)
        found[:, column] = along / np.hypot(along, _chi(key, freedom, n_runs))
    return found


def basins(state: Any) -> np.ndarray:
    r"""Where runs ended: "undecided" if $\max(|\eta|,|\nu|)<.8$, else "swapped" if $|\eta|>|\nu|$, else "oracle"."""
    state = OrderParameters.of(checked_overlaps(state))
    nu, eta = np.abs(state.nu), np.abs(state.eta)
    return np.where(np.maximum(nu, eta) < 0.8, "undecided", np.where(eta > nu, "swapped", "oracle"))


def _chi(key: np.random.Generator, freedom: int, n: int) -> np.ndarray:
    return np.sqrt(key.chisquare(freedom, n))


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def _key(seed: int, n_runs: int, d: int) -> np.random.Generator:
    """The generator of starts; `ValueError` for too small a width, or no run at all."""
    checked_width(d)
    if n_runs < 1:
        raise ValueError(f"n_runs must be at least 1, got {n_runs!r}")
    return np.random.default_rng(seed)


def _checked_unit(name: str, vectors: Any) -> np.ndarray:
    vectors = np.asarray(vectors, float)
    length = np.linalg.norm(vectors, axis=-1) if vectors.ndim else np.zeros(1)
    if not (np.abs(length - 1) <= 1e-6).all():
        raise ValueError(f"{name} must have length 1, got {float(np.ravel(length)[0]):.6g}: divide it by its norm")
    return vectors
