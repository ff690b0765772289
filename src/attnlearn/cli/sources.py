"""From words to what they name: black boxes, layers, learners, options."""

import difflib
import inspect
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from attnlearn import learners
from attnlearn.data import Examples, QueryOracle, oracles, pretrained
from attnlearn.data.example_files import is_examples
from attnlearn.layers.attention import AttentionLayer
from attnlearn.layers.slots import Causal, Slots
from attnlearn.learners._base import AbstractLearner

WANTED = (
    "minilm:0 (a layer of all-MiniLM-L6-v2), data.npz (examples X and Y; also .safetensors, .parquet, .zarr, or a "
    "folder of .npy), layer.safetensors (saved by attnlearn), model.safetensors:0 (a layer of a BERT-style file) "
    "or module:function (your black box)"
)
SUFFIXES = (".npz", ".safetensors", ".parquet", ".zarr")


def open_source(
    word: str, width: int | None, causal: bool, oracle_kwargs: Mapping[str, Any], rows: str | None = None
) -> tuple[QueryOracle | Examples, Slots | None]:
    """The black box or the examples that `word` names, and the slots to learn with (`None`: the learner's own).

    `rows` is for files of examples that do not say which outputs they hold.

    **Raises:** `ValueError` where the word names no source, or for options that it has not; what opening it raises.
    """
    _refuse_width(word, width)
    slots = Slots(mask=Causal()) if causal else None
    if is_examples(Path(word)):
        return _open_examples(word, rows, oracle_kwargs), slots
    if rows is not None:
        raise ValueError(f"--rows does not go with {word!r}: only examples have it. Leave it out.")
    if encoder := _encoder(word):
        return pretrained(encoder[0], layer=encoder[1], causal=causal, **oracle_kwargs), slots
    if word.endswith(".safetensors"):
        if causal:
            raise ValueError(f"--causal does not go with {word!r}: a saved layer has its own mask. Leave it out.")
        layer = AttentionLayer.load(word)
        return oracles.from_layer(layer, **oracle_kwargs), layer.slots
    if re.fullmatch(r"[\w.]+:[^\W\d][\w.]*", word):
        try:
            return oracles.from_function(word, width, **oracle_kwargs), slots
        except ValueError as error:
            if isinstance(error.__cause__, ModuleNotFoundError):
                raise ValueError(f"{error}. {_wanted(word)}") from error
            raise
    raise ValueError(f"unknown SOURCE {word!r}. {_wanted(word)}")


def _wanted(word: str) -> str:
    """What a source may be, and which one a mistyped `word` may have meant."""
    stem, colon, rest = word.partition(":")
    possible = ["minilm" + colon + rest, *(Path(stem).stem + suffix + colon + rest for suffix in SUFFIXES)]
    close = difflib.get_close_matches(word, possible, n=1, cutoff=0.8)
    return f"Wanted: {WANTED}.{f' Did you mean {close[0]!r}?' if close else ''}"


def _open_examples(word: str, rows: str | None, oracle_kwargs: Mapping[str, Any]) -> Examples:
    if oracle_kwargs.get("max_queries") is not None or oracle_kwargs.get("dtype", "float64") != "float64":
        raise ValueError(f"--max-queries and --dtype do not go with the examples in {word!r}. Leave them out.")
    return Examples.load(word, rows)


def open_layer(word: str) -> AttentionLayer:
    """The layer that `word` names: a file saved by attnlearn, or a layer of a trained encoder.

    **Raises:** `ValueError` where the word names no layer; what opening it raises.
    """
    if encoder := _encoder(word):
        layer = pretrained(encoder[0], layer=encoder[1]).truth
        assert layer is not None  # a trained encoder is known
        return layer
    if word.endswith(".safetensors"):
        return AttentionLayer.load(word)
    raise ValueError(
        f"{word!r} is no layer whose weights are known. "
        "Wanted: layer.safetensors (saved by attnlearn), minilm:0, or model.safetensors:0."
    )


def open_learner(name: str, fields: Mapping[str, Any]) -> AbstractLearner:
    """The learner of this name with these fields. `ValueError` for an unknown name or a field that it has not."""
    kinds = [kind for kind in vars(learners).values() if inspect.isclass(kind) and issubclass(kind, AbstractLearner)]
    known = {kind.__name__: kind for kind in kinds if not inspect.isabstract(kind)}
    if name not in known:
        raise ValueError(f"unknown learner {name!r}. Wanted: {', '.join(['auto', *sorted(known)])}.")
    try:
        return known[name](**fields)
    except TypeError as error:
        wanted = inspect.signature(known[name]).parameters
        if set(fields) <= set(wanted):
            raise ValueError(f"{name} cannot be made: {error}.") from error
        raise ValueError(
            f"{name} cannot be made with {', '.join(fields) or 'nothing'}: it takes {', '.join(wanted)}."
        ) from error


def named_values(words: Sequence[str]) -> dict[str, Any]:
    """{"economy": True} from "economy=true": values in JSON, or as they are where that cannot be read.

    **Raises:** `ValueError` for a word that is not NAME=VALUE.
    """
    found: dict[str, Any] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not (name.isidentifier() and equals):
            raise ValueError(f"--option takes NAME=VALUE, for example economy=true, got {word!r}")
        try:
            found[name] = json.loads({"True": "true", "False": "false", "None": "null"}.get(value, value))
        except json.JSONDecodeError:
            found[name] = value
    return found


def _encoder(word: str) -> tuple[str, int] | None:
    """Name or path, and layer, of a trained encoder; `None` for any other word."""
    found = re.fullmatch(r"(minilm|.+\.safetensors):(\d+)", word)
    if found is None:
        return None
    name, layer = found.groups()
    if name != "minilm" and not Path(name).is_file():
        raise ValueError(f"there is no file {name!r}. Wanted: the path of a BERT-style safetensors file.")
    return name, int(layer)


def _refuse_width(word: str, width: int | None) -> None:
    known = ".safetensors" in word or re.fullmatch(r"minilm(:\d+)?", word) or is_examples(Path(word))
    if width is not None and known:
        raise ValueError(f"--width {width} does not go with {word!r}, which has its own width. Leave it out.")
