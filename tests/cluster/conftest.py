"""Fixtures of the suite that runs on a real Kubernetes node: one cluster a session, one namespace a test."""

import json
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.cluster import images, operator_pod, postgresql, tools
from tests.cluster.cluster import PEOPLE, Cluster, start
from tests.cluster.runs import Run
from tests.images import built as building


def pytest_configure(config: pytest.Config) -> None:
    """Register the suite's marker."""
    config.addinivalue_line(
        "markers", "cluster: needs a Kubernetes cluster: KUBECONFIG's, `make cluster`'s, or one of its own"
    )


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """Reach the cluster: KUBECONFIG's, or that of `make cluster`, or one that ends with this session."""
    given = os.environ.get("KUBECONFIG")
    if given and Path(given) != PEOPLE.kubeconfig:
        yield Cluster(Path(given))
    elif PEOPLE.alive:
        yield Cluster(PEOPLE.kubeconfig, PEOPLE)
    else:
        own = start_or_skip(Run(f"test-{os.getpid()}"))
        yield own
        own.stop()


def start_or_skip(run: Run) -> Cluster:
    """Start a cluster of the suite's own, or skip with the one sentence that says what this machine lacks."""
    try:
        return start(run, attached=True)
    except tools.Unavailable as reason:
        pytest.skip(str(reason))


@pytest.fixture
def namespace(cluster: Cluster) -> Iterator[str]:
    """Make a namespace that admits only what passes Pod Security *restricted*; it goes with the test."""
    with own_namespace(cluster) as name:
        yield name


@contextmanager
def own_namespace(cluster: Cluster) -> Iterator[str]:
    """Make such a namespace; it goes with the block."""
    name = f"test-{secrets.token_hex(4)}"
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    cluster.apply(json.dumps({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}))
    # Pods are refused until the controller has made it.
    cluster.kubectl("wait", "serviceaccount", "default", f"--namespace={name}", "--for=create", "--timeout=60s")
    yield name
    cluster.kubectl("delete", "namespace", name, "--wait=false", "--ignore-not-found")


@pytest.fixture
def kubectl(cluster: Cluster) -> Callable[..., str]:
    """Run kubectl against the cluster."""
    return cluster.kubectl


@pytest.fixture(params=[3, 4], ids=["helm3", "helm4"])
def helm(request: pytest.FixtureRequest, cluster: Cluster) -> Callable[..., str]:
    """Run Helm 3, then Helm 4, against the cluster."""

    def run(*arguments: str) -> str:
        return cluster.helm(request.param, *arguments)

    return run


@pytest.fixture(scope="session")
def load_image(cluster: Cluster) -> Callable[[Path], None]:
    """Load an OCI archive into the node."""
    return cluster.load_image


@pytest.fixture(scope="session")
def python_image(load_image: Callable[[Path], None]) -> str:
    """Load a Debian with Python into the node, and return its name."""
    try:
        archive = images.python_archive()
    except tools.Unavailable as reason:
        pytest.skip(str(reason))
    load_image(archive)
    return images.PYTHON_IMAGE


@pytest.fixture(scope="session")
def product_images(cluster: Cluster) -> Iterator[dict[str, str]]:
    """Build the product's images, load them and PostgreSQL's into the node, and return their names by service."""
    with building.own_folders():
        try:
            built = building.built()
            for archive in (*(Path(image.archive) for image in built.images.values()), postgresql.archive()):
                cluster.load_image(archive)
        except tools.Unavailable as reason:
            pytest.skip(str(reason))
        yield {service: image.reference for service, image in built.images.items()}


@pytest.fixture
def operator(cluster: Cluster, namespace: str, product_images: dict[str, str]) -> None:
    """Run the operator in *namespace*, for that namespace only and with no right beyond its Role."""
    operator_pod.run(cluster, namespace, product_images)
