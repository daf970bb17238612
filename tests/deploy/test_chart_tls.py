"""TLS inside the release: on every edge, with names that are checked, and with each key where it belongs."""

import json
import re
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.deploy.charts import Manifest, Refused, Values, containers, of_kind, pod_specs, template

HOLDERS = ("auth", "gateway", "models", "postgresql", "records")
SOURCES: dict[str, Values] = {
    "hook": {},
    "cert-manager": {"certManager": {"issuerRef": {"name": "ca"}}},
    "existing": {"existing": {holder: f"my-{holder}" for holder in HOLDERS}},
}
CLIENTS = {"hg-gateway-tls", "hg-models-tls"}


def rendered(source: str = "hook", **over: Any) -> list[Manifest]:
    """Return what the chart renders with TLS inside."""
    return template({"internalTLS": {"enabled": True, "source": source, **SOURCES[source], **over}})


def settings(found: list[Manifest], service: str) -> dict[str, str]:
    """Return a service's environment from its ConfigMap."""
    data: dict[str, str] = of_kind(found, "ConfigMap")[f"hg-{service}"]["data"]
    return data


def certificates(found: list[Manifest]) -> dict[str, dict[str, Any]]:
    """Return what the hook is to certify."""
    environment = dict(containers(found))["Job/hg-secrets/secrets"]["env"]
    plan = json.loads(next(one["value"] for one in environment if one["name"] == "HEALTHGUARD_PLAN"))
    made: dict[str, dict[str, Any]] = plan["certificates"]
    return made


@pytest.mark.parametrize("source", SOURCES)
def test_every_edge_has_tls(source: str) -> None:
    """Services listen with a certificate, and whoever calls them checks it against the authority."""
    found = rendered(source)
    gateway, records, auth, operator = (settings(found, name) for name in ("gateway", "records", "auth", "operator"))
    urls = [gateway[f"GATEWAY_{name}_URL"] for name in ("AUTH", "JWKS", "RECORDS")]
    assert {urlsplit(url).scheme for url in (*urls, records["RECORDS_JWKS_URL"])} == {"https"}
    assert {"GATEWAY_UPSTREAM_CA_FILE", "GATEWAY_MODELS_CA_FILE"} <= gateway.keys()
    assert {"RECORDS_UPSTREAM_CA_FILE", "RECORDS_TLS_CERT_FILE", "RECORDS_TLS_KEY_FILE"} <= records.keys()
    assert {"AUTH_TLS_CERT_FILE", "AUTH_TLS_KEY_FILE"} <= auth.keys()
    assert operator["OPERATOR_MODEL_TLS_SECRET"] == ("my-models" if source == "existing" else "hg-models-tls")
    for name in ("auth", "records"):
        probe = dict(containers(found))[f"Deployment/hg-{name}/{name}"]["readinessProbe"]
        assert probe["httpGet"]["scheme"] == "HTTPS"


def test_both_ends_agree_on_the_names() -> None:
    """Who is called by a name has it in the certificate; so have those who are known by one."""
    found = rendered()
    gateway, records, operator = (settings(found, name) for name in ("gateway", "records", "operator"))
    names = {holder: set(wanted["names"]) for holder, wanted in certificates(found).items()}
    assert urlsplit(gateway["GATEWAY_AUTH_URL"]).hostname in names["hg-auth-tls"]
    assert urlsplit(records["RECORDS_JWKS_URL"]).hostname in names["hg-auth-tls"]
    assert urlsplit(gateway["GATEWAY_RECORDS_URL"]).hostname in names["hg-records-tls"]
    assert records["RECORDS_GATEWAY_NAME"] in names["hg-gateway-tls"]
    assert names["hg-models-tls"] == {gateway["GATEWAY_MODELS_SERVER_NAME"]} == {operator["OPERATOR_MODEL_TLS_NAME"]}
    assert "hg-postgresql" in names["hg-postgresql-tls"]


def test_no_two_hold_the_same_name() -> None:
    """A stolen key speaks for its holder alone."""
    names = [name for wanted in certificates(rendered()).values() for name in wanted["names"]]
    assert len(names) == len(set(names))
    assert not [name for name in names if "*" in name]


def test_only_callers_have_certificates_of_clients() -> None:
    """Auth's, records' and PostgreSQL's cannot be shown to records as a gateway's."""
    assert {name for name, wanted in certificates(rendered()).items() if wanted["client"]} == CLIENTS
    made = of_kind(rendered("cert-manager"), "Certificate")
    assert made.keys() == {f"hg-{holder}-tls" for holder in HOLDERS}
    assert {name for name, one in made.items() if "client auth" in one["spec"]["usages"]} == CLIENTS
    hooks = certificates(rendered())
    assert {name: one["spec"]["dnsNames"] for name, one in made.items()} == {
        name: wanted["names"] for name, wanted in hooks.items()
    }


@pytest.mark.parametrize("source", SOURCES)
def test_each_key_is_where_it_belongs(source: str) -> None:
    """A pod sees its own key; of others' Secrets the authority or the certificate at most."""
    own = {"my-" if source == "existing" else "hg-"}
    prefix, suffix = own.pop(), "" if source == "existing" else "-tls"
    for name, spec in pod_specs(rendered(source, door=True)):
        for volume in spec.get("volumes", ()):
            secret = volume.get("secret")
            if secret is None:
                continue
            holder = secret["secretName"].removeprefix(prefix).removesuffix(suffix)
            whole = "items" not in secret
            assert whole == (name.partition("/")[2] == f"hg-{holder}"), f"{name}: {volume['name']}"
            if whole:
                assert secret["defaultMode"] == 0o440
            else:
                assert {item["key"] for item in secret["items"]} <= {"ca.crt", "tls.crt"}


def test_records_asks_its_clients_who_they_are() -> None:
    """And the gateway has what to answer."""
    found = rendered()
    assert {"RECORDS_TLS_CLIENT_CA_FILE", "RECORDS_GATEWAY_NAME"} <= settings(found, "records").keys()
    assert {"GATEWAY_UPSTREAM_CERT_FILE", "GATEWAY_MODELS_CERT_FILE"} <= settings(found, "gateway").keys()


def test_postgresql_lets_in_nobody_without_tls() -> None:
    """Its clients check its name; its own list of who may connect has no plain line but the pod's own socket."""
    found = rendered()
    lines = of_kind(found, "ConfigMap")["hg-postgresql"]["data"]["pg_hba.conf"].split("\n")
    assert [line.split()[0] for line in lines if line] == ["local", "hostssl"]
    command = dict(containers(found))["StatefulSet/hg-postgresql/postgresql"]["args"][0]
    assert "-c ssl=on" in command
    assert "-c hba_file=/etc/healthguard/access/pg_hba.conf" in command
    for name in ("auth", "records"):
        for container in (f"Deployment/hg-{name}/{name}", f"Deployment/hg-{name}/migrate"):
            one = dict(containers(found))[container]
            values = {variable["name"]: variable.get("value") for variable in one["env"]}
            assert values["PGSSLMODE"] == "verify-full"
            folder = values["PGSSLROOTCERT"].rpartition("/")[0]
            assert folder in {mount["mountPath"] for mount in one["volumeMounts"]}


def test_postgresql_can_be_left_plain() -> None:
    """Where its image is built without SSL; the rest is as before."""
    found = rendered(postgresql=False)
    assert "PGSSLMODE" not in str(found)
    assert "hg-postgresql" not in of_kind(found, "ConfigMap")
    assert certificates(found).keys() == {f"hg-{holder}-tls" for holder in HOLDERS if holder != "postgresql"}


def test_the_door_can_have_tls_too() -> None:
    """The gateway listens with its certificate, the kubelet and `helm test` follow, and controllers are told."""
    found = rendered(door=True)
    assert {"GATEWAY_TLS_CERT_FILE", "GATEWAY_TLS_KEY_FILE"} <= settings(found, "gateway").keys()
    probe = dict(containers(found))["Deployment/hg-gateway/gateway"]["livenessProbe"]
    assert probe["httpGet"]["scheme"] == "HTTPS"
    assert of_kind(found, "Service")["hg-gateway"]["spec"]["ports"][0]["appProtocol"] == "https"
    trial = dict(containers(found))["Pod/hg-test/test"]
    assert "--url=https://hg-gateway:80" in trial["args"]
    assert any(argument.startswith("--ca-file=") for argument in trial["args"])
    assert "GATEWAY_TLS_CERT_FILE" not in settings(rendered(), "gateway")


def test_without_tls_nothing_of_it_is_rendered() -> None:
    """No half of it."""
    text = json.dumps([one for one in template() if one["kind"] != "CustomResourceDefinition"])
    text = re.sub(r'"servedmodels\.serving\.healthguard\.io\.yaml": "(\\.|[^"\\])*"', "", text)
    assert not re.search(r"-tls|TLS|https|ssl", text)


@pytest.mark.parametrize(
    ("values", "name"),
    [
        ({"door": True}, "internalTLS.door"),
        ({"enabled": True, "source": "cert-manager"}, "internalTLS.certManager.issuerRef.name"),
        *(
            ({"enabled": True, "source": "existing", "existing": {one: f"my-{one}" for one in HOLDERS if one != left}},
             f"internalTLS.existing.{left}")
            for left in HOLDERS
        ),
    ],
)  # fmt: skip
def test_half_of_it_is_refused_by_name(values: Values, name: str) -> None:
    """Before anything is installed."""
    with pytest.raises(Refused, match=re.escape(name)):
        template({"internalTLS": values})
