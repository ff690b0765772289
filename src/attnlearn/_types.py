"""Array types and the one place that decides about precision."""

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import jax
import numpy as np

P = ParamSpec("P")
R = TypeVar("R")

Array = np.ndarray


def float64(function: Callable[P, R]) -> Callable[P, R]:
    """Runs `function` with JAX in float64 and leaves the user's setting as it was found."""

    @functools.wraps(function)
    def inner(*args: P.args, **kwargs: P.kwargs) -> R:
        with jax.enable_x64(True):
            return function(*args, **kwargs)

    return inner
