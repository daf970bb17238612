"""The `healthguard models …` commands: bring a model in, vouch for it, look at it. Without one: what is served."""

import json
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, date, datetime, time
from pathlib import Path
from typing import Annotated, Any

import typer

from healthguard import cli
from healthguard.terminal import EXIT_FAILED, EXIT_NOT_POSSIBLE, fail, say, short

app = typer.Typer(help="List the models that are served; import, sign, approve and verify versions.")

DEFAULT_HOME = Path("models")
WORDS_MAX = 2000
MARKS = {True: "ok", False: "FAILED", None: "-"}

Json = Annotated[bool, typer.Option("--json", help="Print the outcome as JSON.")]
Folder = Annotated[Path, typer.Argument(metavar="DIR", help="A version folder, such as models/cancer/2.")]
PrivateKey = Annotated[
    Path, typer.Option("--key", metavar="FILE", help="Your private key: PEM, on P-256, P-384 or P-521.")
]
Home = Annotated[Path, typer.Option("--models", metavar="DIR", help="The folder of models.")]


@app.callback(invoke_without_command=True)
def models(
    ctx: typer.Context,
    url: cli.UrlOption = cli.DEFAULT_URL,
    ca_file: cli.CaFileOption = None,
    as_json: cli.JsonOption = False,
) -> None:
    """List the models that are served; the commands below are about version folders."""
    if ctx.invoked_subcommand is None:
        cli.models(url=url, ca_file=ca_file, as_json=as_json)


@contextmanager
def _explained() -> Iterator[None]:
    """Turn what may go wrong into a sentence and an exit code."""
    try:
        # What these raise can only be named where their packages are.
        from healthguard.dsse import KeyRefused  # noqa: PLC0415
        from models.artifact import ArtifactError  # noqa: PLC0415
        from models.importing.request import CannotImport  # noqa: PLC0415

        try:
            yield
        except CannotImport as error:
            fail(_clean(str(error)), EXIT_FAILED)
        except ArtifactError as error:
            fail(_sentence(str(error)), EXIT_FAILED)
        except KeyRefused as error:
            fail(f"The key cannot be used: {error}.", EXIT_NOT_POSSIBLE)
        except OSError as error:
            fail(f"{error.filename or 'A file'}: {error.strerror}.", EXIT_NOT_POSSIBLE)
    except ModuleNotFoundError as error:
        fail(f"This command needs the Python module {error.name}, which is not installed here.", EXIT_NOT_POSSIBLE)


@app.command("import")
def import_(
    file: Annotated[Path, typer.Argument(metavar="FILE", help=".h5, .keras, .tflite, or a SavedModel's folder.")],
    *,
    task: Annotated[str, typer.Option("--task", metavar="binary|risk", help="Two labels, or ordered ones.")],
    labels: Annotated[str, typer.Option("--labels", metavar="A,B", help="In the order of the scores.")],
    name: Annotated[str, typer.Option("--name", help="What the model is called in addresses.")],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="The folder of models.")] = DEFAULT_HOME,
    version: Annotated[int | None, typer.Option("--version", min=1, help="Default: the next free one.")] = None,
    title: Annotated[str | None, typer.Option("--title", help="For people. Default: the name.")] = None,
    intended_use: Annotated[
        str, typer.Option("--intended-use", help="What it may be used for, by whom, on which images.")
    ] = "Not stated by whoever imported it. Not for clinical use.",
    demonstration: Annotated[
        bool, typer.Option("--demonstration/--no-demonstration", help="Whether it is not for clinical use.")
    ] = True,
    thresholds: Annotated[
        str | None, typer.Option("--thresholds", metavar="N,N", help="Where each label after the first begins.")
    ] = None,
    input_size: Annotated[
        str | None, typer.Option("--input-size", metavar="HxW", help="Where the file does not fix it.")
    ] = None,
    scaling: Annotated[
        str | None,
        typer.Option(
            "--scaling", metavar="HOW", help="What the caller does to pixels: none, unit, symmetric, torch, caffe."
        ),
    ] = None,
    output: Annotated[
        str | None, typer.Option("--output", metavar="logit|probability", help="Where the end does not tell.")
    ] = None,
    signature: Annotated[str | None, typer.Option("--signature", help="Of a SavedModel with several.")] = None,
    explain: Annotated[
        str | None, typer.Option("--explain", metavar="grad-cam|occlusion|none", help="How heat maps are made.")
    ] = None,
    recommend: Annotated[
        list[str] | None, typer.Option("--recommend", metavar="LABEL=SENTENCE", help="What to do; repeat it.")
    ] = None,
    calibrate: Annotated[
        Path | None, typer.Option("--calibrate", metavar="DIR", help="A folder of pictures for each label.")
    ] = None,
    golden: Annotated[
        Path | None,
        typer.Option("--golden", metavar="DIR", help="Pictures for golden cases; they become part of the version."),
    ] = None,
    python: Annotated[
        Path | None, typer.Option("--python", metavar="FILE", help="An interpreter that has TensorFlow.")
    ] = None,
    as_json: Json = False,
) -> None:
    """
    Turn a model that was trained elsewhere into a version that can be served.

    What the file does not say is asked for by the name of an option. Code in model files is never run.
    """
    with _explained():
        from models.importing import importer  # noqa: PLC0415 - LiteRT and OpenCV, which other commands don't need
        from models.importing.request import Request  # noqa: PLC0415

        request = Request(
            source=str(file.absolute()),
            task=_one_of(task, "--task", "binary", "risk"),
            labels=tuple(label.strip() for label in labels.split(",")),
            name=name,
            version=version or importer.next_version(out, name),
            title=title or name,
            intended_use=intended_use,
            demonstration=demonstration,
            thresholds=_numbers(thresholds),
            input_size=_size(input_size),
            scaling=_one_of(scaling, "--scaling", "none", "unit", "symmetric", "torch", "caffe"),
            output=_one_of(output, "--output", "logit", "probability"),
            signature=signature,
            explain=_one_of(explain, "--explain", "grad-cam", "occlusion", "none"),
            calibrate=None if calibrate is None else str(calibrate.absolute()),
            golden=None if golden is None else str(golden.absolute()),
            recommendations=_pairs(recommend or []),
        )
        found = importer.run(request, out.absolute(), say, python=python)
    _print(_imported(found), _plain(found), as_json=as_json)


def _imported(found: Any) -> list[str]:
    served = (
        f"{short(found.manifest)} serves it."
        if found.manifest
        else "The model has a manifest: add this version to it, with its digest, to serve it."
    )
    return [
        f"{short(found.folder)} is there, {found.digest}.",
        f"Its scores differ from the source's by at most {found.difference:.1e}.",
        *found.limitations,
        served,
    ]


@app.command()
def verify(
    folder: Folder,
    *,
    key: Annotated[
        list[Path] | None, typer.Option("--key", metavar="FILE", help="Public key of a trusted person; repeat it.")
    ] = None,
    digest: Annotated[
        str | None, typer.Option("--digest", help="Default: what the manifest beside the folder names.")
    ] = None,
    require_signature: Annotated[bool, typer.Option("--require-signature", help="Refuse without one.")] = False,
    require_approval: Annotated[bool, typer.Option("--require-approval", help="Refuse without one.")] = False,
    golden: Annotated[bool, typer.Option("--golden/--no-golden", help="Run the golden cases.")] = True,
    as_json: Json = False,
) -> None:
    """Check a version: every byte, signature, approval, contract and golden cases. Exit code 1 if one fails."""
    with _explained():
        from healthguard import dsse  # noqa: PLC0415 - as above
        from models import verification  # noqa: PLC0415

        for each in key or []:
            # First of all: with a key that is none, nothing that follows would be what was asked for.
            dsse.public_key(_start(each, dsse.KEY_BYTES_MAX))
        asked = verification.Asked(
            digest or verification.vouched(folder.absolute()),
            tuple(key or []),
            require_signature,
            require_approval,
            golden,
        )
        checks = verification.verify(folder.absolute(), asked, now=datetime.now(UTC))
        passed = verification.passed(checks)
    lines = [f"{MARKS[check.passed]:>6}  {check.name}: {check.detail}" for check in checks]
    _print(lines, {"passed": passed, "checks": [asdict(check) for check in checks]}, as_json=as_json)
    if not passed:
        raise typer.Exit(EXIT_FAILED)


@app.command()
def sign(folder: Folder, key: PrivateKey, as_json: Json = False) -> None:
    """Sign a version by OpenSSF Model Signing; the signature lies beside the folder."""
    with _explained():
        from models import signing, verification  # noqa: PLC0415 - as above

        place = folder.absolute()
        check = verification.check_digest(place, verification.vouched(place))
        if check.passed is False:
            fail(_clean(f"This version cannot be signed: {check.name}: {check.detail}."), EXIT_FAILED)
        password = _password(key)
        try:
            path = signing.sign(place, key, password)
        except signing.SigningNotInstalled as error:
            fail(str(error), EXIT_NOT_POSSIBLE)
    _print([f"Signed: {short(path)}."], {"signature": str(path)}, as_json=as_json)


@app.command()
def approve(
    folder: Folder,
    *,
    key: PrivateKey,
    signer: Annotated[str, typer.Option("--signer", help="Who approves: name and office.")],
    intended_use: Annotated[str, typer.Option("--intended-use", help="What the version is approved for.")],
    expires: Annotated[str, typer.Option("--expires", metavar="YYYY-MM-DD", help="The first day it is not valid.")],
    as_json: Json = False,
) -> None:
    """Approve a version: verify it, then sign a statement of its digest, its use and the time; it lies beside it."""
    with _explained():
        from healthguard import approval, dsse  # noqa: PLC0415 - as above
        from models import artifact, verification  # noqa: PLC0415 - as above

        until = _day(expires)
        for option, words in (("--signer", signer), ("--intended-use", intended_use)):
            if not 0 < len(words.strip()) <= WORDS_MAX:
                fail(f"{option} takes 1 to {WORDS_MAX} letters.", EXIT_NOT_POSSIBLE)
        place = folder.absolute()
        # What is approved is what was verified, even if somebody changes the folder meanwhile.
        digest = artifact.digest(place)
        asked = verification.Asked(verification.vouched(place) or digest)
        checks = verification.verify(place, asked, now=datetime.now(UTC))
        for check in checks:
            if check.passed is False:
                fail(_clean(f"This version cannot be approved: {check.name}: {check.detail}."), EXIT_FAILED)
        contract = json.loads((place / "assets.extra" / "contract.json").read_text(encoding="utf-8"))
        statement = approval.Approval(
            contract["model"],
            contract["version"],
            digest,
            intended_use,
            signer,
            datetime.now(UTC),
            until,
        )
        signed = approval.sign(statement, dsse.private_key(key.read_bytes(), _secret(key)))
        path = approval.beside(place)
        scratch = path.with_name(f".{path.name}")
        scratch.write_bytes(signed)
        scratch.replace(path)
    _print([f"Approved until {expires}: {short(path)}."], {"approval": str(path)}, as_json=as_json)


@app.command("list")
def list_(home: Home = DEFAULT_HOME, as_json: Json = False) -> None:
    """List the versions in a folder of models."""
    with _explained():
        from models import listing  # noqa: PLC0415 - as above

        if not home.is_dir():
            fail(_clean(f"There is no folder {short(home)}: name the folder of models with --models."), EXIT_FAILED)
        found = listing.versions(home)
    _print(
        [listing.line(each) for each in found] or [f"There is no version in {short(home)}."],
        [asdict(each) for each in found],
        as_json=as_json,
    )


@app.command()
def status(
    model: Annotated[str | None, typer.Argument(metavar="MODEL", help="Default: all.")] = None,
    *,
    namespace: Annotated[str, typer.Option("--namespace", "-n", metavar="NAME", help="Default: kubectl's.")] = "",
    context: Annotated[str, typer.Option("--context", metavar="NAME", help="Default: kubectl's.")] = "",
    watch: Annotated[bool, typer.Option("--watch/--no-watch", "-w", help="Again whenever something changes.")] = False,
    as_json: Json = False,
) -> None:
    """Show what a cluster serves: versions, pods, the measured split, rollouts and what is wrong."""
    with _explained():
        from serving.operator.kubectl import Place  # noqa: PLC0415 - as above
        from serving.operator.rollout_cli import show_models  # noqa: PLC0415

        show_models(Place(namespace, context), model, watch=watch, as_json=as_json)


@app.command()
def card(folder: Folder, as_json: Json = False) -> None:
    """Print the card of a version."""
    with _explained():
        from models import artifact  # noqa: PLC0415 - as above

        _hold_to_a_version(folder)
        text = artifact.card(folder)
    _print([text.rstrip("\n")], {"card": text}, as_json=as_json)


@app.command()
def diff(
    one: Annotated[Path, typer.Argument(metavar="A", help="A version folder.")],
    other: Annotated[Path, typer.Argument(metavar="B", help="Another one.")],
    pictures: Annotated[Path, typer.Argument(metavar="FOLDER", help="PNG and JPEG images.")],
    as_json: Json = False,
) -> None:
    """Compare what two versions say of a folder of images."""
    with _explained():
        from models import diff as comparison  # noqa: PLC0415 - as above

        for each in (one, other, pictures):
            if not each.is_dir():
                fail(_clean(f"There is no folder {short(each)}."), EXIT_NOT_POSSIBLE)
        for each in (one, other):
            _hold_to_a_version(each)
        found = comparison.compare(one, other, pictures, each=_with_progress)
    names = list(found.confusion)
    lines = [
        f"{found.pictures} images: the same outcome for {100 * found.agreement:.1f} %.",
        f"Scores differ by {found.score_difference_mean:.4f} on average, {found.score_difference_max:.4f} at most.",
        "Outcomes of A in rows, of B in columns:",
        " " * 16 + "".join(f"{name:>16.15}" for name in names),
        *(f"{row:16.15}" + "".join(f"{found.confusion[row][name]:16}" for name in names) for row in names),
    ]
    _print(lines, asdict(found), as_json=as_json)


def _hold_to_a_version(folder: Path) -> None:
    """End the command where *folder* is a model's, with versions in it."""
    versions = [int(each.name) for each in folder.glob("*") if each.name.isdecimal() and each.is_dir()]
    if versions and not (folder / "assets.extra").exists():
        fail(
            _clean(f"{short(folder)} is a model: name a version of it, {short(folder / str(max(versions)))}."),
            EXIT_NOT_POSSIBLE,
        )


def _start(path: Path, size: int) -> bytes:
    with path.open("rb") as file:
        return file.read(size)


def _with_progress(files: list[Path]) -> Iterable[Path]:
    if not sys.stderr.isatty():
        return files
    from rich.console import Console  # noqa: PLC0415 - a tenth of a second that most calls don't need
    from rich.progress import track  # noqa: PLC0415

    return track(files, "Comparing", console=Console(stderr=True), transient=True)


def _print(lines: list[str], document: Any, *, as_json: bool) -> None:
    for line in [json.dumps(document, default=str)] if as_json else lines:
        typer.echo(_clean(line))


def _sentence(text: str) -> str:
    """Return *text* as a sentence; a name of a file at its beginning stays as it is."""
    first = text.partition(" ")[0]
    return _clean(f"{text if '.' in first else text[:1].upper() + text[1:]}.")


def _clean(text: str) -> str:
    """Take out what a terminal would obey: names of files, labels and cards come from whoever made the version."""
    return "".join(
        letter if letter.isprintable() or letter in "\n\t" else "\N{REPLACEMENT CHARACTER}" for letter in text
    )


def _plain(found: Any) -> dict[str, Any]:
    return {name: str(value) if isinstance(value, Path) else value for name, value in asdict(found).items()}


def _one_of(value: str | None, option: str, *allowed: str) -> Any:
    if value is not None and value not in allowed:
        fail(f"{option} takes one of {', '.join(allowed)}.", EXIT_NOT_POSSIBLE)
    return value


def _numbers(text: str | None) -> tuple[float, ...] | None:
    try:
        return None if text is None else tuple(float(part) for part in text.split(","))
    except ValueError:
        fail("--thresholds takes numbers with commas between them.", EXIT_NOT_POSSIBLE)


def _size(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    height, _, width = text.lower().partition("x")
    if not (height.isdecimal() and width.isdecimal()):
        fail("--input-size takes height x width, such as 224x224.", EXIT_NOT_POSSIBLE)
    return int(height), int(width)


def _pairs(texts: list[str]) -> dict[str, str]:
    found = {label.strip(): sentence.strip() for label, _, sentence in (text.partition("=") for text in texts)}
    if not all(found.values()):
        fail("--recommend takes LABEL=SENTENCE.", EXIT_NOT_POSSIBLE)
    return found


def _day(text: str) -> datetime:
    try:
        found = datetime.combine(date.fromisoformat(text), time(), UTC)
    except ValueError:
        fail("--expires takes a day as YYYY-MM-DD.", EXIT_NOT_POSSIBLE)
    if found <= datetime.now(UTC):
        fail("--expires is over already.", EXIT_NOT_POSSIBLE)
    return found


def _secret(path: Path) -> bytes | None:
    password = _password(path)
    return None if password is None else password.encode()


def _password(path: Path) -> str | None:
    """Ask for the password of an encrypted key; from standard input where that is no terminal."""
    if b"ENCRYPTED" not in path.read_bytes()[:4096]:
        return None
    if sys.stdin.isatty():
        return str(typer.prompt("Password of the key", hide_input=True, err=True))
    return sys.stdin.readline().rstrip("\r\n")
