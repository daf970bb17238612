"""`python -m healthguard.install secrets | crds | leave | test`: the chart's Jobs, and nobody's to call by hand."""

import datetime
import os
import sys
from pathlib import Path
from typing import Annotated

import httpx
import typer
from pydantic import ValidationError

from healthguard.client import ClientError
from healthguard.install import secrets, trial
from healthguard.install.certificates import BadAuthority
from healthguard.install.kubernetes import CallFailed, Kubernetes
from healthguard.install.leave import leave as take_leave
from healthguard.install.plan import BadPlan, KeysLost, Plan
from healthguard.tls import trusting

PLAN_VARIABLE = "HEALTHGUARD_PLAN"
CRD_BYTES_MAX = 1024 * 1024
_CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"

app = typer.Typer(help="The chart's Jobs.", no_args_is_help=True, pretty_exceptions_enable=False)


@app.command("secrets")
def make_secrets() -> None:
    """Make the Secrets and certificates that HEALTHGUARD_PLAN asks for and that are not there."""
    plan = Plan.model_validate_json(os.environ[PLAN_VARIABLE])
    changed = secrets.make(_kubernetes(), plan, datetime.datetime.now(datetime.UTC))
    _tell(f"made: {', '.join(changed)}" if changed else "every secret is there already")


@app.command()
def crds(folder: Annotated[Path, typer.Argument(help="Holds one CRD a file, called NAME.yaml.")]) -> None:
    """Bring the CRDs up to date."""
    kubernetes = _kubernetes()
    for path in sorted(folder.glob("*.yaml")):
        kubernetes.apply(f"{_CRDS}/{path.stem}", path.read_bytes()[:CRD_BYTES_MAX])
        _tell(f"applied {path.stem}")


@app.command()
def leave(
    namespace: Annotated[str, typer.Option()],
    selector: Annotated[str, typer.Option(help="Label selector of the release's ServedModels.")],
    wait_s: Annotated[float, typer.Option(min=0, max=600)] = 60.0,
) -> None:
    """End the release's ServedModels."""
    held = take_leave(_kubernetes(), namespace, selector, wait_s)
    _tell(f"freed of finalizers that nobody removed: {', '.join(held)}" if held else "the models are gone")


@app.command("test")
def use(
    url: Annotated[str, typer.Option(help="Where the gateway answers.")],
    model: Annotated[list[trial.Served], typer.Option(parser=trial.Served.parse, help="What answers: NAME@VERSION.")],
    golden: Annotated[Path, typer.Option(help="Folder of version folders.")],
    deadline_s: Annotated[float, typer.Option(min=1, max=3600)] = 300.0,
    ca_file: Annotated[Path | None, typer.Option(help="The authority of the gateway's certificate.")] = None,
) -> None:
    """Use the product as a client does."""
    trial.run(url, model, golden, deadline_s, _tell, trusted=trusting(ca_file))


def _kubernetes() -> Kubernetes:
    return Kubernetes.in_cluster(os.environ["KUBERNETES_SERVICE_HOST"], os.environ["KUBERNETES_SERVICE_PORT"])


def _tell(text: str) -> None:
    typer.echo(text)


def main() -> None:
    """Run the command; what goes wrong is one sentence, since it is read with `kubectl logs`."""
    try:
        app()
    except ValidationError as error:
        wrong = ", ".join(".".join(map(str, found["loc"])) for found in error.errors())
        sys.exit(f"{PLAN_VARIABLE} is not as it must be: {wrong}")
    except (KeysLost, BadPlan, BadAuthority, CallFailed, trial.NotRight, ClientError) as error:
        sys.exit(str(error))
    except httpx.HTTPError as error:
        sys.exit(f"a call failed: {type(error).__name__}")


if __name__ == "__main__":
    main()
