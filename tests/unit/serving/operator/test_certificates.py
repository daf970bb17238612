"""Who a model server is to others: its certificate in its own form, and who asks for it."""

import datetime
from pathlib import Path
from typing import Any

import pytest

from healthguard.install.certificates import issue, make_authority
from serving.operator import certificates, stager
from serving.operator.manifests import children, revision_of
from serving.operator.spec import read
from tests.unit.serving.operator import served

NOW = datetime.datetime.now(datetime.UTC)
TLS = {"model_tls_secret": "hg-models-tls", "model_tls_name": "hg-models.clinic.svc"}


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    """Make the folder that a pod sees of its Secret."""
    authority = make_authority(NOW)
    pair = issue(authority, ["hg-models.clinic.svc"], NOW, client=True)
    files = {"ca.crt": authority.certificate, "tls.crt": pair.certificate, "tls.key": pair.key}
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    return tmp_path


def pod(operator: dict[str, Any], runtime: str = "tensorflow-serving") -> dict[str, Any]:
    """Return the pod's spec of a ServedModel under an operator's settings."""
    spec = read(served.spec(runtime={"name": runtime}))
    deployment = children(served.OWNER, spec, served.settings(**operator))[-1]
    found: dict[str, Any] = deployment["spec"]["template"]["spec"]
    return found


def containers(operator: dict[str, Any], runtime: str = "tensorflow-serving") -> dict[str, dict[str, Any]]:
    """Return the pod's containers by name."""
    found = pod(operator, runtime)
    return {container["name"]: container for container in [*found["initContainers"], *found["containers"]]}


def test_ssl_config_holds_the_files_as_text(secret: Path) -> None:
    """Each line is a field of SSLConfig with a PEM whose line ends are escaped, and clients are asked who they are."""
    lines = certificates.ssl_config(secret).splitlines()
    fields = dict(line.split(": ", 1) for line in lines)
    assert list(fields) == ["server_key", "server_cert", "custom_ca", "client_verify"]
    for field, name in (("server_key", "tls.key"), ("server_cert", "tls.crt"), ("custom_ca", "ca.crt")):
        text = fields[field].strip('"').encode().decode("unicode_escape")
        assert text == (secret / name).read_text()
    assert fields["client_verify"] == "true"


@pytest.mark.parametrize("name", ["tls.crt", "tls.key", "ca.crt"])
def test_a_secret_that_is_none_ends_the_stager_with_the_reason(secret: Path, tmp_path: Path, name: str) -> None:
    """Not the server, whose last words nobody would understand; and nothing of the key is told."""
    (secret / name).write_bytes(b"nothing")
    with pytest.raises(stager.CannotStage) as refused:
        stager.give_certificate(secret, tmp_path / "ssl.config")
    assert refused.value.failure.reason == "CertificateUnusable"
    assert not (tmp_path / "ssl.config").exists()


def test_only_the_owner_reads_the_written_key(secret: Path, tmp_path: Path) -> None:
    """Stager and server are one user."""
    stager.give_certificate(secret, tmp_path / "ssl.config")
    assert (tmp_path / "ssl.config").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("runtime", ["tensorflow-serving", "embedded"])
def test_server_reads_its_certificate_from_memory(runtime: str) -> None:
    """The stager writes it where only it may write, and no disk keeps it."""
    found = containers(TLS, runtime)
    assert "--ssl_config_file=/run/model-server/ssl.config" in found["server"]["args"]
    assert "--ssl-config=/run/model-server/ssl.config" in found["stager"]["args"]
    writers = {
        name: next(mount["readOnly"] for mount in container["volumeMounts"] if mount["name"] == "ssl-config")
        for name, container in found.items()
        if name != "prober"
    }
    assert writers == {"stager": False, "server": True}
    volumes = {volume["name"]: volume for volume in pod(TLS, runtime)["volumes"]}
    assert volumes["ssl-config"]["emptyDir"]["medium"] == "Memory"
    assert volumes["certificate"]["secret"] == {"secretName": "hg-models-tls", "defaultMode": 0o440}


def test_server_has_the_key_in_one_place_only() -> None:
    """The Secret itself is the stager's and the prober's to see."""
    mounts = {
        name: {mount["name"] for mount in container["volumeMounts"]} for name, container in containers(TLS).items()
    }
    assert [name for name, seen in mounts.items() if "certificate" in seen] == ["stager", "prober"]


def test_prober_asks_as_a_client_with_a_name() -> None:
    """It knows the server by the name that gateways know it by, at 127.0.0.1."""
    arguments = containers(TLS)["prober"]["args"]
    assert {"--certificate=/etc/healthguard/tls", "--server-name=hg-models.clinic.svc"} <= set(arguments)


def test_without_a_secret_nothing_speaks_tls() -> None:
    """No half of it: neither flag nor volume."""
    text = str(pod({}))
    assert "ssl" not in text
    assert "certificate" not in text


@pytest.mark.parametrize(
    ("operator", "is_open"),
    [
        pytest.param({}, True, id="plain"),
        pytest.param(TLS, False, id="with TLS, HTTP would be a way around it"),
        pytest.param({**TLS, "scraper_labels": {"name": "monitoring"}}, True, id="but for scrapers that were named"),
    ],
)
def test_plain_http_is_open_only_where_it_must(operator: dict[str, Any], is_open: bool) -> None:
    """TensorFlow Serving's metrics have no other way, and predictions are answered there, too."""
    server = containers(operator)["server"]
    assert any(flag.startswith("--rest_api_port") for flag in server["args"]) is is_open
    assert ("rest" in {port["name"] for port in server["ports"]}) is is_open


def test_a_renewed_certificate_means_new_pods(secret: Path) -> None:
    """Servers read it once, at their start; the same one again means nothing."""
    spec, settings = read(served.spec()), served.settings(**TLS)
    before = certificates.fingerprint(secret / "tls.crt")
    (secret / "tls.crt").write_bytes(issue(make_authority(NOW), ["x"], NOW).certificate)
    after = certificates.fingerprint(secret / "tls.crt")
    revisions = [revision_of(children(served.OWNER, spec, settings, seen)) for seen in (before, before, after)]
    assert revisions[0] == revisions[1] != revisions[2]


def test_a_certificate_that_cannot_be_read_is_not_taken_for_none(secret: Path) -> None:
    """That would replace every model pod for a fault of the operator's own disk; none at all is another matter."""
    assert certificates.fingerprint(None) == ""
    with pytest.raises(certificates.Unusable):
        certificates.fingerprint(secret / "nothing")


def test_a_secret_without_a_name_is_refused() -> None:
    """A prober that checks no name would take any holder of a certificate for the server."""
    with pytest.raises(ValueError, match="model_tls_name"):
        served.settings(model_tls_secret="hg-models-tls")
