r"""What a layer is given, and which of its outputs are read: sequences, the tokens that are there, the rows.

The output of a token that is absent is 0; an absent token is seen by nobody. `rows` says what is read of a sequence:
the outputs of `"all"` its tokens, of the `"last"` token that is there, or the `"mean"` over those that are there.
"""

from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

from attnlearn.layers.slots import Slots

Numbers = np.ndarray | jax.Array
Rows = Literal["all", "last", "mean"]
ROWS = ("all", "last", "mean")


class Inputs(eqx.Module):
    """Sequences of tokens, which of them are there, and which rows of the outputs are read. Pure JAX inside.

    **Fields:**

    - `X`: tokens; what stands in absent ones never matters, as long as it is finite.
    - `present`: which tokens are there, at least one in a sequence; `None`: all.
    - `rows`: what is read; `"all"` gives k rows a sequence, `"last"` and `"mean"` one.
    """

    X: Float[Numbers, "n k d"]
    present: Bool[Numbers, "n k"] | None = None
    rows: Rows = eqx.field(static=True, default="all")

    def __check_init__(self):
        if self.rows not in ROWS:
            raise ValueError(f"rows must be one of {', '.join(ROWS)}, got {self.rows!r}")

    def __len__(self) -> int:
        return len(self.X)

    @property
    def last(self) -> Int[Numbers, " n"]:
        """Position of the last token that is there."""
        n, k = self.X.shape[:2]
        if self.present is None:
            return jnp.full(n, k - 1)
        return k - 1 - jnp.argmax(self.present[:, ::-1], axis=1)

    def queries(self) -> Float[jax.Array, "n r d"]:
        """The tokens that ask: all of them, or the last one (r = 1)."""
        if self.rows != "last":
            return jnp.asarray(self.X)
        return jnp.take_along_axis(jnp.asarray(self.X), self.last[:, None, None], axis=1)

    def visible(self, slots: Slots) -> Bool[jax.Array, "n_or_1 r k"]:
        """`visible[s, t, j]`: in sequence `s` the asking token `t` may see token `j`. An absent one sees itself."""
        visible = slots.visible(self.X.shape[1])[None]
        if self.present is not None:
            itself = jnp.eye(self.X.shape[1], dtype=bool)[None]
            present = jnp.asarray(self.present)
            visible = (visible & present[:, None, :]) | (itself & ~present[:, :, None])
        if self.rows != "last":
            return visible
        visible = jnp.broadcast_to(visible, (len(self), *visible.shape[1:]))
        return jnp.take_along_axis(visible, self.last[:, None, None], axis=1)

    def read(self, outputs: Float[Numbers, "n r e"]) -> Float[jax.Array, "n read e"]:
        """The rows that are read, from the outputs of the asking tokens; linear in them."""
        if self.rows == "last":
            return jnp.asarray(outputs)
        if self.present is not None:
            outputs = outputs * jnp.asarray(self.present, outputs.dtype)[:, :, None]
        if self.rows == "all":
            return jnp.asarray(outputs)
        count = self.X.shape[1] if self.present is None else jnp.sum(self.present, axis=1)[:, None, None]
        return jnp.sum(outputs, axis=1, keepdims=True) / jnp.maximum(count, 1)  # sequences that only pad have none

    def answered(self) -> Bool[jax.Array, "n read"]:
        """Which rows carry an answer: those of present tokens, or the one row of each sequence."""
        if self.rows != "all" or self.present is None:
            return jnp.ones((len(self), self.X.shape[1] if self.rows == "all" else 1), bool)
        return jnp.asarray(self.present)

    def __getitem__(self, part: slice) -> "Inputs":
        """Some of the sequences."""
        return Inputs(self.X[part], None if self.present is None else self.present[part], self.rows)


def as_inputs(X: Any) -> Inputs:
    """`X` itself where it is `Inputs` already; else all rows of the sequences `X` (n, k, d)."""
    return X if isinstance(X, Inputs) else Inputs(X)
