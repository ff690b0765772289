"""The choices that make an attention layer this one and not another: normaliser and mask.

A value of a slot is a small frozen module; a new value is one class here and its line in `SAVED`.
A normaliser may also be anybody's callable `(scores, visible) -> weights` over the last axis.
"""

import abc
import dataclasses
import enum
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


class Symmetry(enum.Enum):
    r"""What a head $(\Theta, \beta, W)$ may become, on generic tokens, with the layer's function as it was."""

    NONE = "nothing else"
    SHIFT = "nothing else; a constant added to a row of scores is not seen, and weights sum to one"
    SIGN = r"$(-\Theta, -\beta, -W)$"
    SCALE = r"$(c\Theta, c\beta, W/c)$ with $c > 0$"
    MIXING = r"any heads with the same sum of $(\Theta, \beta) \otimes W$"


class AbstractNormaliser(eqx.Module):
    """Turns scores into attention weights over the last axis.

    `simplex` says that the weights of a row sum to one and do not change when a constant is added to its scores.
    Then key biases cannot be seen, and value biases are seen only through the offset. `symmetry` says what else its
    heads hide, `None` that this is not known.
    """

    simplex: ClassVar[bool] = False
    symmetry: ClassVar[Symmetry | None] = None

    @abc.abstractmethod
    def __call__(self, scores: Float[Array, "*rows k"], visible: Bool[Array, "*#rows k"]) -> Float[Array, "*rows k"]:
        """Weights of the visible tokens; 0 for the others."""


class Softmax(AbstractNormaliser):
    r"""$p_j = e^{s_j} / \sum_l e^{s_l}$ over the visible tokens."""

    simplex: ClassVar[bool] = True
    symmetry: ClassVar[Symmetry | None] = Symmetry.SHIFT

    def __call__(self, scores: Float[Array, "*rows k"], visible: Bool[Array, "*#rows k"]) -> Float[Array, "*rows k"]:
        return jax.nn.softmax(jnp.where(visible, scores, -jnp.inf), axis=-1)


class Sigmoid(AbstractNormaliser):
    r"""$p_j = 1 / (1 + v e^{-s_j})$ for $v$ visible tokens [@ramapuram2024]."""

    symmetry: ClassVar[Symmetry | None] = Symmetry.NONE

    def __call__(self, scores: Float[Array, "*rows k"], visible: Bool[Array, "*#rows k"]) -> Float[Array, "*rows k"]:
        return jax.nn.sigmoid(jnp.where(visible, scores - jnp.log(_number(visible, scores)), -jnp.inf))


class AbstractElementwise(AbstractNormaliser):
    """Weights that depend on their own scores alone, divided by the number of visible tokens unless `mean` is false."""

    mean: bool = eqx.field(static=True, default=True)

    def share(self, visible: Bool[Array, "*rows k"], scores: Float[Array, "..."]) -> Float[Array, "*rows 1"]:
        """By what the weights of each row are divided."""
        number = _number(visible, scores)
        return number if self.mean else jnp.ones_like(number)


class ReLU(AbstractElementwise):
    r"""$p_j = \max(s_j, 0) / v$ for $v$ visible tokens [@wortsman2023]; with `mean=False` not divided."""

    symmetry: ClassVar[Symmetry | None] = Symmetry.SCALE

    def __call__(self, scores: Float[Array, "*rows k"], visible: Bool[Array, "*#rows k"]) -> Float[Array, "*rows k"]:
        return jax.nn.relu(jnp.where(visible, scores, 0.0)) / self.share(visible, scores)


class Linear(AbstractElementwise):
    r"""$p_j = s_j / v$ for $v$ visible tokens; with `mean=False` not divided."""

    symmetry: ClassVar[Symmetry | None] = Symmetry.MIXING

    def __call__(self, scores: Float[Array, "*rows k"], visible: Bool[Array, "*#rows k"]) -> Float[Array, "*rows k"]:
        return jnp.where(visible, scores, 0.0) / self.share(visible, scores)


class Erf(AbstractElementwise):
    r"""$p_j = \mathrm{erf}(s_j) / v$ for $v$ visible tokens; with `mean=False` not divided [@marion2025]."""

    symmetry: ClassVar[Symmetry | None] = Symmetry.SIGN

    def __call__(self, scores: Float[Array, "*rows k"], visible: Bool[Array, "*#rows k"]) -> Float[Array, "*rows k"]:
        return jax.scipy.special.erf(jnp.where(visible, scores, 0.0)) / self.share(visible, scores)


def _number(visible: Bool[Array, "*rows k"], scores: Float[Array, "..."]) -> Float[Array, "*rows 1"]:
    """How many tokens each row sees, in the precision of the scores."""
    return jnp.sum(visible, axis=-1, keepdims=True, dtype=scores.dtype)


class AbstractMask(eqx.Module):
    """Decides which tokens a querying token may see; every token sees at least one."""

    @abc.abstractmethod
    def __call__(self, tokens: int) -> Bool[Array, "k k"]:
        """`visible[t, j]`: token `t` may see token `j`."""


class Causal(AbstractMask):
    r"""Token $t$ sees the tokens $j \le t$."""

    def __call__(self, tokens: int) -> Bool[Array, "k k"]:
        return jnp.tril(jnp.ones((tokens, tokens), bool))


class Window(AbstractMask):
    r"""Token $t$ sees the `width` tokens up to itself, $0 \le t - j <$ `width`."""

    width: int = eqx.field(static=True)

    def __check_init__(self):
        if self.width < 1:
            raise ValueError(f"a window must be at least 1 token wide, got {self.width}")

    def __call__(self, tokens: int) -> Bool[Array, "k k"]:
        back = jnp.arange(tokens)[:, None] - jnp.arange(tokens)[None, :]
        return (back >= 0) & (back < self.width)


class Slots(eqx.Module):
    """The slots of a layer, the same for every head."""

    normaliser: Callable[..., Any] = Softmax()
    mask: AbstractMask | None = None

    def visible(self, tokens: int) -> Bool[Array, "k k"]:
        """`visible[t, j]`: token `t` may see token `j`."""
        return jnp.ones((tokens, tokens), bool) if self.mask is None else self.mask(tokens)

    @property
    def simplex(self) -> bool:
        """Whether rows of weights sum to one and ignore a constant added to their scores."""
        return getattr(self.normaliser, "simplex", False)

    @property
    def symmetry(self) -> Symmetry | None:
        """What a head may become with the function as it was; `None` where the normaliser does not say."""
        return getattr(self.normaliser, "symmetry", None)


SAVED = {value.__name__: value for value in (Softmax, Sigmoid, ReLU, Linear, Erf, Causal, Window)}


def to_plain(slots: Slots) -> dict[str, Any]:
    """The slots as JSON values: each value by its name and fields. Raises `ValueError` for a value not in `SAVED`."""
    return {field.name: _value_to_plain(field.name, getattr(slots, field.name)) for field in dataclasses.fields(slots)}


def from_plain(plain: Mapping[str, Any]) -> Slots:
    """The slots that `to_plain` wrote. Raises `ValueError` for an unknown slot or value."""
    known = {field.name for field in dataclasses.fields(Slots)}
    if unknown := set(plain) - known:
        raise ValueError(f"unknown slots {sorted(unknown)}; known are {sorted(known)}: a newer attnlearn may read them")
    return Slots(**{name: _value_from_plain(name, value) for name, value in plain.items()})


def _value_to_plain(slot: str, value: Any) -> dict[str, Any] | None:
    if value is None:
        return None
    name = type(value).__name__
    if SAVED.get(name) is not type(value):
        raise ValueError(
            f"the {slot} {name!r} cannot be saved, only {sorted(SAVED)} can: save the layer with one of them and "
            "put your own slot back after loading"
        )
    fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    return {"name": name, "fields": fields}


def _value_from_plain(slot: str, plain: Mapping[str, Any] | None) -> Any:
    if plain is None:
        return None
    if plain["name"] not in SAVED:
        raise ValueError(f"unknown {slot} {plain['name']!r}; known are {sorted(SAVED)}: a newer attnlearn may read it")
    return SAVED[plain["name"]](**plain["fields"])
