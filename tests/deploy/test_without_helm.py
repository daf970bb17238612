"""What is there for people without Helm, or without Kubernetes, says the same as the chart."""

import importlib.util
import json
import re
from typing import Any

import pytest
import yaml

from auth.settings import AuthSettings
from gateway.discovery import DeclaredModels
from gateway.settings import GatewaySettings
from healthguard.settings import Settings
from records.settings import RecordsSettings
from tests.deploy import charts
from tests.deploy.charts import ROOT, of_kind, template

COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yaml").read_text())
STAGING: dict[str, Any] = yaml.safe_load((ROOT / "compose.staging.yaml").read_text())
SETTINGS: dict[str, type[Settings]] = {"auth": AuthSettings, "records": RecordsSettings, "gateway": GatewaySettings}
LEFT_TO_DEFAULTS = {"jwks_url"}
"""Required in a cluster only: the gateway finds auth's keys at auth's address."""


def _render_module() -> Any:
    spec = importlib.util.spec_from_file_location("k8s_render", ROOT / "k8s" / "render.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_kustomizations_are_what_the_chart_renders() -> None:
    """`python k8s/render.py HELM` writes them."""
    for path, text in _render_module().files(charts._helm()).items():
        assert (ROOT / "k8s" / path).read_text() == text, path


@pytest.mark.parametrize("place", ["base", "overlays/dev", "overlays/staging", "overlays/production"])
def test_kustomizations_have_no_helm_in_them(place: str) -> None:
    """A hook that Helm does not run would run at once: taking leave, above all."""
    text = (ROOT / "k8s" / place / "healthguard.yaml").read_text()
    assert "helm.sh/" not in text
    jobs = of_kind(list(yaml.safe_load_all(text)), "Job").keys()
    assert "healthguard-secrets" in jobs
    assert not {"healthguard-leave", "healthguard-crds"} & jobs


def test_gitops_examples_are_of_the_charts_values() -> None:
    """What they set, the schema knows."""
    application = list(yaml.safe_load_all((ROOT / "k8s" / "argocd" / "applications.yaml").read_text()))[1]
    template(application["spec"]["source"]["helm"]["valuesObject"], "production")
    release = list(yaml.safe_load_all((ROOT / "k8s" / "flux" / "healthguard.yaml").read_text()))[2]
    template(release["spec"]["values"], "production")


@pytest.mark.parametrize("service", SETTINGS)
def test_compose_gives_each_service_the_settings_that_it_demands(service: str) -> None:
    """Every variable is a setting, and every setting without a default is set."""
    fields = SETTINGS[service].model_fields
    variables = COMPOSE["services"][service]["environment"] | STAGING["services"][service].get("environment", {})
    names = {name.removeprefix(f"{service.upper()}_").lower() for name in variables}
    assert names <= fields.keys()
    assert {
        name for name, field in fields.items() if field.is_required()
    } - LEFT_TO_DEFAULTS <= names | LEFT_TO_DEFAULTS


def test_compose_serves_the_charts_models_with_the_charts_images() -> None:
    """The same versions, from the same TensorFlow Serving and PostgreSQL."""
    listed = DeclaredModels.model_validate_json(COMPOSE["configs"]["models-list"]["content"])
    chart = json.loads(
        of_kind(template({"gateway": {"discovery": "file"}}), "ConfigMap")["hg-gateway-models"]["data"]["models.json"]
    )
    assert {one.name: one.stable for one in listed.models} == {one["name"]: one["stable"] for one in chart["models"]}
    config = COMPOSE["configs"]["models-config"]["content"]
    assert set(re.findall(r'name: "(\w+)".*versions: (\d+)', config)) == {
        (one.name, str(one.stable)) for one in listed.models
    }
    images = {one["image"] for one in COMPOSE["services"].values()}
    operator = of_kind(template(), "ConfigMap")["hg-operator"]["data"]
    rendered = {container["image"] for _, container in charts.containers(template())}
    assert images <= rendered | {operator["OPERATOR_TENSORFLOW_SERVING_IMAGE"]}


def test_compose_refers_to_nothing_that_is_not_there() -> None:
    """Networks, volumes, configs and the services that others wait for."""
    for compose in (COMPOSE, {**COMPOSE, "services": STAGING["services"]}):
        for name, service in compose["services"].items():
            assert set(service.get("networks", ())) <= COMPOSE["networks"].keys(), name
            assert {one["source"] for one in service.get("configs", ())} <= COMPOSE["configs"].keys(), name
            assert set(service.get("depends_on", ())) <= COMPOSE["services"].keys(), name


def test_compose_holds_no_secret_and_opens_one_door() -> None:
    """Secrets come from .env and have no default; only the gateway has a port, on this machine."""
    text = (ROOT / "docker-compose.yaml").read_text()
    assert not re.findall(r"\$\{[A-Z_]+:-[^}]", text)
    doors = {name: service["ports"] for name, service in COMPOSE["services"].items() if "ports" in service}
    assert doors == {"gateway": ["127.0.0.1:8004:8004"]}
    assert not set(COMPOSE["services"]["gateway"]["networks"]) & set(COMPOSE["services"]["postgresql"]["networks"])
