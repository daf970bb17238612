"""
The `healthguard rollout …` commands, and what `healthguard models status` shows.

They only read the status and write a person's word as annotations of the ServedModel: what comes of it is the
operator's decision. Nothing is kept open and nothing runs here that a rollout would depend on.
"""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer

from healthguard.terminal import EXIT_FAILED, EXIT_NOT_POSSIBLE, EXIT_UNREACHABLE, fail
from serving.operator.annotations import WORD, WORD_VERSION, Verb, meaning
from serving.operator.kubectl import CannotAsk, NotInstalled, Object, Place, Unreachable
from serving.operator.told import model_lines, rollout_line

LOOK_S = 2.0

app = typer.Typer(
    help="Watch a new version come in, and have a say in it: promote it, take it back, pause or resume it.",
    no_args_is_help=True,
)

Model = Annotated[str, typer.Argument(metavar="MODEL", help="The ServedModel's name.")]
Namespace = Annotated[str, typer.Option("--namespace", "-n", metavar="NAME", help="Default: kubectl's.")]
Context = Annotated[str, typer.Option("--context", metavar="NAME", help="Default: kubectl's.")]
Version = Annotated[
    int | None, typer.Option("--version", min=1, help="The version that is meant. Default: the one on trial.")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON lines.")]
Timeout = Annotated[int, typer.Option("--timeout", min=1, metavar="SECONDS", help="How long it is watched.")]


@app.command()
def status(
    model: Model,
    *,
    namespace: Namespace = "",
    context: Context = "",
    watch: Annotated[bool, typer.Option("--watch/--no-watch", help="Until it is over.")] = True,
    timeout: Timeout = 3600,
    as_json: Json = False,
) -> None:
    """Show how far a rollout is, until it is over. Exit code 1 if the version was taken back."""
    place, shown = Place(namespace, context), ""
    end = time.monotonic() + timeout
    while True:
        with _explained():
            rollout = _rollout(place.model(model))
        if rollout is None:
            fail(f"No rollout of {model} is under way.", EXIT_FAILED)
        line = json.dumps(rollout) if as_json else rollout_line(rollout)
        if line != shown:
            typer.echo(_clean(line if as_json or not watch else f"{time.strftime('%H:%M:%S')}  {line}"))
            shown = line
        if rollout["phase"] == "RolledBack":
            raise typer.Exit(EXIT_FAILED)
        if rollout["phase"] == "Promoted" or not watch:
            return
        if time.monotonic() > end:
            fail(f"The rollout of {model} is not over after {timeout} seconds.", EXIT_FAILED)
        time.sleep(LOOK_S)


def _command(verb: Verb, text: str) -> Callable[..., None]:
    def command(
        model: Model, namespace: Namespace = "", context: Context = "", version: Version = None, as_json: Json = False
    ) -> None:
        tell(verb, model, Place(namespace, context), version, as_json=as_json)

    command.__doc__ = text
    return command


app.command("promote")(_command("promote", "Have the version on trial answer all requests, whatever was measured."))
app.command("abort")(_command("abort", "Take the version on trial back, also after its promotion."))
app.command("pause")(
    _command("pause", "Keep the split as it is; a version that misses a gate is taken back all the same.")
)
app.command("resume")(_command("resume", "Go on with what was paused; the step is measured anew."))


def tell(verb: Verb, model: str, place: Place, version: int | None, *, as_json: bool) -> None:
    """Write a person's word, for this rollout of the version on trial and no other."""
    with _explained():
        found = place.model(model)
        rollout, canary = _rollout(found), (found["spec"]["traffic"].get("canary") or {}).get("version")
        if verb == "resume" and _is_left(found, rollout):
            place.annotate(model, {WORD: verb})
            line = f"The abort of {model} was cleared: it hits no later rollout. What was taken back stays so."
            typer.echo(json.dumps({"model": model, "version": canary, "word": verb}) if as_json else line)
            return
        if rollout is None or canary is None or (version is not None and version != canary):
            fail(
                f"No rollout of {model if version is None else f'version {version} of {model}'} is under way.",
                EXIT_FAILED,
            )
        if rollout["phase"] == "RolledBack":
            fail(f"It is over: {_clean(rollout['message'])}", EXIT_FAILED)
        place.annotate(model, {WORD: verb, WORD_VERSION: meaning(canary, rollout["startedAt"])})
    line = f"The operator was told to {verb} version {canary} of {model}."
    typer.echo(json.dumps({"model": model, "version": canary, "word": verb}) if as_json else line)


def show_models(place: Place, model: str | None, *, watch: bool, as_json: bool) -> None:
    """Print what a cluster serves; with *watch* again whenever something changes, until Ctrl-C."""
    shown: dict[str, Any] = {}
    while True:
        with _explained():
            found = [place.model(model)] if model else place.models()
        for each in found:
            lines = [json.dumps(_document(each))] if as_json else model_lines(each)
            if shown.get(each["metadata"]["name"]) != lines:
                shown[each["metadata"]["name"]] = lines
                typer.echo(_clean("\n".join(lines)))
        if not found and not as_json:
            typer.echo("No model is served here.")
        if not watch:
            return
        time.sleep(LOOK_S)


def _document(model: Object) -> Object:
    """Return what a program is told of a model."""
    return {"name": model["metadata"]["name"], "traffic": model["spec"]["traffic"], "status": model.get("status") or {}}


def _rollout(model: Object) -> Object | None:
    """Return the rollout of the canary that the spec names now; None: there is none, or it is not begun yet."""
    canary = (model["spec"]["traffic"].get("canary") or {}).get("version")
    found: Object = (model.get("status") or {}).get("rollout") or {}
    return found if canary is not None and found.get("version") == canary else None


def _is_left(model: Object, rollout: Object | None) -> bool:
    """Tell whether an abort lies there that has nothing left to do, and would hit a later rollout if it names none."""
    said = model["metadata"].get("annotations", {}).get(WORD)
    return said == "abort" and (rollout is None or rollout["phase"] == "RolledBack")


@contextmanager
def _explained() -> Iterator[None]:
    """Turn what may go wrong into a sentence and an exit code."""
    try:
        yield
    except NotInstalled as error:
        fail(str(error), EXIT_NOT_POSSIBLE)
    except Unreachable as error:
        fail(_clean(str(error)), EXIT_UNREACHABLE)
    except CannotAsk as error:
        fail(_clean(str(error)), EXIT_FAILED)


def _clean(text: str) -> str:
    """Take out what a terminal would obey: messages repeat what files and servers said."""
    return "".join(
        letter if letter.isprintable() or letter in "\n\t" else "\N{REPLACEMENT CHARACTER}" for letter in text
    )
