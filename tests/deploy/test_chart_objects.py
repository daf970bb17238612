"""What the chart renders, for every profile: safe pods, images through one door, no secret, least rights."""

import re

import pytest
import yaml

from tests.deploy.charts import (
    CHART,
    CRDS_CHART,
    NAMESPACE,
    PROFILES,
    ROOT,
    Refused,
    Values,
    containers,
    lint,
    merged,
    notes,
    of_kind,
    pod_specs,
    template,
    text,
)

EVERYTHING = {
    "operator": {"clusterWide": True},
    "ingress": {"enabled": True, "grpc": {"enabled": True}},
    "httpRoute": {"enabled": True, "parentRefs": [{"name": "door"}], "hostnames": ["healthguard.example"]},
    "grpcRoute": {"enabled": True, "parentRefs": [{"name": "door"}], "hostnames": ["grpc.healthguard.example"]},
    "internalTLS": {"enabled": True},
    "priorityClasses": {"create": True},
    "autoscaling": {"provider": "builtin"},
    "gateway": {"autoscaling": {"enabled": True}, "settings": {"grpc_port": 8005}},
}
"""Values that turn on what the profiles leave off."""

ROUTE = {"enabled": True, "parentRefs": [{"name": "door"}]}
NO_TLS = {"enabled": False}

RENDERINGS = [pytest.param((profile,), id=profile) for profile in PROFILES] + [pytest.param((), id="defaults")]
CLUSTER_KINDS = {"ClusterRole", "ClusterRoleBinding", "PriorityClass", "CustomResourceDefinition", "APIService"}


@pytest.mark.parametrize("profiles", RENDERINGS)
def test_chart_lints_and_renders(profiles: tuple[str, ...]) -> None:
    """Helm finds nothing to complain about, and every object has a name of its own in the release's namespace."""
    lint(CHART, *profiles)
    found = template({}, *profiles)
    names = [(one["kind"], one["metadata"]["name"]) for one in found]
    assert len(names) == len(set(names))
    assert {one["metadata"].get("namespace") for one in found if one["kind"] not in CLUSTER_KINDS} == {NAMESPACE}


def test_crds_chart_lints_and_renders_what_the_operator_generates() -> None:
    """Both charts carry the definition of k8s/crd, to the byte."""
    lint(CRDS_CHART)
    crd = (ROOT / "k8s" / "crd" / "servedmodels.yaml").read_bytes()
    assert (CHART / "crds" / "servedmodels.yaml").read_bytes() == crd
    assert (CRDS_CHART / "files" / "servedmodels.yaml").read_bytes() == crd
    rendered = template(chart=CRDS_CHART)[0]
    assert rendered["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"
    assert rendered["spec"] == yaml.safe_load(crd)["spec"]


@pytest.mark.parametrize("profiles", RENDERINGS)
def test_every_pod_passes_pod_security_restricted(profiles: tuple[str, ...]) -> None:
    """Hooks and tests too: not root, no privilege to gain, no capability, the runtime's seccomp profile."""
    for name, spec in pod_specs(template(EVERYTHING, *profiles)):
        security = spec["securityContext"]
        assert security["runAsNonRoot"] is True, name
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert not {"hostNetwork", "hostPID", "hostIPC"} & spec.keys(), name
        assert not [volume for volume in spec.get("volumes", ()) if "hostPath" in volume], name
    for name, container in containers(template(EVERYTHING, *profiles)):
        security = container["securityContext"]
        assert security["allowPrivilegeEscalation"] is False, name
        assert security["readOnlyRootFilesystem"] is True, name
        assert security["capabilities"] == {"drop": ["ALL"]}, name


def test_only_who_speaks_to_the_api_server_has_a_token() -> None:
    """The operator, a gateway that looks for its models there, and the Jobs that have an account."""
    with_token = {name for name, spec in pod_specs(template(EVERYTHING)) if spec["automountServiceAccountToken"]}
    speaking = {"Deployment/hg-operator", "Job/hg-secrets", "Job/hg-crds", "Job/hg-leave"}
    assert with_token == speaking | {"Deployment/hg-gateway"}
    by_file = template(merged(EVERYTHING, {"gateway": {"discovery": "file"}}))
    assert {name for name, spec in pod_specs(by_file) if spec["automountServiceAccountToken"]} == speaking


@pytest.mark.parametrize("profiles", RENDERINGS)
def test_every_container_has_requests_and_a_memory_limit(profiles: tuple[str, ...]) -> None:
    """The scheduler knows what a container needs, and no container takes a node's memory."""
    for name, container in containers(template({}, *profiles)):
        resources = container["resources"]
        assert {"cpu", "memory"} <= resources["requests"].keys(), name
        assert "memory" in resources["limits"], name


def test_every_image_goes_through_the_helper() -> None:
    """With a mirror set, no reference names another registry: containers', and those the operator hands on."""
    values = {"global": {"imageRegistry": "mirror.example:5000"}}
    for name, container in containers(template(values)):
        assert container["image"].startswith("mirror.example:5000/"), name
    operator = of_kind(template(values), "ConfigMap")["hg-operator"]["data"]
    handed_on = {key: value for key, value in operator.items() if key.endswith("_IMAGE")}
    assert len(handed_on) == 4
    assert all(value.startswith("mirror.example:5000/") for value in handed_on.values())


def test_a_digest_wins_over_a_tag() -> None:
    """What was tested by its digest is what runs."""
    digest = f"sha256:{'ab' * 32}"
    values = {"images": {"gateway": {"registry": "r.example", "tag": "1", "digest": digest}}}
    images = dict(containers(template(values)))
    assert images["Deployment/hg-gateway/gateway"]["image"] == f"r.example/healthguard/gateway@{digest}"


def test_pull_secrets_reach_every_pod_and_the_operator() -> None:
    """Hooks pull before anything else does, and model pods pull too."""
    values = {"global": {"imagePullSecrets": [{"name": "one"}]}, "images": {"pullSecrets": ["two"]}}
    for name, spec in pod_specs(template(values)):
        assert spec["imagePullSecrets"] == [{"name": "one"}, {"name": "two"}], name
    operator = of_kind(template(values), "ConfigMap")["hg-operator"]["data"]
    assert operator["OPERATOR_IMAGE_PULL_SECRETS"] == '["one","two"]'


@pytest.mark.parametrize("profiles", RENDERINGS)
def test_nothing_secret_is_rendered(profiles: tuple[str, ...]) -> None:
    """No Secret object, no password, no key: Helm stores what it renders, and GitOps tools show it."""
    found = template(EVERYTHING, *profiles)
    assert of_kind(found, "Secret") == {}
    for name, container in containers(found):
        for variable in container.get("env", ()):
            plain = "value" in variable and variable["name"] != "HEALTHGUARD_PLAN"
            assert not (plain and re.search("SECRET|PASSWORD|KEY|DSN", variable["name"])), f"{name}: {variable['name']}"
    rendered = text(EVERYTHING, *profiles)
    assert not re.search(r"-----BEGIN(?! PUBLIC KEY)|postgres(ql)?(\+asyncpg)?://[^:\s]+:[^$\s]", rendered)


def test_rendering_twice_gives_the_same() -> None:
    """Nothing random: a GitOps tool would see a change at every look."""
    first = text(EVERYTHING)
    from tests.deploy import charts

    charts._rendered.cache_clear()
    assert text(EVERYTHING) == first


@pytest.mark.parametrize("profiles", RENDERINGS)
def test_no_rule_has_a_wildcard(profiles: tuple[str, ...]) -> None:
    """Every right is named."""
    found = template(EVERYTHING, *profiles)
    roles = of_kind(found, "Role") | of_kind(found, "ClusterRole")
    assert roles
    for name, role in roles.items():
        for rule in role["rules"]:
            assert not [part for part in (*rule["apiGroups"], *rule["resources"], *rule["verbs"]) if "*" in part], name


def test_every_rule_says_what_it_is_for() -> None:
    """A comment before each rule names its need."""
    for path in (CHART / "templates").glob("*.yaml"):
        lines = path.read_text().splitlines()
        for before, line in zip(["", *lines], lines, strict=False):
            if "apiGroups:" in line:
                assert before.strip().startswith("#"), f"{path.name}: {line}"


@pytest.mark.parametrize(("wide", "kind"), [(False, "Role"), (True, "ClusterRole")])
def test_operator_has_the_rights_that_it_says_it_needs(wide: bool, kind: str) -> None:
    """k8s/operator/rbac.yaml is written by the operator; the chart grants exactly that."""
    needed = yaml.safe_load((ROOT / "k8s" / "operator" / "rbac.yaml").read_text())["rules"]
    roles = of_kind(template({"operator": {"clusterWide": wide}}), kind)
    assert roles["clinic-hg-operator" if wide else "hg-operator"]["rules"] == needed


def test_operator_sees_devices_only_where_it_is_let() -> None:
    """Nodes, and pods of the whole cluster, are more than a namespace's operator needs: a person says so."""
    from serving.operator import rbac

    name = "clinic-hg-operator-devices"
    granted = of_kind(template({"operator": {"seeDevices": True}}), "ClusterRole")[name]["rules"]
    assert granted == [rule.manifest for rule in rbac.DEVICES]
    assert name not in of_kind(template({}), "ClusterRole")


def test_replicas_are_never_rendered_beside_an_autoscaler() -> None:
    """An upgrade would undo what the autoscaler has decided, or fail on the conflict."""
    scaled = {service: {"autoscaling": {"enabled": True}} for service in ("gateway", "auth", "records")}
    found = template(scaled)
    deployments = of_kind(found, "Deployment")
    assert of_kind(found, "HorizontalPodAutoscaler").keys() == {"hg-gateway", "hg-auth", "hg-records"}
    assert not [name for name in ("hg-gateway", "hg-auth", "hg-records") if "replicas" in deployments[name]["spec"]]
    assert all(found["spec"]["replicas"] == 1 for found in of_kind(template(), "Deployment").values())


def test_disruption_budgets_let_broken_pods_go() -> None:
    """A pod that never becomes ready must not keep its node from being emptied."""
    budgets = of_kind(template(), "PodDisruptionBudget")
    assert budgets.keys() == {"hg-gateway", "hg-auth", "hg-records"}
    assert {found["spec"]["unhealthyPodEvictionPolicy"] for found in budgets.values()} == {"AlwaysAllow"}


def test_probes_mean_what_they_say() -> None:
    """Readiness asks whether the pod takes requests; nothing asks for the models, whose bad day is not the pod's."""
    for name in ("gateway", "auth", "records", "operator"):
        container = of_kind(template(), "Deployment")[f"hg-{name}"]["spec"]["template"]["spec"]["containers"][0]
        paths = {
            probe: container[probe]["httpGet"]["path"] for probe in ("startupProbe", "readinessProbe", "livenessProbe")
        }
        assert paths == {"startupProbe": "/livez", "readinessProbe": "/readyz", "livenessProbe": "/livez"}


def test_pods_outlive_what_is_in_flight() -> None:
    """The kubelet's patience is longer than the wait before the signal and the time to finish."""
    spec = of_kind(template({"gateway": {"settings": {"shutdown_s": 45}}}), "Deployment")["hg-gateway"]["spec"]
    pod = spec["template"]["spec"]
    wait = pod["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert pod["terminationGracePeriodSeconds"] >= wait + 45


def test_changed_settings_mean_new_pods() -> None:
    """A service reads its settings once, so the pod's template carries their digest."""

    def checksum(values: dict[str, object]) -> str:
        pod = of_kind(template(values), "Deployment")["hg-gateway"]["spec"]["template"]
        return str(pod["metadata"]["annotations"]["checksum/settings"])

    assert checksum({}) != checksum({"gateway": {"settings": {"log_level": "DEBUG"}}})


def test_models_are_those_of_the_repository() -> None:
    """Versions and digests are those of the manifests; the gateway's list is that of the ServedModels."""
    found = of_kind(template(), "ServedModel")
    for model, served in found.items():
        manifest = yaml.safe_load((ROOT / "models" / model / "servedmodel.yaml").read_text())
        assert served["spec"]["versions"] == manifest["spec"]["versions"]
        assert served["spec"]["traffic"] == manifest["spec"]["traffic"]
    by_file = template({"gateway": {"discovery": "file"}})
    listed = yaml.safe_load(of_kind(by_file, "ConfigMap")["hg-gateway-models"]["data"]["models.json"])["models"]
    assert {one["name"]: one["stable"] for one in listed} == {
        name: one["spec"]["traffic"]["stable"] for name, one in found.items()
    }


def test_gateway_asks_where_the_operator_serves() -> None:
    """The chart and the operator agree on the name of a version's Service and its port."""
    from serving.operator.manifests import Owner, endpoint

    by_file = template({"gateway": {"discovery": "file"}})
    listed = yaml.safe_load(of_kind(by_file, "ConfigMap")["hg-gateway-models"]["data"]["models.json"])["models"]
    expected = {one["name"]: [endpoint(Owner(one["name"], NAMESPACE, "uid"), one["stable"])] for one in listed}
    assert {one["name"]: one["endpoints"] for one in listed} == expected


@pytest.mark.parametrize("switch", [{}, {"enabled": True}], ids=["not said", "on"])
def test_a_third_model_is_one_entry_more(switch: Values) -> None:
    """It becomes a ServedModel and a line in the gateway's list; only one that says so is off."""
    version = {"version": 7, "storageUri": "https://models.example/skin/7", "digest": f"sha256:{'0' * 64}"}
    model = switch | {"spec": {"versions": [version], "traffic": {"stable": 7}}}
    off = {"enabled": False, "spec": model["spec"]}
    assert "skin" not in of_kind(template({"models": {"skin": off}}), "ServedModel")
    found = template({"models": {"skin": model}, "gateway": {"discovery": "file"}})
    tried = dict(containers(found))["Pod/hg-test/test"]["args"]
    assert {"--model=cancer@2", "--model=anemia@2", "--model=skin@7"} <= set(tried)
    assert of_kind(found, "ServedModel")["skin"]["spec"] == model["spec"]
    assert '"name":"skin"' in of_kind(found, "ConfigMap")["hg-gateway-models"]["data"]["models.json"]


def test_migrations_come_before_everything_that_needs_them() -> None:
    """With a database of one's own, as hooks; with one that comes with the release, before each pod's service."""
    external = {"database": {"mode": "external"}} | {
        service: {"database": {"existingSecret": "s"}} for service in ("auth", "records")
    }
    jobs = of_kind(template(external), "Job")
    for service in ("auth", "records"):
        hook = jobs[f"hg-{service}-migration"]["metadata"]["annotations"]
        assert hook["helm.sh/hook"] == "pre-install,pre-upgrade"
        assert (
            "initContainers"
            not in of_kind(template(external), "Deployment")[f"hg-{service}"]["spec"]["template"]["spec"]
        )
        pod = of_kind(template(), "Deployment")[f"hg-{service}"]["spec"]["template"]["spec"]
        assert pod["initContainers"][0]["command"] == ["healthguard", service, "migrate"]
    secrets = jobs["hg-secrets"]["metadata"]["annotations"]
    assert int(secrets["helm.sh/hook-weight"]) < int(hook["helm.sh/hook-weight"])


def test_hooks_leave_nothing_behind() -> None:
    """What a hook made goes when it has done its work; Helm would not remove it at uninstall."""
    for found in template(EVERYTHING):
        annotations = found["metadata"].get("annotations", {})
        if "helm.sh/hook" in annotations:
            policy = annotations["helm.sh/hook-delete-policy"].split(",")
            assert set(policy) == {"before-hook-creation", "hook-succeeded"}, found["metadata"]["name"]


def test_the_end_of_an_installation_names_what_is_open() -> None:
    """What a person must know and the schema cannot refuse: the notes say it, with the value that changes it."""
    assert "networkPolicies.apiServer.cidrs" in notes()
    assert "networkPolicies.apiServer.cidrs" not in notes(
        {"networkPolicies": {"apiServer": {"cidrs": ["192.0.2.1/32"]}}}
    )
    assert "approved for patients" in notes({}, "production")
    assert "approved for patients" not in notes({"demonstrationModels": {"enabled": False}}, "production")
    wide = {"operator": {"clusterWide": True}, "internalTLS": {"enabled": True}}
    assert "hg-models-tls" in notes(wide)
    assert "hg-models-tls" not in notes({"internalTLS": {"enabled": True}})


@pytest.mark.parametrize(
    ("way", "nothing_leads_here", "in_the_open"),
    [
        pytest.param({}, True, False, id="no door"),
        pytest.param({"ingress": {"enabled": True}}, False, False, id="an Ingress with TLS"),
        pytest.param({"ingress": {"enabled": True, "tls": NO_TLS}}, False, True, id="an Ingress without"),
        pytest.param({"httpRoute": ROUTE}, False, False, id="a route"),
        pytest.param({"ingress": {"grpc": {"enabled": True}}}, False, False, id="an Ingress for gRPC alone"),
        pytest.param({"ingress": {"grpc": {"enabled": True}, "tls": NO_TLS}}, False, True, id="that without TLS"),
        pytest.param({"grpcRoute": ROUTE}, False, False, id="a route for gRPC alone"),
        pytest.param(
            {"httpRoute": ROUTE, "ingress": {"grpc": {"enabled": True}, "tls": NO_TLS}}, False, True, id="one of two"
        ),
    ],
)
def test_notes_count_the_door_for_grpc(way: Values, *, nothing_leads_here: bool, in_the_open: bool) -> None:
    """Whoever reads that nothing leads here, or of no open door, closes none."""
    said = notes({"gateway": {"settings": {"grpc_port": 8005}}} | way)
    assert ("Nothing leads here" in said) == nothing_leads_here
    assert ("The door has no TLS" in said) == in_the_open


def test_notes_say_where_grpc_is_reached() -> None:
    """By the Ingress' host, or at the Gateway of the route."""
    port = {"gateway": {"settings": {"grpc_port": 8005}}}
    assert "over gRPC: grpc.example\n" in notes(port | {"ingress": {"grpc": {"enabled": True, "host": "grpc.example"}}})
    assert "the GRPCRoute hg-gateway-grpc joins" in notes(port | {"grpcRoute": ROUTE})
    assert "over gRPC" not in notes(port)


def test_extra_objects_are_templates() -> None:
    """As text and as YAML."""
    one = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "{{ .Release.Name }}-one", "namespace": "x"}}
    other = 'apiVersion: v1\nkind: ConfigMap\nmetadata: {name: "{{ .Release.Name }}-two"}\n'
    assert {"hg-one", "hg-two"} <= of_kind(template({"extraObjects": [one, other]}), "ConfigMap").keys()


def _same_host(hosts: list[str]) -> Values:
    """Return values by which both routes join one Gateway, and claim a host of the other's."""
    route = {"enabled": True, "parentRefs": [{"name": "door"}]}
    return {
        "gateway": {"settings": {"grpc_port": 8005}},
        "httpRoute": route | {"hostnames": ["a.example"]},
        "grpcRoute": route | {"hostnames": hosts},
    }


def test_a_value_that_the_schema_cannot_judge_is_refused_by_name() -> None:
    """The message begins with what to set."""
    cases: tuple[tuple[Values, str], ...] = (
        ({"database": {"mode": "external"}}, "auth.database.existingSecret"),
        ({"gateway": {"existingSecret": "x"}}, "records.existingSecret"),
        ({"secrets": {"create": False}}, "existingSecret"),
        ({"httpRoute": {"enabled": True}}, "httpRoute.parentRefs"),
        ({"grpcRoute": {"enabled": True}}, "grpcRoute.parentRefs"),
        ({"grpcRoute": {"enabled": True, "parentRefs": [{"name": "door"}]}}, "gateway.settings.grpc_port"),
        ({"ingress": {"grpc": {"enabled": True}}}, "gateway.settings.grpc_port"),
        *((_same_host(hosts), "grpcRoute.hostnames") for hosts in (["a.example"], [])),
        ({"models": {"cancer": {"spec": {"traffic": {"stable": 9}}}}}, "models.cancer.spec.traffic.stable"),
    )
    for values, name in cases:
        with pytest.raises(Refused, match=re.escape(name)):
            template(values)


def test_gateway_may_read_what_it_looks_for_and_no_more() -> None:
    """Models and their addresses, in its own namespace; by a file it has no right at all."""
    rules = of_kind(template(), "Role")["hg-gateway"]["rules"]
    assert {(tuple(rule["resources"]), tuple(rule["verbs"])) for rule in rules} == {
        (("servedmodels",), ("list", "watch")),
        (("endpointslices",), ("list", "watch")),
    }
    by_file = template({"gateway": {"discovery": "file"}})
    assert "hg-gateway" not in of_kind(by_file, "Role")
    assert "hg-gateway-models" not in of_kind(template(), "ConfigMap")


def test_pods_of_one_kind_stand_apart() -> None:
    """On different nodes and zones where there are such; where there are none they run all the same."""
    for name in ("gateway", "auth", "records"):
        pod = of_kind(template(), "Deployment")[f"hg-{name}"]["spec"]["template"]
        for one in pod["spec"]["topologySpreadConstraints"]:
            assert one["whenUnsatisfiable"] == "ScheduleAnyway"
            assert one["labelSelector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()
        keys = {one["topologyKey"] for one in pod["spec"]["topologySpreadConstraints"]}
        assert keys == {"topology.kubernetes.io/zone", "kubernetes.io/hostname"}


def test_autoscalers_follow_their_deployment() -> None:
    """Up at once and down slowly, between the numbers that were given, by what the pods request."""
    scaled = {"gateway": {"autoscaling": {"enabled": True, "minReplicas": 3, "maxReplicas": 9}}}
    (found,) = of_kind(template(scaled), "HorizontalPodAutoscaler").values()
    spec = found["spec"]
    assert spec["scaleTargetRef"] == {"apiVersion": "apps/v1", "kind": "Deployment", "name": "hg-gateway"}
    assert (spec["minReplicas"], spec["maxReplicas"]) == (3, 9)
    behavior = spec["behavior"]
    windows = {way: behavior[way]["stabilizationWindowSeconds"] for way in ("scaleUp", "scaleDown")}
    assert windows["scaleUp"] == 0 < windows["scaleDown"]
    pod = of_kind(template(scaled), "Deployment")["hg-gateway"]["spec"]["template"]["spec"]
    assert "cpu" in pod["containers"][0]["resources"]["requests"]


def test_serving_comes_before_other_things() -> None:
    """With a class of the chart's own, unless a component names another; the operator can wait."""
    found = template({"priorityClasses": {"create": True}, "auth": {"priorityClassName": "mine"}})
    assert of_kind(found, "PriorityClass")["clinic-hg-serving"]["value"] > 0
    classes = {
        name: one["spec"]["template"]["spec"].get("priorityClassName")
        for name, one in of_kind(found, "Deployment").items()
    }
    assert classes == {
        "hg-gateway": "clinic-hg-serving",
        "hg-auth": "mine",
        "hg-records": "clinic-hg-serving",
        "hg-operator": None,
    }
    assert of_kind(template(), "PriorityClass") == {}


@pytest.mark.parametrize(
    "values",
    [
        {"hooks": {"resources": {"limits": {"memory": "1Gi"}}}},
        {"images": {"models": {"tag": "next"}}},
        {"commonLabels": {"team": "radiology"}},
        {"demonstrationModels": {"claimName": "elsewhere"}},
    ],
    ids=["resources", "image", "labels", "claim"],
)
def test_a_changed_job_is_another_job(values: dict[str, object]) -> None:
    """The API server refuses a changed template of a Job that is there, and the upgrade with it."""

    def job(values: dict[str, object] | None) -> tuple[str, object]:
        found = of_kind(template(values), "Job")
        (name,) = [name for name in found if name.startswith("hg-models-")]
        return name, found[name]["spec"]["template"]

    (name, pod), (other_name, other_pod) = job(None), job(values)
    assert pod != other_pod
    assert name != other_name
