"""The way of a release into a registry and a cluster: k8s/delivery."""

import base64
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from k8s.delivery import access, deploy, push
from k8s.images.build import SERVICES
from tests.cluster import tools
from tests.deploy.charts import CHART, ROOT, containers, merged, of_kind, template

BUILT = [{"service": service, "digest": f"sha256:{number:064x}"} for number, service in enumerate(SERVICES)]
RELEASE = deploy.Release("healthguard", "clinic", 3)
SITE: dict[str, Any] = {"ingress": {"host": "clinic.example"}}


# ---- to the registry


@pytest.mark.parametrize("profile", ["staging", "production"])
def test_release_names_every_image_of_ours_by_digest(profile: str) -> None:
    """What the chart renders with images.yaml are the digests that were pushed, hooks' and model pods' images too."""
    images = push.plan(BUILT, "registry.example", "Clinic/HealthGuard", "v1")
    rendered = template(merged(push.values(images), SITE | _address(profile)), profile)
    expected = {f"{image.name}@{image.digest}" for image in images}
    found = {container["image"] for _, container in containers(rendered)}
    found |= set(of_kind(rendered, "ConfigMap")["hg-operator"]["data"].values())
    ours = {image for image in found if "healthguard/" in image and "registry.example" in image}
    assert ours
    assert ours <= expected
    assert not [image for image in found if image.startswith("localhost/")]


def _address(profile: str) -> dict[str, Any]:
    network = {"database": {"cidrs": ["192.0.2.1/32"]}, "apiServer": {"cidrs": ["192.0.2.2/32"]}}
    return {"networkPolicies": network} if profile == "production" else {}


def test_registry_names_are_lower_case() -> None:
    """A registry refuses capitals, which an owner's name may have."""
    assert push.plan(BUILT[:1], "r.example", "Clinic/HG", "v1")[0].name == "r.example/clinic/hg/gateway"


def test_a_tag_that_is_not_the_charts_version_is_refused() -> None:
    """Nobody finds v2 under the name of v1."""
    version = yaml.safe_load((CHART / "Chart.yaml").read_text())["version"]
    assert push.version_of(f"v{version}") == version
    with pytest.raises(push.NotPushed, match=version):
        push.version_of("v99.0.0")


def _program(folder: Path, name: str, script: str) -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder whose programs are found first; each notes how it was called in the file `calls`."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)
    monkeypatch.setenv("CALLS", str(tmp_path / "calls"))
    return folder


def test_a_registry_that_has_another_digest_is_noticed(programs: Path) -> None:
    """A registry or a proxy that rewrites manifests must not go unseen: what runs would not be what was tested."""
    image = push.plan(BUILT[:1], "r.example", "hg", "v1")[0]
    _program(programs, "skopeo", f'[ "$1" = copy ] || echo {image.digest}')
    push.push(image, Path("gateway.tar"))
    _program(programs, "skopeo", '[ "$1" = copy ] || echo sha256:other')
    with pytest.raises(push.NotPushed, match="sha256:other"):
        push.push(image, Path("gateway.tar"))


# ---- into the cluster


@pytest.mark.parametrize("module", ["helm3", "helm4"])
def test_both_helms_take_our_commands(module: str, tmp_path: Path) -> None:
    """Each comes as far as asking for the cluster; a flag that it does not have would end it before."""
    helm = str(tools.program("helm", module=module))
    version = subprocess.run([helm, "version", "--short"], capture_output=True, text=True, check=True).stdout
    nowhere = tmp_path / "kubeconfig"
    nowhere.write_text(access.kubeconfig({"KUBE_SERVER": "https://127.0.0.1:1", "KUBE_CA": "x", "KUBE_AUDIENCE": "x"}))
    chart = str(CHART)
    commands = [
        deploy.upgrade_command(RELEASE, chart, [str(CHART / "values" / "dev.yaml")], version),
        deploy.rollback_command(RELEASE, 1),
        deploy.proof_commands(RELEASE)[1],
        deploy.history_command(RELEASE),
    ]
    for command in commands:
        assert "unknown" not in _said(helm, command, nowhere), command
        assert "cluster" in _said(helm, command, nowhere), command
    other = deploy.upgrade_command(RELEASE, chart, [], "v4.0.0")
    assert ("unknown flag" in _said(helm, other, nowhere)) == (module == "helm3")


def _said(helm: str, command: list[str], kubeconfig: Path) -> str:
    environment = {**os.environ, "KUBECONFIG": str(kubeconfig)}
    run = subprocess.run([helm, *command[1:]], capture_output=True, text=True, env=environment, timeout=60, check=False)
    assert run.returncode
    return run.stderr


HELM = """echo "helm $1" >> "$CALLS"
case "$1" in
  version) echo v4.1.0;;
  history) echo '[{"revision": 6, "status": "superseded"}, {"revision": 7, "status": "deployed"}]';;
  rollback) echo "to $3" >> "$CALLS";;
esac
"""


def _deployed(tmp_path: Path) -> list[str]:
    calls = (tmp_path / "calls").read_text().splitlines()
    return [call for call in calls if call not in {"helm version", "helm history"}]


def test_a_release_that_works_stays(programs: Path, tmp_path: Path) -> None:
    """It is installed, its models are waited for, it is tried, and that is all."""
    _program(programs, "helm", HELM)
    _program(programs, "kubectl", 'echo "kubectl $1" >> "$CALLS"')
    deploy.upgrade(RELEASE, "chart", [])
    assert _deployed(tmp_path) == ["helm upgrade", "kubectl wait", "helm test"]


@pytest.mark.parametrize("broken", ["models", "test"])
def test_a_release_that_fails_its_proof_is_taken_back(programs: Path, tmp_path: Path, broken: str) -> None:
    """Helm calls the upgrade a success; the models or `helm test` say otherwise, and revision 7 is deployed again."""
    _program(programs, "helm", HELM + ('[ "$1" != test ]' if broken == "test" else ""))
    _program(programs, "kubectl", "exit 1" if broken == "models" else "")
    with pytest.raises(deploy.Failed):
        deploy.upgrade(RELEASE, "chart", [])
    assert _deployed(tmp_path)[-2:] == ["helm rollback", "to 7"]


def test_what_is_to_be_looked_at_is_kept(programs: Path, tmp_path: Path) -> None:
    """CI's own cluster has nobody to serve, and its pods say why they failed."""
    _program(programs, "helm", HELM + '[ "$1" != test ]')
    _program(programs, "kubectl", "")
    with pytest.raises(deploy.Failed):
        deploy.upgrade(RELEASE, "chart", [], keep=True)
    assert _deployed(tmp_path) == ["helm upgrade", "helm test"]
    kept = deploy.upgrade_command(RELEASE, "chart", [], "v4.1.0", keep=True)
    assert set(deploy.upgrade_command(RELEASE, "chart", [], "v4.1.0")) - set(kept) == {"--rollback-on-failure"}


def test_an_upgrade_that_fails_is_left_to_helm(programs: Path, tmp_path: Path) -> None:
    """It was told to go back by itself; a second rollback would go one revision too far."""
    _program(programs, "helm", HELM + '[ "$1" != upgrade ]')
    with pytest.raises(deploy.Failed, match="helm upgrade"):
        deploy.upgrade(RELEASE, "chart", [])
    assert _deployed(tmp_path) == ["helm upgrade"]


def test_a_first_install_has_nothing_to_go_back_to(programs: Path, tmp_path: Path) -> None:
    """It stays to be looked at, and the job fails."""
    absent = 'if [ "$1" = history ]; then echo "Error: release: not found" >&2; exit 1; fi\n[ "$1" != test ]'
    _program(programs, "helm", 'echo "helm $1" >> "$CALLS"\n' + absent)
    _program(programs, "kubectl", "")
    with pytest.raises(deploy.Failed, match="helm test"):
        deploy.upgrade(RELEASE, "chart", [])
    assert _deployed(tmp_path) == ["helm upgrade", "helm test"]


def test_a_cluster_out_of_reach_is_no_first_install(programs: Path, tmp_path: Path) -> None:
    """Nothing is installed where it is unknown what there is."""
    _program(programs, "helm", HELM + 'echo "Error: unreachable" >&2; [ "$1" != history ]')
    with pytest.raises(deploy.Failed, match="unreachable"):
        deploy.upgrade(RELEASE, "chart", [])
    assert "helm upgrade" not in (tmp_path / "calls").read_text()


@pytest.mark.parametrize(
    ("statuses", "good"),
    [([], None), (["failed"], None), (["superseded", "deployed"], 2), (["deployed", "failed", "pending-upgrade"], 1)],
)
def test_good_revision_is_the_deployed_one(statuses: list[str], good: int | None) -> None:
    """A failed or unfinished revision is nothing to go back to."""
    history = [{"revision": number, "status": status} for number, status in enumerate(statuses, 1)]
    assert deploy.good_revision(history) == good


# ---- who may


def _part(document: dict[str, Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(document).encode()).decode().rstrip("=")


TOKEN = f"{_part({'alg': 'RS256'})}.{_part({'exp': 1767225600})}.signature"


class _Issuer(BaseHTTPRequestHandler):
    """Answers as a runner's token endpoint does."""

    def do_GET(self) -> None:
        """Give a token to who shows the runner's right, for the audience asked for."""
        allowed = self.headers["Authorization"] == "Bearer right" and self.path == "/token?v=1&audience=clinic"
        self.send_response(200 if allowed else 403)
        self.end_headers()
        self.wfile.write(json.dumps({"value": TOKEN}).encode() if allowed else b"")

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def issuer() -> Iterator[str]:
    """Run a token endpoint; yield its address."""
    with HTTPServer(("127.0.0.1", 0), _Issuer) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/token?v=1"
        server.shutdown()
        thread.join()


def test_the_plugin_in_the_kubeconfig_gives_a_fresh_credential(issuer: str) -> None:
    """What a client would start, started: a token for the audience, and the time at which to ask again."""
    config = json.loads(
        access.kubeconfig({"KUBE_SERVER": "https://k.example", "KUBE_CA": "pem", "KUBE_AUDIENCE": "clinic"})
    )
    plugin = config["users"][0]["user"]["exec"]
    environment = {"ACTIONS_ID_TOKEN_REQUEST_URL": issuer, "ACTIONS_ID_TOKEN_REQUEST_TOKEN": "right"}
    command = [plugin["command"], *plugin["args"]]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=True)
    credential = json.loads(run.stdout)
    assert credential["apiVersion"] == plugin["apiVersion"]
    assert credential["status"] == {"token": TOKEN, "expirationTimestamp": "2026-01-01T00:00:00Z"}
    assert TOKEN not in json.dumps(config)


def test_a_job_without_the_right_is_told_so() -> None:
    """The sentence names the permission."""
    command = [sys.executable, str(ROOT / "k8s" / "delivery" / "access.py"), "token", "clinic"]
    run = subprocess.run(command, env={}, capture_output=True, text=True, timeout=60, check=False)
    assert run.returncode
    assert "id-token: write" in run.stderr


def test_a_stored_kubeconfig_is_the_second_choice(tmp_path: Path) -> None:
    """It is used where no server trusts GitHub, readable by its owner alone, and its absence has a sentence."""
    assert access.kubeconfig({"KUBE_SERVER": "", "KUBE_CONFIG": "stored"}) == "stored"
    access.write(tmp_path / "kubeconfig", "stored")
    assert (tmp_path / "kubeconfig").stat().st_mode & 0o077 == 0
    with pytest.raises(access.NoAccess, match="KUBE_SERVER"):
        access.kubeconfig({})


@pytest.mark.parametrize("server", ["http://k.example", "k.example"])
def test_a_server_without_tls_is_refused(server: str) -> None:
    """A token must not travel in the clear."""
    with pytest.raises(access.NoAccess):
        access.kubeconfig({"KUBE_SERVER": server, "KUBE_CA": "pem", "KUBE_AUDIENCE": "clinic"})
