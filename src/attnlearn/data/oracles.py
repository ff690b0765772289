"""Black boxes made from what people have: a layer, a torch module, a function by name, a child process."""

from typing import Any

from attnlearn.data._child import load
from attnlearn.data.isolated import IsolatedOracle, known_width
from attnlearn.data.queries import QueryOracle, precision
from attnlearn.data.self_attention import CircuitAttention
from attnlearn.data.torch_modules import from_torch as from_torch
from attnlearn.layers.attention import AttentionLayer
from attnlearn.layers.slots import Slots


def from_layer(layer: AttentionLayer, **oracle_kwargs: Any) -> QueryOracle:
    """A black box over `layer`; `truth` is the layer. Arguments as for `QueryOracle`.

    A softmax layer is computed in NumPy in the `dtype` of the oracle, any other by the layer itself in float64.
    """
    dtype = precision(oracle_kwargs.get("dtype", "float64"))
    plain = layer.slots == Slots(mask=layer.slots.mask)
    oracle = QueryOracle(CircuitAttention(layer, dtype) if plain else layer, layer.width, **oracle_kwargs)
    oracle.truth = layer
    oracle.name = "layer"
    return oracle


def from_function(name: str, width: Any = None, **oracle_kwargs: Any) -> QueryOracle:
    """A black box over the function `name`, "module:function", imported into this process.

    `width` is needed unless the function has an attribute `width`. Arguments as for `QueryOracle`.

    **Raises:** `ValueError` where the function cannot be imported or its width is not known.
    """
    try:
        function = load(name)
    except Exception as error:
        raise ValueError(f"cannot import {name!r}: {type(error).__name__}: {error}") from error
    oracle = QueryOracle(function, known_width(name, getattr(function, "width", None), width), **oracle_kwargs)
    oracle.name = name
    return oracle


def isolated(name: str, width: Any = None, **oracle_kwargs: Any) -> IsolatedOracle:
    """A black box over the function `name`, "module:function", in a child process that alone holds its weights.

    Use it in a `with` block or call `close()`. Arguments and errors as for `from_function`.
    """
    return IsolatedOracle(name, width, **oracle_kwargs)
