"""An SSLConfig is refused by the name of the field that is wrong, and never quoted."""

import datetime
from pathlib import Path

import pytest
from google.protobuf import text_format

from healthguard.install.certificates import issue, make_authority
from serving.modelserver.config import BadConfig
from serving.modelserver.tls import Certificates
from serving.tfs.ssl_config_pb2 import SSLConfig

NOW = datetime.datetime.now(datetime.UTC)
AUTHORITY = make_authority(NOW)
PAIR = issue(AUTHORITY, ["models.test"], NOW)


def write(path: Path, **changes: str | bool) -> Path:
    """Write a good configuration with some fields changed."""
    fields: dict[str, str | bool] = {
        "server_key": PAIR.key.decode(),
        "server_cert": PAIR.certificate.decode(),
        "custom_ca": AUTHORITY.certificate.decode(),
        **changes,
    }
    path.write_text(text_format.MessageToString(SSLConfig(**fields)))  # type: ignore[arg-type]
    return path


def test_certificates_are_read_and_renewed_only_when_the_file_changes(tmp_path: Path) -> None:
    """A file that stays gives nothing new; one that changed does, once; one that vanished or broke does not."""
    path = write(tmp_path / "ssl")
    certificates = Certificates(path)
    assert certificates.credentials() is not None
    assert certificates.renewed() is None
    write(path, client_verify=False, custom_ca="")
    assert certificates.renewed() is not None
    assert certificates.renewed() is None
    path.write_text("server_key: 1")
    assert certificates.renewed() is None
    path.unlink()
    assert certificates.renewed() is None
    write(path)
    assert certificates.renewed() is not None


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"server_key": "/etc/tls/tls.key"}, "server_key is not PEM"),
        ({"server_cert": "secret"}, "server_cert is not PEM"),
        ({"custom_ca": "secret"}, "custom_ca is not PEM"),
        ({"custom_ca": "", "client_verify": True}, "client_verify needs custom_ca"),
    ],
    ids=["a path for a key", "no certificate", "no authority", "clients to be verified by nobody"],
)
def test_certificates_refuse_by_name(tmp_path: Path, changes: dict[str, str | bool], words: str) -> None:
    """The text names the field and holds nothing of what was in it."""
    with pytest.raises(BadConfig, match=words) as caught:
        Certificates(write(tmp_path / "ssl", **changes))
    assert not any(isinstance(value, str) and value and value in str(caught.value) for value in changes.values())


def test_certificates_refuse_a_missing_file(tmp_path: Path) -> None:
    """A file that is not there is named."""
    with pytest.raises(BadConfig, match="cannot read"):
        Certificates(tmp_path / "absent")


def test_certificates_refuse_text_that_does_not_parse_without_quoting_it(tmp_path: Path) -> None:
    """Not even the place of the mistake is shown, since the key may stand there."""
    (tmp_path / "ssl").write_text('server_key: "-----BEGIN PRIVATE KEY-----secret')
    with pytest.raises(BadConfig) as caught:
        Certificates(tmp_path / "ssl")
    assert "secret" not in str(caught.value)
