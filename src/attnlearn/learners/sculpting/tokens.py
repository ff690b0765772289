r"""What a phase must know of the tokens: which of an example are equal, which is nearest, and what lies between two.

A *row* is one token $x_a$ of one example with its output $y_a$. With $W_s=\sum_iW_i$ its *effective token* is
$z_a=y_aW_s^+$; if all heads share the weights $p$ in a row, then $z_a=X^\top p$. Everything that is carved out of
examples comes from comparing $z_a$ with the tokens of its example.
"""

import abc
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

EQUAL = 1e-9  # squared distance of two tokens, over their width, below which they are one value
MOMENTS = 0.2  # largest entry by which Gaussian tokens may miss mean 0 and covariance 1, beside sampling error


class Values(NamedTuple):
    """The distinct values of an example: where each stands first, and how often the value of a token occurs."""

    first: Bool[np.ndarray, "n k"]
    times: Int[np.ndarray, "n k"]


def values(X: Float[np.ndarray, "n k d"]) -> Values:
    """The distinct token values of every example."""
    same = equal(X)
    earlier = np.tril(np.ones(same.shape[1:], bool), -1)
    return Values(np.logical_not((same & earlier).any(axis=-1)), same.sum(axis=-1))


def equal(X: Float[np.ndarray, "n k d"]) -> Bool[np.ndarray, "n k k"]:
    """Which tokens of an example are one value."""
    square = np.square(X).sum(axis=-1)
    apart = square[:, :, None] + square[:, None, :] - 2 * X @ X.swapaxes(1, 2)
    return apart <= EQUAL * X.shape[-1]


class Nearest(NamedTuple):
    """For every row the token of its example that is nearest to the effective token, and the relative residual."""

    token: Int[np.ndarray, "n k"]
    residual: Float[np.ndarray, "n k"]


def nearest(Z: Float[np.ndarray, "n k d"], X: Float[np.ndarray, "n k d"], by_angle: bool = False) -> Nearest:
    r"""The vertex certificate: $r=|z-u|/\sqrt d$ to the nearest token $u$, small where all heads look at $u$.

    `by_angle` compares directions only, $r=\sqrt{2-2\cos\angle(z,u)}$: as long as the scale of $W_s$ is not known.
    """
    inner = Z @ X.swapaxes(1, 2)
    square, length = np.square(X).sum(axis=-1)[:, None, :], np.square(Z).sum(axis=-1)[:, :, None]
    if by_angle:
        apart = 2 - 2 * inner / np.sqrt(np.maximum(length * square, 1e-300))
    else:
        apart = (length - 2 * inner + square) / X.shape[-1]
    token = apart.argmin(axis=-1)
    least = np.take_along_axis(apart, token[..., None], axis=-1)[..., 0]
    return Nearest(token, np.sqrt(np.maximum(least, 0)))


def chosen(X: Float[np.ndarray, "n k d"], token: Int[np.ndarray, "n k"]) -> Float[np.ndarray, "rows d"]:
    """The token that each row names, rows in one list."""
    return np.take_along_axis(X, token[..., None], axis=1).reshape(-1, X.shape[-1])


def classes(V: Float[np.ndarray, "rows d"]) -> Int[np.ndarray, " rows"]:
    """The orthant of each token up to sign, as a number: on the cube the token value itself, up to sign."""
    signs = (V > 0) == (V[:, :1] > 0)
    weights = np.random.default_rng(0).integers(0, 2**62, V.shape[1]) if V.shape[1] > 62 else 1 << np.arange(V.shape[1])
    return signs @ weights


class AbstractTokens(abc.ABC):
    """A distribution of tokens, as far as the phases depend on it."""

    sliced: bool  # whether the slices of phase (i) make sense

    @abc.abstractmethod
    def refuse(self, X: Float[np.ndarray, "n k d"]) -> None:
        """`ValueError` for tokens that are not of this distribution."""

    @abc.abstractmethod
    def separate(
        self, X: Float[np.ndarray, "n k d"], pair: tuple[np.ndarray, np.ndarray], times: Int[np.ndarray, "n k"]
    ) -> Bool[np.ndarray, "n pairs"]:
        """Pairs of tokens of an example between which no mixture with third tokens can come to lie."""


class Cube(AbstractTokens):
    r"""Entries $\pm1$."""

    sliced = True

    def refuse(self, X: Float[np.ndarray, "n k d"]) -> None:
        wrong = np.argwhere(np.abs(X) != 1)
        if len(wrong):
            where = tuple(int(i) for i in wrong[0])
            raise ValueError(
                f"X{list(where)} is {X[where]:.6g}, and {len(wrong)} entries in all are not on the cube: wanted are "
                'entries -1 and 1. For standard normal tokens give distribution="gaussian"; al.learners.'
                "VariableProjection takes any tokens."
            )

    def separate(
        self, X: Float[np.ndarray, "n k d"], pair: tuple[np.ndarray, np.ndarray], times: Int[np.ndarray, "n k"]
    ) -> Bool[np.ndarray, "n pairs"]:
        """No third value in the smallest subcube that holds both: it alone could take part unseen."""
        a, b = pair
        agree = X[:, a] == X[:, b]
        inside = np.where(agree, X[:, a], 0.0) @ X.swapaxes(1, 2) >= agree.sum(axis=-1)[..., None] - 0.5
        return inside.sum(axis=-1) == times[:, a] + times[:, b]


class Gaussian(AbstractTokens):
    """Standard normal entries. No slices, no subcubes: three tokens in general position lie on no line."""

    sliced = False

    def refuse(self, X: Float[np.ndarray, "n k d"]) -> None:
        if np.all(np.abs(X) == 1):
            raise ValueError('These tokens lie on the cube, and are not standard normal: give distribution="cube"')
        tokens = X.reshape(-1, X.shape[-1])
        allowed = MOMENTS + 10 / np.sqrt(len(tokens))
        mean = np.abs(tokens.mean(axis=0)).max()
        second = np.abs(tokens.T @ tokens / len(tokens) - np.eye(X.shape[-1])).max()
        if max(mean, second) > allowed:
            raise ValueError(
                f"The tokens miss mean 0 by {mean:.2g} and covariance 1 by {second:.2g} in some entry: wanted are "
                "standard normal tokens. al.learners.VariableProjection takes any tokens."
            )

    def separate(
        self, X: Float[np.ndarray, "n k d"], pair: tuple[np.ndarray, np.ndarray], times: Int[np.ndarray, "n k"]
    ) -> Bool[np.ndarray, "n pairs"]:
        return np.ones((len(X), len(pair[0])), bool)


DISTRIBUTIONS: Mapping[str, AbstractTokens] = {"cube": Cube(), "gaussian": Gaussian()}
