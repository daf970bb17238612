"""The parts of the cluster that need no cluster to be tested."""

import asyncio
import json
import os
import subprocess
import sys
import tarfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import IO

import pytest

from tests.cluster import __main__, api, certificates, components, folders, forward, network, oci, runs, storage, tools
from tests.cluster.runs import Process, Record, Run
from tests.images import base


def test_image_archive_is_the_same_twice_and_holds_only_what_was_given(tmp_path: Path) -> None:
    """Two archives of the same program are equal to the byte, and its layer has the program and the link."""
    program = tmp_path / "program"
    program.write_bytes(b"\x7fELF")
    image = oci.Image("healthguard.test/x:1", ("/x",))
    for name in ("a.tar", "b.tar"):
        oci.write_programs(tmp_path / name, image, {"/bin/x": program}, links={"/bin/y": "x"})
        program.touch()
    assert (tmp_path / "a.tar").read_bytes() == (tmp_path / "b.tar").read_bytes()
    with tarfile.open(tmp_path / "a.tar") as archive:
        index = json.load(_member(archive, "index.json"))
        manifest = json.load(_member(archive, _blob(index["manifests"][0]["digest"])))
        with tarfile.open(fileobj=_member(archive, _blob(manifest["layers"][0]["digest"]))) as layer:
            assert [(member.name, member.mode, member.linkname) for member in layer] == [
                ("bin/x", 0o755, ""),
                ("bin/y", 0o644, "x"),
            ]


@asynccontextmanager
async def carried(address: tuple[str, int]) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """Connect to *address* through a forwarder, and take both down afterwards."""
    listener = forward.listen()
    serving = asyncio.create_task(forward.serve({listener: address}))
    reader, writer = await asyncio.open_connection(*listener.getsockname())
    yield reader, writer
    writer.close()
    await writer.wait_closed()
    serving.cancel()
    with suppress(asyncio.CancelledError):
        await serving


async def test_forward_carries_both_ways_and_ends_with_either_side() -> None:
    """What is sent arrives, the answer comes back after the sender has closed its half, and then the line is closed."""

    async def shout(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write((await reader.read()).upper())
        writer.close()

    async with (
        await asyncio.start_server(shout, "127.0.0.1", 0) as target,
        carried(target.sockets[0].getsockname()) as (reader, writer),
    ):
        writer.write(b"hello" * 50_000)
        writer.write_eof()
        assert await asyncio.wait_for(reader.read(), 10) == b"HELLO" * 50_000


async def test_forward_closes_when_nobody_answers() -> None:
    """A connection to a port behind which nothing listens is closed, not kept waiting."""
    with forward.listen() as gone:
        address = gone.getsockname()
    async with carried(address) as (reader, _):
        assert await asyncio.wait_for(reader.read(), 10) == b""


def test_process_is_told_apart_from_a_later_one_with_its_number() -> None:
    """A recorded process counts as alive only with the start time that was recorded."""
    mine = Process.of(os.getpid())
    assert mine.alive
    assert not Process(mine.pid, "1").alive


def test_clearing_leaves_a_run_whose_keeper_lives_and_removes_one_whose_keeper_died(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Starting a cluster removes what crashed runs left, and touches no other's."""
    monkeypatch.setattr(runs, "RUNS", tmp_path)
    with subprocess.Popen([sys.executable, "-c", "pass"]) as ended:
        dead = Process.of(ended.pid)
    for name, keeper in (("living", Process.of(os.getpid())), ("crashed", dead)):
        Run(name).folder.mkdir()
        Run(name).write(Record(keeper))
    runs.clear_crashed()
    assert [path.name for path in tmp_path.iterdir()] == ["living"]


def test_kubeconfig_is_readable_by_its_owner_alone(tmp_path: Path) -> None:
    """Keys and kubeconfigs are secrets: nobody else on the machine may read them."""
    certificates.write_all(tmp_path)
    modes = {
        path.name: path.stat().st_mode & 0o077 for path in tmp_path.iterdir() if path.suffix in {".key", ".kubeconfig"}
    }
    assert set(modes.values()) == {0}


def test_every_component_reads_only_files_that_are_written(tmp_path: Path) -> None:
    """Each path in the run's folder that a command line names is written before, or is the component's to write."""
    certificates.write_all(tmp_path / "pki")
    written = {str(tmp_path / name) for name in components.files(tmp_path, "group", tmp_path)}
    written |= {str(path) for path in (tmp_path / "pki").iterdir()} | {str(tmp_path / "pki")}
    named = {
        argument.partition("=")[2] or argument
        for component in components.components(tmp_path, lambda name: Path("/bin") / name)
        for argument in component.command
        if str(tmp_path) in argument
    }
    assert named - written == {str(tmp_path / "audit.log"), str(tmp_path / "kubelet"), str(tmp_path / "volumes")}


def test_given_programs_come_before_those_that_are_built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """KUBEBUILDER_ASSETS is looked at first, so that nothing is built where the programs are there."""
    (tmp_path / "etcd").touch(mode=0o755)
    (tmp_path / "kube-apiserver").touch(mode=0o755)
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(tmp_path))
    assert tools.program("etcd") == tmp_path / "etcd"
    assert tools.program("kube-apiserver") == tmp_path / "kube-apiserver"


def test_cache_keeps_the_two_newest_builds_of_a_thing(tmp_path: Path) -> None:
    """What older trees have built goes with its lock; a thing with a longer name, or a suffix, is another."""
    others = ["helm-chart-000000000000", "helm-000000000000.oci.tar"]
    builds = [f"helm-{number:012x}" for number in range(4)]
    for age, name in enumerate((*others, *builds)):
        (tmp_path / name).mkdir()
        (tmp_path / f"{name}.lock").touch()
        os.utime(tmp_path / name, (age, age))
    folders.keep_newest(tmp_path, "helm")
    left = {*others, *builds[2:]}
    assert {path.name for path in tmp_path.iterdir()} == left | {f"{name}.lock" for name in left}


@pytest.mark.parametrize("lacking", [True, False], ids=["ordinary user", "root"])
def test_deps_say_what_cannot_be_had_and_go_on(
    lacking: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where no node can run, charts can still be rendered; where nothing can be built, that is no failure either."""
    done = []

    def fail() -> None:
        raise tools.Unavailable("A cluster node needs root.")

    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.setattr(tools, "install_packages", fail if lacking else lambda: done.append("packages"))
    monkeypatch.setattr(tools, "build_clients", lambda: done.append("clients"))
    monkeypatch.setattr(tools, "build_all", lambda: done.append("all"))
    monkeypatch.setattr(base, "base", fail)
    monkeypatch.setattr(sys, "argv", ["cluster", "deps"])
    __main__.main()
    assert done == (["clients"] if lacking else ["packages", "all"])
    assert "A cluster node needs root. What needs it will be named" in capsys.readouterr().err


def test_storage_makes_a_volume_once_for_a_claim_that_is_placed_here(tmp_path: Path) -> None:
    """Only a waiting claim of our class, with a pod on our node, and without a volume yet, gets one."""

    def claim(
        uid: str, node: str = network.NODE, storage_class: str = storage.CLASS, phase: str = "Pending"
    ) -> api.Object:
        annotations = {"volume.kubernetes.io/selected-node": node}
        return {
            "metadata": {"namespace": "n", "name": uid, "uid": uid, "annotations": annotations},
            "spec": {
                "storageClassName": storage_class,
                "accessModes": ["ReadWriteOnce"],
                "resources": {"requests": {"storage": "1Gi"}},
            },
            "status": {"phase": phase},
        }

    claims = [claim("new"), claim("far", "kwok-1"), claim("other", storage_class="x"), claim("bound", phase="Bound")]
    made = storage.wanted(claims, [], tmp_path)
    assert [volume["spec"]["claimRef"]["uid"] for volume in made] == ["new"]
    assert storage.wanted(claims, made, tmp_path) == []


def test_storage_removes_only_released_volumes_of_its_own() -> None:
    """A volume in use, and one of another class, stay."""

    def volume(name: str, phase: str, storage_class: str = storage.CLASS) -> api.Object:
        return {"metadata": {"name": name}, "spec": {"storageClassName": storage_class}, "status": {"phase": phase}}

    volumes = [volume("used", "Bound"), volume("done", "Released"), volume("foreign", "Released", "x")]
    assert storage.finished(volumes) == ["done"]


def _blob(digest: str) -> str:
    return "blobs/" + digest.replace(":", "/")


def _member(archive: tarfile.TarFile, name: str) -> IO[bytes]:
    found = archive.extractfile(name)
    assert found is not None
    return found
