"""Where the databases are: one of the release, one of the reader's own, or CloudNativePG's."""

import json
from typing import Any

import pytest

from tests.deploy.charts import Manifest, Values, containers, of_kind, pod_specs, template, upgraded

EXTERNAL: Values = {"database": {"mode": "external"}} | {
    service: {"database": {"existingSecret": f"{service}-address", "key": "uri"}} for service in ("auth", "records")
}
CNPG: Values = {"database": {"mode": "cloudnativepg"}}

Fields = dict[str, Any]
CLUSTER: Fields = {
    "instances": int,
    "postgresql": {"synchronous": {"method": str, "number": int}},
    "storage": {"size": str, "storageClass": str},
    "resources": dict,
    "bootstrap": {"initdb": {"database": str, "owner": str, "secret": {"name": str}}},
    "managed": {"roles": [{"name": str, "ensure": str, "login": bool, "passwordSecret": {"name": str}}]},
}
"""What we use of a Cluster of postgresql.cnpg.io/v1, and of what type it is there, in our own words: no registry that
we reach has the project's definitions. So a field that CloudNativePG renames is found by its users, not here."""
DATABASE: Fields = {"name": str, "owner": str, "cluster": {"name": str}}


def misfits(found: Any, wanted: Any, path: str = "spec") -> list[str]:
    """Return where *found* has what *wanted* does not know, or of another type."""
    if isinstance(wanted, dict):
        unknown = [f"{path}.{key}" for key in found.keys() - wanted.keys()]
        known = found.keys() & wanted.keys()
        return unknown + [each for key in known for each in misfits(found[key], wanted[key], f"{path}.{key}")]
    if isinstance(wanted, list):
        return [each for index, one in enumerate(found) for each in misfits(one, wanted[0], f"{path}[{index}]")]
    return [] if isinstance(found, wanted) else [path]


def plan(found: list[Manifest]) -> dict[str, Any]:
    """Return what the hook is to make."""
    environment = dict(containers(found))["Job/hg-secrets/secrets"]["env"]
    read: dict[str, Any] = json.loads(next(one["value"] for one in environment if one["name"] == "HEALTHGUARD_PLAN"))
    return read


def test_cloudnativepg_gets_what_it_knows() -> None:
    """Each field is one of its own, of its type."""
    found = template(CNPG | {"database": {"mode": "cloudnativepg", "storage": {"className": "fast"}}})
    assert misfits(of_kind(found, "Cluster")["hg-postgresql"]["spec"], CLUSTER) == []
    assert misfits(of_kind(found, "Database")["hg-postgresql-records"]["spec"], DATABASE) == []


def test_a_field_that_cloudnativepg_does_not_know_is_found() -> None:
    """The mutant of the test above."""
    found = misfits({"instances": "3", "bootstrap": {"initDB": {}}}, CLUSTER)
    assert sorted(found) == ["spec.bootstrap.initDB", "spec.instances"]


def test_cloudnativepg_has_two_roles_with_secrets_that_exist() -> None:
    """Each service its own database and role; every Secret that is named, the hook makes, in the form it must have."""
    found = template(CNPG)
    cluster = of_kind(found, "Cluster")["hg-postgresql"]["spec"]
    (role,) = cluster["managed"]["roles"]
    named = {cluster["bootstrap"]["initdb"]["secret"]["name"], role["passwordSecret"]["name"]}
    secrets = plan(found)["secrets"]
    for name in named:
        assert secrets[name]["type"] == "kubernetes.io/basic-auth"
        assert secrets[name]["data"].keys() == {"username", "password"}
    assert cluster["postgresql"]["synchronous"]["number"] < cluster["instances"]
    assert of_kind(found, "StatefulSet") == {}


def test_cloudnativepg_is_known_by_its_own_authority() -> None:
    """Its certificates are its operator's: name and chain are checked whether the rest has TLS or not."""
    found = template(CNPG)
    for service in ("auth", "records"):
        assert plan(found)["secrets"][f"hg-{service}-database"]["data"]["dsn"].endswith("?sslmode=verify-full")
        deployment = of_kind(found, "Deployment")[f"hg-{service}"]["spec"]["template"]["spec"]
        (volume,) = [one for one in deployment["volumes"] if one["name"] == "database-authority"]
        assert volume["secret"] == {"secretName": "hg-postgresql-ca", "items": [{"key": "ca.crt", "path": "ca.crt"}]}


def test_data_of_cloudnativepg_outlives_the_release() -> None:
    """An uninstall leaves Cluster and Database, as it leaves the claim of the evaluation's."""
    for kind in ("Cluster", "Database"):
        for one in of_kind(template(CNPG), kind).values():
            assert one["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"


@pytest.mark.parametrize(("service", "variable"), [("auth", "AUTH_DSN"), ("records", "RECORDS_DSN")])
def test_a_database_of_ones_own_is_named_by_its_secret(service: str, variable: str) -> None:
    """Service and migration read the same address; nothing is added to what it says, and no database is installed."""
    found = template(EXTERNAL)
    wanted = {"secretKeyRef": {"name": f"{service}-address", "key": "uri"}}
    for container in (f"Deployment/hg-{service}/{service}", f"Job/hg-{service}-migration/migrate"):
        values = {one["name"]: one for one in dict(containers(found))[container]["env"]}
        assert values[variable]["valueFrom"] == wanted
        assert not {"PGSSLMODE", "PGSSLROOTCERT"} & values.keys()
    assert of_kind(found, "StatefulSet") == of_kind(found, "Cluster") == {}
    assert "hg-postgresql" not in json.dumps(plan(found))


def test_a_database_of_ones_own_is_checked_by_ones_own_authority() -> None:
    """Service and migration find it where the driver is told to look; what is asked for, the address says."""
    authority = {"authority": {"existingSecret": "corporate", "key": "bundle.pem"}}
    found = template(EXTERNAL | {"database": {"mode": "external", "external": authority}})
    pods = dict(pod_specs(found))
    for service in ("auth", "records"):
        for pod, container in ((f"Deployment/hg-{service}", service), (f"Job/hg-{service}-migration", "migrate")):
            (volume,) = [one for one in pods[pod]["volumes"] if one["name"] == "database-authority"]
            assert volume["secret"] == {
                "secretName": "corporate",
                "items": [{"key": "bundle.pem", "path": "ca.crt"}],
            }
            one = dict(containers(found))[f"{pod}/{container}"]
            assert {"name": "PGSSLROOTCERT", "value": "/etc/healthguard/database/ca.crt"} in one["env"]
            assert "PGSSLMODE" not in {variable["name"] for variable in one["env"]}
            assert "/etc/healthguard/database" in {mount["mountPath"] for mount in one["volumeMounts"]}


def test_a_production_checks_who_its_database_is() -> None:
    """An address that says no sslmode would be content with any server; one that says it is heeded before this."""
    found = dict(containers(template({}, "production")))
    for container in ("Deployment/hg-auth/auth", "Job/hg-records-migration/migrate"):
        assert {"name": "PGSSLMODE", "value": "verify-full"} in found[container]["env"]


def test_keys_of_data_are_not_made_anew() -> None:
    """Where the data's claim is there; and where it is elsewhere, or the claim's number has moved on, at an upgrade."""
    keys = ["hg-auth", "hg-records"]
    own = ["hg-postgresql-auth", "hg-postgresql-records", *keys]
    assert plan(template())["claims"] == {"data-hg-postgresql-0": ["hg-postgresql", *keys]}
    assert plan(template(CNPG))["claims"] == {f"hg-postgresql-{number}": own for number in (1, 2, 3)}
    for elsewhere in (CNPG, EXTERNAL):
        assert plan(upgraded(elsewhere))["made_before"] == keys
    assert not {"claims", "made_before"} & plan(template(EXTERNAL)).keys()
    (rule,) = [
        rule
        for rule in of_kind(template(CNPG), "Role")["hg-secrets"]["rules"]
        if rule["resources"] == ["persistentvolumeclaims"]
    ]
    assert rule["resourceNames"] == ["hg-postgresql-1", "hg-postgresql-2", "hg-postgresql-3"]
