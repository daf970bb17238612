"""Which processes make the product, and with which settings."""

import json
from pathlib import Path

import pytest
from google.protobuf import text_format

from healthguard.local import stack
from healthguard.local.datadir import DataDir
from healthguard.local.keys import Keys
from healthguard.local.ports import Ports
from healthguard.local.stack import NoModels, Served, Stack
from models import artifact
from models.artifact import Version
from serving.tfs.protos import ModelServerConfig


def _stack(folder: Path) -> Stack:
    versions = tuple(Version(number, f"pvc://models/cancer/{number}", "sha256:" + "0" * 64) for number in (1, 2))
    return Stack(DataDir(folder), Keys(), Ports(1, 2, 3, 4), [Served("cancer", 1, versions, folder / 'a "b" ü')])


def test_model_config_is_what_the_model_server_reads(tmp_path: Path) -> None:
    """The official message reads it, whatever the folder is called."""
    found = text_format.Parse(stack.model_config(_stack(tmp_path).served), ModelServerConfig())
    config = found.model_config_list.config[0]
    assert (config.name, config.base_path) == ("cancer", str(tmp_path / 'a "b" ü'))
    assert list(config.model_version_policy.specific.versions) == [1, 2]


def test_settings_name_no_secret_that_a_service_does_not_need(tmp_path: Path) -> None:
    """Each service gets its own database, and the superuser's password goes to none."""
    made = _stack(tmp_path)
    env = made.settings(made.cluster())
    everything = json.dumps(env)
    assert made.keys.postgres_password not in everything
    assert made.keys.auth_password not in json.dumps([env["records"], env["gateway"]])
    assert made.keys.records_password not in json.dumps([env["auth"], env["gateway"]])
    assert env["records"]["RECORDS_GATEWAY_SECRET"] == env["gateway"]["GATEWAY_RECORDS_SECRET"]


def test_settings_of_the_caller_tune_but_do_not_rewire(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A limit can be set from outside; where the parts find each other cannot."""
    monkeypatch.setenv("GATEWAY_PREDICTIONS_IN_FLIGHT_MAX", "7")
    monkeypatch.setenv("GATEWAY_AUTH_URL", "http://elsewhere")
    env = _stack(tmp_path).settings(_stack(tmp_path).cluster())["gateway"]
    assert env["GATEWAY_PREDICTIONS_IN_FLIGHT_MAX"] == "7"
    assert env["GATEWAY_AUTH_URL"] == "http://127.0.0.1:2"


def test_services_stop_in_an_order_that_serves_to_the_end(tmp_path: Path) -> None:
    """The door closes first, the database last."""
    plans = {service.plan.name: service.plan for service in _stack(tmp_path).services()}
    assert plans["gateway"].uses == {"auth", "records", "modelserver"}
    assert all("postgres" in plans[name].needs for name in ("auth", "records"))


def test_verified_refuses_an_empty_folder(tmp_path: Path) -> None:
    """Without a model there is nothing to serve."""
    with pytest.raises(NoModels, match="There is no model"):
        stack.verified(tmp_path)


def _model(folder: Path, *, place: str) -> Path:
    """Make a model of one small version in `folder/place`, with its manifest; return the version's folder."""
    version = folder / place
    version.mkdir(parents=True)
    (version / "model.tflite").write_bytes(b"weights")
    spec = {
        "versions": [{"version": 1, "storageUri": f"pvc://models/{place}", "digest": artifact.digest(version)}],
        "traffic": {"stable": 1},
    }
    manifest = {"kind": "ServedModel", "metadata": {"name": "cancer"}, "spec": spec}
    (folder / "cancer" / artifact.MANIFEST_NAME).write_text(json.dumps(manifest))
    return version


def test_model_server_is_prepared_by_verifying_what_it_will_read(tmp_path: Path) -> None:
    """The check before each start holds the very folders to the digests of the first one, whatever changed since."""
    version = _model(tmp_path, place="cancer/1")
    made = Stack(DataDir(tmp_path / "data"), Keys(), Ports(1, 2, 3, 4), stack.verified(tmp_path))
    prepare = next(service.prepare for service in made.services() if service.plan.name == "modelserver")
    assert prepare is not None
    prepare()
    (version / "model.tflite").write_bytes(b"Weights")
    with pytest.raises(NoModels, match="cancer: version 1 does not have the digest"):
        prepare()
    manifest = json.loads((tmp_path / "cancer" / artifact.MANIFEST_NAME).read_text())
    manifest["spec"]["versions"][0]["digest"] = artifact.digest(version)
    (tmp_path / "cancer" / artifact.MANIFEST_NAME).write_text(json.dumps(manifest))
    with pytest.raises(NoModels, match="digest"):
        prepare()


def test_version_in_a_folder_of_another_name_is_refused(tmp_path: Path) -> None:
    """The model server would look in the folder of its number, which nobody verified."""
    _model(tmp_path, place="cancer/weights")
    with pytest.raises(NoModels, match="not in a folder of its number"):
        stack.verified(tmp_path)
