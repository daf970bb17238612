"""Which processes make the product on one machine, what each needs first, and with which settings each runs."""

import json
import os
import sys
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import models
from healthguard.local import probe, schema
from healthguard.local.datadir import DataDir
from healthguard.local.keys import Keys
from healthguard.local.lifecycle import Plan
from healthguard.local.ports import HOST, Ports
from healthguard.local.postgres import Cluster
from healthguard.local.process import Command
from healthguard.local.supervisor import Service
from healthguard.private_files import write_private
from models import artifact
from models.artifact import Version

ROOT = Path(models.__file__).parents[1]
"""The folder that holds the packages: children start there, so that they import the same code as we do."""


class NoModels(RuntimeError):
    """There is no model to serve, or one that must not be."""


@dataclass(frozen=True, slots=True)
class Served:
    """A model as its manifest says it is to be served."""

    name: str
    stable: int
    versions: tuple[Version, ...]
    base_path: Path
    """Holds a folder a version, called by its number: so the model server looks for them."""


def verified(models_folder: Path) -> list[Served]:
    """
    Return the models under *models_folder*, every byte of theirs checked against the manifests.

    Raises:
        NoModels: there is none, or a folder is not what its manifest says.
    """
    try:
        found = [_declared(models_folder, path) for path in artifact.manifests(models_folder)]
    except artifact.ArtifactError as exc:
        raise NoModels(f"A model is not what its manifest says, so nothing is served: {exc}.") from exc
    if not found:
        raise NoModels(f"There is no model under {models_folder}.")
    verify(found)
    return found


def _declared(models_folder: Path, path: Path) -> Served:
    manifest = artifact.read_manifest(path)
    base_path = artifact.folder(models_folder, manifest.version(manifest.stable)).parent
    for version in manifest.versions:
        if artifact.folder(models_folder, version) != base_path / str(version.number):
            raise artifact.ManifestError(f"{manifest.model}: version {version.number} is not in a folder of its number")
    return Served(manifest.model, manifest.stable, manifest.versions, base_path)


def verify(served: Sequence[Served]) -> None:
    """
    Check every byte of the models against the digests that their manifests named when we started.

    Done before each start of the model server, which itself knows no digests. What changes between this and its
    reading, a moment later, is not seen.

    Raises:
        NoModels: a folder is not what its manifest says, or cannot be read.
    """
    for model in served:
        for version in model.versions:
            try:
                artifact.verify(model.base_path / str(version.number), version)
            except (artifact.ArtifactError, OSError) as exc:
                why = exc.strerror if isinstance(exc, OSError) else exc
                raise NoModels(
                    f"A model is not what its manifest says, so nothing is served: {model.name}: {why}."
                ) from exc


def model_config(served: list[Served]) -> str:
    """Return TensorFlow Serving's ModelServerConfig, in text form."""
    return "model_config_list {\n" + "".join(map(_model_config, served)) + "}\n"


def _model_config(model: Served) -> str:
    versions = " ".join(f"versions: {version.number}" for version in model.versions)
    return (
        f"  config {{ name: {json.dumps(model.name)} base_path: {json.dumps(str(model.base_path), ensure_ascii=False)}"
        f' model_platform: "tensorflow" model_version_policy {{ specific {{ {versions} }} }} }}\n'
    )


def models_file(served: list[Served], ports: Ports) -> str:
    """Return the gateway's static discovery file, in JSON."""
    endpoints = [f"{HOST}:{ports.modelserver}"]
    return json.dumps({"models": [{"name": m.name, "stable": m.stable, "endpoints": endpoints} for m in served]})


@dataclass(frozen=True, slots=True)
class Stack:
    """One installation: where its data is, its secrets, its ports and the models that it serves."""

    data: DataDir
    keys: Keys = field(repr=False)
    ports: Ports
    served: list[Served]
    extra_env: Mapping[str, str] = field(default_factory=dict)
    """Settings that win over ours, for tests."""

    @property
    def url(self) -> str:
        """Where the product answers."""
        return f"http://{HOST}:{self.ports.gateway}"

    def write_files(self) -> None:
        """Write the configuration that the processes read."""
        write_private(self.data.run / "models.config", model_config(self.served))
        write_private(self.data.run / "models.json", models_file(self.served, self.ports))

    def cluster(self) -> Cluster:
        """Return the PostgreSQL of this installation."""
        return Cluster(self.data.postgres, self.keys.postgres_password)

    def services(self) -> list[Service]:
        """Return every process, in the order in which a person reads them."""
        cluster = self.cluster()
        env = self.settings(cluster)
        ports = self.ports
        return [
            self._postgres(cluster),
            self._migration("auth", env["auth"], cluster),
            self._migration("records", env["records"], cluster),
            Service(
                Plan("modelserver"),
                self._python("serving.modelserver", *self._modelserver_flags()),
                partial(probe.tcp_ready, ports.modelserver),
                prepare=partial(verify, self.served),
            ),
            self._http("auth", env["auth"], ports.auth, needs={"postgres", "auth-migrate"}),
            self._http("records", env["records"], ports.records, needs={"postgres", "records-migrate"}, uses={"auth"}),
            # It starts beside the others, which saves a second: it finds them when they are there.
            self._http("gateway", env["gateway"], ports.gateway, uses={"auth", "records", "modelserver"}),
        ]

    def settings(self, cluster: Cluster) -> dict[str, dict[str, str]]:
        """Return each service's settings as environment variables, by service."""
        keys, ports = self.keys, self.ports
        auth_url = f"http://{HOST}:{ports.auth}"
        ours = {
            "auth": {
                "AUTH_DSN": cluster.dsn("auth", keys.auth_password),
                "AUTH_PORT": str(ports.auth),
                "AUTH_KEY_ENCRYPTION_KEY": keys.key_encryption_key,
            },
            "records": {
                "RECORDS_DSN": cluster.dsn("records", keys.records_password),
                "RECORDS_PORT": str(ports.records),
                "RECORDS_JWKS_URL": f"{auth_url}/.well-known/jwks.json",
                "RECORDS_GATEWAY_SECRET": keys.gateway_secret,
                "RECORDS_PSEUDONYM_KEY": keys.pseudonym_key,
            },
            "gateway": {
                "GATEWAY_PORT": str(ports.gateway),
                "GATEWAY_AUTH_URL": auth_url,
                "GATEWAY_RECORDS_URL": f"http://{HOST}:{ports.records}",
                "GATEWAY_MODELS_FILE": str(self.data.run / "models.json"),
                "GATEWAY_RECORDS_SECRET": keys.gateway_secret,
                "GATEWAY_IMAGE_HMAC_KEY": keys.image_hmac_key,
            },
        }
        return {name: _tuned(name) | env | dict(self.extra_env) for name, env in ours.items()}

    def _postgres(self, cluster: Cluster) -> Service:
        def prepare() -> None:
            cluster.initialise()
            cluster.clear_leftovers()

        def settle() -> None:
            cluster.ensure_databases({"auth": self.keys.auth_password, "records": self.keys.records_password})

        async def ready() -> bool:
            return cluster.ready()

        return Service(Plan("postgres"), cluster.command, ready, prepare=prepare, settle=settle)

    def _migration(self, name: str, env: Mapping[str, str], cluster: Cluster) -> Service:
        plan = Plan(f"{name}-migrate", needs=frozenset({"postgres"}), task=True)
        needed = partial(schema.needs_migration, cluster, name, ROOT / name / "migrations" / "versions")
        return Service(plan, self._python("healthguard", name, "migrate", env=env), needed=needed)

    def _http(
        self,
        name: str,
        env: Mapping[str, str],
        port: int,
        *,
        needs: Set[str] = frozenset(),
        uses: Set[str] = frozenset(),
    ) -> Service:
        plan = Plan(name, needs=frozenset(needs), uses=frozenset(uses))
        return Service(plan, self._python(name, env=env), partial(probe.http_ready, port))

    def _modelserver_flags(self) -> tuple[str, ...]:
        return (
            f"--port={self.ports.modelserver}",
            f"--listen_address={HOST}",
            f"--model_config_file={self.data.run / 'models.config'}",
            "--file_system_poll_wait_seconds=0",
            # The gateway ends first, so nobody needs notice.
            "--drain_notice_seconds=0",
        )

    @staticmethod
    def _python(module: str, *arguments: str, env: Mapping[str, str] | None = None) -> "partial[Command]":
        return partial(Command, (sys.executable, "-m", module, *arguments), ROOT, env or {})


def _tuned(name: str) -> dict[str, str]:
    """Return the settings of a service that our caller's environment names; what we set ourselves wins over them."""
    prefix = f"{name.upper()}_"
    return {key: value for key, value in os.environ.items() if key.startswith(prefix)}
