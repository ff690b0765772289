"""The commands of `attnlearn`. Each opens what its words name, makes one call, and shows or writes what came back."""

import dataclasses
import functools
import importlib
import importlib.util
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

import attnlearn
from attnlearn import records, report
from attnlearn._status import Status
from attnlearn.certify import identifiability as certify_identifiability
from attnlearn.cli import terminal
from attnlearn.cli.sources import named_values, open_layer, open_learner, open_source
from attnlearn.data import Examples
from attnlearn.data.example_files import is_examples
from attnlearn.judgement import Run, record_of
from attnlearn.layers.attention import AttentionLayer
from attnlearn.layers.matching import distance as layer_distance
from attnlearn.layers.slots import Slots
from attnlearn.layers.symmetries import canonical as layer_canonical
from attnlearn.recovery import recover as recover_layer

NOT_RECOVERED, WRONG_USE = 1, 2
app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Learns an attention layer from what it can be seen to do, and says how far to trust the answer.",
    epilog="Exit codes: 0 done, 1 honestly not recovered, 2 wrong use.",
)

SourceWord = Annotated[
    str,
    typer.Argument(help="minilm:0 | data.npz (.parquet, .zarr, ...) | layer.safetensors | module:function"),
]
LayerWord = Annotated[str, typer.Argument(help="layer.safetensors | minilm:0 | model.safetensors:0")]
Rows = Annotated[str | None, typer.Option(help="Outputs that examples hold: all, last or mean, if the file is silent.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON and nothing else.")]


def main() -> None:
    """Runs the command line."""
    app()


def _at_the_door(command: Callable[..., None]) -> Callable[..., None]:
    """Wrong use ends with its sentence and exit code 2, an interruption with exit code 1; neither with a traceback."""

    @functools.wraps(command)
    def inner(*args: Any, **kwargs: Any) -> None:
        try:
            command(*args, **kwargs)
        except (ValueError, TypeError, OSError, ImportError) as error:
            typer.echo(f"attnlearn: {error}", err=True)
            raise typer.Exit(WRONG_USE) from error
        except KeyboardInterrupt as error:
            typer.echo(f"attnlearn: {Status.INTERRUPTED.value}", err=True)
            raise typer.Exit(NOT_RECOVERED) from error

    return inner


def _print_version(wanted: bool) -> bool:
    if wanted:
        typer.echo(attnlearn.__version__)
        raise typer.Exit
    return wanted


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


@app.command()
@_at_the_door
def recover(
    source: SourceWord,
    heads: Annotated[int | None, typer.Option(help="Number of heads, where it is known.")] = None,
    head_dim: Annotated[int | None, typer.Option(help="Rank of the circuits, where it is known.")] = None,
    learner: Annotated[str, typer.Option(help="Name of a learner.")] = "auto",
    seed: Annotated[int, typer.Option(help="Seed of all randomness.")] = 0,
    out: Annotated[Path | None, typer.Option(help="Folder for record, layer, figures and page.")] = None,
    max_queries: Annotated[int | None, typer.Option(help="Budget in sequences, the certificate's among them.")] = None,
    dtype: Annotated[str, typer.Option(help="Precision of questions and answers: float64 or float32.")] = "float64",
    noise: Annotated[float, typer.Option(help="Additive noise of an answer, as declared.")] = 0.0,
    causal: Annotated[bool, typer.Option("--causal", help="Ask and learn with a causal mask.")] = False,
    rtol: Annotated[float | None, typer.Option(help="Largest relative error that the certificate allows.")] = None,
    width: Annotated[int | None, typer.Option(help="Width of a token, for module:function.")] = None,
    rows: Rows = None,
    option: Annotated[
        list[str] | None, typer.Option("--option", "-o", help="Further option of the learner, NAME=VALUE (JSON value).")
    ] = None,
    as_json: AsJson = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print one line.")] = False,
) -> None:
    """Recover an attention layer from a black box or from examples, certify it, and show it."""
    oracle_kwargs = {"max_queries": max_queries, "dtype": dtype, "noise": noise}
    opened, slots = open_source(source, width, causal, oracle_kwargs, rows)
    known = {"heads": heads, "head_dim": head_dim, "rtol": rtol}
    if isinstance(opened, Examples) and noise:
        known["noise"] = noise  # that the learner is told
    given = {name: value for name, value in known.items() if value is not None} | named_values(option or [])
    run = Run(source, learner, seed, given)
    options = _options_of_recover(learner, given if slots is None else given | {"slots": slots})
    layer = None
    if out is not None:
        _make_folder(out)
    try:
        with terminal.stages(not (as_json or quiet)):
            result = recover_layer(opened, seed=seed, **options)
        layer = result.layer
        record, arrays = record_of(result, opened, run)
    except KeyboardInterrupt:
        stopped = Status.INTERRUPTED
        record = records.Record(source, stopped.name, stopped.value, seed=seed, options=given)
        came = {"examples": len(opened)} if isinstance(opened, Examples) else {"ledger": opened.ledger}
        record, arrays = dataclasses.replace(record, **came), {}
    page = None if out is None else _keep(out, record, arrays, layer)
    _show(record, page, as_json, quiet)
    if not record.recovered:
        raise typer.Exit(NOT_RECOVERED)


def _options_of_recover(learner: str, given: dict[str, Any]) -> dict[str, Any]:
    """Everything given goes to `recover`; for a learner by name, all but the certificate's tolerance are its fields."""
    if learner == "auto":
        return given
    fields = {name: value for name, value in given.items() if name != "rtol"}
    tolerance = {name: value for name, value in given.items() if name == "rtol"}
    return {"learner": open_learner(learner, fields), **tolerance}


def _make_folder(folder: Path) -> None:
    """Before the work, so that a result is never without a place."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"--out {folder} cannot be made a folder: {error.strerror}. Name another one.") from error


def _keep(folder: Path, record: records.Record, arrays: dict[str, np.ndarray], layer: AttentionLayer | None) -> Path:
    """Everything about a run in one folder; its page."""
    record.save(folder, arrays)
    file = folder / "layer.safetensors"
    if layer is None:
        file.unlink(missing_ok=True)  # of an earlier run
    else:
        records.write_whole(file, layer.save)
    return report.write(folder)


def _show(record: records.Record, page: Path | None, as_json: bool, quiet: bool) -> None:
    if as_json:
        typer.echo(record.to_json())
    elif quiet:
        typer.echo(f"{report.headline(record)}: {record.source}")
    else:
        terminal.show_result(record, None if page is None else str(page))


@app.command()
@_at_the_door
def distance(
    layer: LayerWord,
    reference: Annotated[str, typer.Argument(help="The layer to measure against.")],
    as_json: AsJson = False,
) -> None:
    """Errors of LAYER against REFERENCE, head by head, up to everything that leaves the function unchanged."""
    apart = layer_distance(open_layer(layer), open_layer(reference))
    if as_json:
        return typer.echo(records.to_json(dataclasses.asdict(apart)))
    if apart.reason:
        typer.echo(apart.reason)
    errors = [report.scientific(value) for value in (apart.qk, apart.ov, apart.query_bias, apart.offset)]
    rows = [
        [f"{one.head + 1} ~ {one.matched + 1}", *map(report.scientific, (one.qk, one.ov, one.query_bias)), ""]
        for one in apart.per_head
    ]
    terminal.show_table(["head ~ of LAYER", "QK", "OV", "query bias", "offset"], [*rows, ["worst", *errors]])


@app.command()
@_at_the_door
def canonical(
    layer: LayerWord, out: Annotated[Path | None, typer.Option(help="File for the canonical layer.")] = None
) -> None:
    """The one representative of all layers that compute the same function: equal heads merged, zero heads gone."""
    given = open_layer(layer)
    found = layer_canonical(given)
    typer.echo(f"{given.heads} heads, {found.heads} after merging equal heads and dropping heads without effect.")
    rows = [
        [str(head + 1), *(f"{np.linalg.norm(part[head]):.4g}" for part in (found.qk, found.ov, found.query_bias))]
        for head in range(found.heads)
    ]
    terminal.show_table(["head", "norm QK", "norm OV", "norm of query bias"], rows)
    if out is not None:
        records.write_whole(out, found.save)
        typer.echo(f"{out}")


@app.command()
@_at_the_door
def identifiability(
    source: Annotated[str, typer.Argument(help="data.npz (.parquet, .zarr, ...) | layer.safetensors | minilm:0")],
    tokens: Annotated[
        Path | None, typer.Option(help="Sequences (n, k, d) as .npy for a layer; Gaussian ones if not given.")
    ] = None,
    heads: Annotated[int | None, typer.Option(help="Heads of the layer behind examples; 1 if not given.")] = None,
    causal: Annotated[bool, typer.Option("--causal", help="The layer behind examples has a causal mask.")] = False,
    rows: Rows = None,
    seed: Annotated[int, typer.Option(help="Seed of the Gaussian sequences.")] = 0,
    as_json: AsJson = False,
) -> None:
    """What no output on the sequences of SOURCE can tell about the parameters of a layer."""
    if is_examples(Path(source)):
        if tokens is not None:
            raise ValueError(f"--tokens does not go with {source!r}, which holds its own sequences. Leave it out.")
        examples, slots = open_source(source, None, causal, {}, rows)
        assert isinstance(examples, Examples)
        found = certify_identifiability(slots or Slots(), examples, heads or 1, examples.width_out)
    else:
        if heads is not None or causal or rows is not None:
            raise ValueError(f"--heads, --causal and --rows go with examples; {source!r} is a layer. Leave them out.")
        layer = open_layer(source)
        X = _sequences(layer, seed) if tokens is None else np.load(tokens, allow_pickle=False)
        found = certify_identifiability(layer, X)
    if as_json:
        typer.echo(records.to_json(dataclasses.asdict(found)))
    else:
        terminal.show_identifiability(found)


def _sequences(layer: AttentionLayer, seed: int, tokens: int = 8, most: int = 256) -> np.ndarray:
    """Gaussian sequences with three numbers in the answers for every parameter, where `most` sequences give them."""
    parameters = sum(part.size for part in (layer.qk, layer.ov, layer.query_bias, layer.offset))
    n = min(most, -(-3 * parameters // (tokens * layer.width_out)))
    return np.random.default_rng(seed).standard_normal((n, tokens, layer.width))


@app.command("report")
@_at_the_door
def report_(
    folder: Annotated[Path, typer.Argument(help="A folder that `attnlearn recover --out` or `study --out` wrote.")],
) -> None:
    """Draw the figures and the page of a run, or the figure of a study, again, from its folder alone."""
    draw = report.write_study if (folder / records.STUDY_FILE).is_file() else report.write
    typer.echo(f"{draw(folder)}")


@app.command()
@_at_the_door
def study(
    name: Annotated[str | None, typer.Argument(help="Name of a study.")] = None,
    listed: Annotated[bool, typer.Option("--list", help="List the studies.")] = False,
    out: Annotated[Path | None, typer.Option(help="Folder for the record and its figure.")] = None,
) -> None:
    """Run a study, which answers one question and prints its record; --list shows which there are."""
    known = _studies()
    if listed:
        for one, run in known.items():
            typer.echo(f"{one}  {(run.__doc__ or '').strip().splitlines()[0]}")
        if not known:
            typer.echo("This version has no studies.")
    elif name is not None and name in known:
        _run_study(known[name], out)
    else:
        raise ValueError(f"unknown study {name!r}. Wanted: {', '.join(known) or 'none, this version has no studies'}.")


def _run_study(run: Callable[[], Any], out: Path | None) -> None:
    """Prints the record of a study, or keeps it in `out` and prints its answer; says what an interruption leaves."""
    kept = "without --out nothing is kept" if out is None else f"{out} holds what is done: run the same again to go on"
    try:
        with terminal.stages(True):
            if out is None:
                return typer.echo(records.to_json(run()))
            _make_folder(out)
            with importlib.import_module("attnlearn.studies.points").kept_in(out):
                found = run()
                found.save(out)
        typer.echo(f"{found.answer}\n{report.write_study(out)}")
    except KeyboardInterrupt as error:
        typer.echo(f"attnlearn: interrupted; {kept}.", err=True)
        raise typer.Exit(NOT_RECOVERED) from error


def _studies() -> Mapping[str, Callable[[], Any]]:
    """The registry of studies: name to function; empty where this version has none."""
    if importlib.util.find_spec("attnlearn.studies") is None:
        return {}
    return importlib.import_module("attnlearn.studies").STUDIES
