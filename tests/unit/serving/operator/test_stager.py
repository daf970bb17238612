"""The stager puts in place what has the digest, and nothing else."""

import io
import json
import tarfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit
from xml.sax.saxutils import escape

import pytest
import yaml

from models import artifact as models_artifact
from serving.operator import failures, sources, stager
from serving.operator.artifact import NotAFolderOfFiles, digest
from serving.operator.stager import CannotStage, deadline, stage
from serving.operator.storage import BadAddress, parse, port_of

MODELS = Path(__file__).parents[4] / "models"
MIB = 1024 * 1024


@pytest.fixture
def version(tmp_path: Path) -> Path:
    """Make a version folder of three small files."""
    folder = tmp_path / "source" / "1"
    (folder / "assets.extra").mkdir(parents=True)
    (folder / "saved_model.pb").write_bytes(b"graph" * 1000)
    (folder / "model.tflite").write_bytes(b"flat" * 1000)
    (folder / "assets.extra" / "contract.json").write_text("{}")
    return folder


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """Name the folder that a server would serve."""
    return tmp_path / "models" / "cancer" / "1"


def archive_of(folder: Path, *, name: Callable[[str], str] = str) -> bytes:
    """Return a folder as a compressed tar archive; *name* may change its members' names."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as archive:
        for path in sorted(folder.rglob("*")):
            member = archive.gettarinfo(path)
            member.name = name(path.relative_to(folder).as_posix())
            archive.addfile(member, io.BytesIO(path.read_bytes()) if member.isreg() else None)
    return content.getvalue()


@contextmanager
def answering(answer: Callable[[str], tuple[int, bytes]]) -> Iterator[str]:
    """Serve HTTP on a free port of this machine: path and query to status and body; yield host and port."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body = answer(self.path)
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        do_HEAD = do_GET  # noqa: N815 - the base class finds it by this name

        def log_message(self, *_: object) -> None:
            """Be quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def reason_of(uri: str, expected: str, target: Path, *, bytes_max: int = MIB) -> str:
    """Return for which reason a version is refused; nothing may be in place then."""
    with pytest.raises(CannotStage) as refused:
        stage(uri, expected, target, bytes_max=bytes_max)
    assert not target.exists()
    return refused.value.failure.reason


def test_committed_versions_have_the_digest_of_their_manifest() -> None:
    """Our digest is that of models/artifact.py, on every version of this repository."""
    for manifest in sorted(MODELS.glob("*/servedmodel.yaml")):
        for entry in yaml.safe_load(manifest.read_text())["spec"]["versions"]:
            folder = manifest.parent / str(entry["version"])
            assert digest(folder) == models_artifact.digest(folder) == entry["digest"]


def test_stager_puts_a_folder_in_place(version: Path, target: Path) -> None:
    """A version with the right digest lies where a server looks, and nothing else does."""
    stage(f"file://{version}", digest(version), target, bytes_max=MIB)
    assert digest(target) == digest(version)
    assert [path.name for path in target.parent.iterdir()] == ["1"]


def test_stager_copies_from_a_claim(version: Path, target: Path, tmp_path: Path) -> None:
    """pvc://claim/path is a path in the folder of that claim."""
    address = parse("pvc://source/1")
    sources.fetch(address, tmp_path / "copy", sources.Budget(MIB), claims=tmp_path)
    assert digest(tmp_path / "copy") == digest(version)


def test_stager_starts_over_after_a_crash(version: Path, target: Path) -> None:
    """What an interrupted try left behind is removed, a finished version of before too."""
    (target.parent / ".staging").mkdir(parents=True)
    (target.parent / ".staging" / "half").write_text("half")
    target.mkdir()
    (target / "old").write_text("old")
    stage(f"file://{version}", digest(version), target, bytes_max=MIB)
    assert digest(target) == digest(version)


@pytest.mark.parametrize("file", ["saved_model.pb", "model.tflite", "assets.extra/contract.json"])
def test_stager_refuses_a_changed_byte(version: Path, target: Path, file: str) -> None:
    """One other byte in any file, and nothing is served."""
    expected = digest(version)
    content = bytearray((version / file).read_bytes())
    content[0] ^= 1
    (version / file).write_bytes(content)
    assert reason_of(f"file://{version}", expected, target) == "DigestMismatch"


def test_stager_refuses_a_file_more_or_less(version: Path, target: Path) -> None:
    """A version is its files, all of them and no others."""
    expected = digest(version)
    (version / "more").write_text("")
    assert reason_of(f"file://{version}", expected, target) == "DigestMismatch"
    (version / "more").unlink()
    (version / "model.tflite").unlink()
    assert reason_of(f"file://{version}", expected, target) == "DigestMismatch"


def test_stager_refuses_links(version: Path, target: Path) -> None:
    """What a link leads to may change after the check."""
    expected = digest(version)
    (version / "model.tflite").rename(version.parent / "elsewhere")
    (version / "model.tflite").symlink_to(version.parent / "elsewhere")
    assert reason_of(f"file://{version}", expected, target) == "NotFound"


def test_stager_stops_at_the_size(version: Path, target: Path) -> None:
    """A version larger than agreed is not written to its end."""
    assert reason_of(f"file://{version}", digest(version), target, bytes_max=6000) == "TooLarge"
    written = sum(path.stat().st_size for path in target.parent.rglob("*") if path.is_file())
    assert written <= 6000


def test_stager_says_that_nothing_is_there(target: Path, tmp_path: Path) -> None:
    """A wrong path has its own reason."""
    assert reason_of(f"file://{tmp_path}/nowhere", "sha256:0", target) == "NotFound"


def test_stager_checks_an_image_where_it_is_mounted(version: Path) -> None:
    """An OCI image is neither fetched nor copied, and refused all the same if its digest differs."""
    stage("oci://registry.test/cancer:1", digest(version), version, bytes_max=0)
    with pytest.raises(CannotStage, match="digest"):
        stage("oci://registry.test/cancer:1", "sha256:0", version, bytes_max=0)
    assert version.exists()


def test_stager_reads_an_archive_over_http(version: Path, target: Path) -> None:
    """A tar archive is unpacked as it comes."""
    content = archive_of(version)
    with answering(lambda _: (200, content)) as host:
        stage(f"http://{host}/cancer-1.tar.gz", digest(version), target, bytes_max=MIB)
    assert digest(target) == digest(version)


@pytest.mark.parametrize(
    ("status", "content", "reason"),
    [
        pytest.param(404, b"", "NotFound", id="no such file"),
        pytest.param(500, b"", "FetchFailed", id="a server's error"),
        pytest.param(200, b"<html>", "Malformed", id="a page in place of an archive"),
    ],
)
def test_stager_refuses_answers_that_are_no_archive(target: Path, status: int, content: bytes, reason: str) -> None:
    """Whatever a server answers in place of the archive has its reason."""
    with answering(lambda _: (status, content)) as host:
        assert reason_of(f"http://{host}/a.tar", "sha256:0", target) == reason


def test_stager_refuses_a_cut_archive(version: Path, target: Path) -> None:
    """A transfer that ended early is no version."""
    content = archive_of(version)
    with answering(lambda _: (200, content[: len(content) // 2])) as host:
        assert reason_of(f"http://{host}/a.tar.gz", digest(version), target) in ("Malformed", "DigestMismatch")


@pytest.mark.parametrize("prefix", ["../", "/tmp/x/"])
def test_stager_refuses_names_that_lead_out(version: Path, target: Path, prefix: str) -> None:
    """An archive writes nowhere but into the version's folder."""
    content = archive_of(version, name=lambda path: prefix + path)
    with answering(lambda _: (200, content)) as host:
        assert reason_of(f"http://{host}/a.tar.gz", digest(version), target) == "Malformed"


def test_stager_refuses_links_in_archives(version: Path, target: Path) -> None:
    """A link is not even unpacked."""
    (version / "link").symlink_to("/etc/passwd")
    content = archive_of(version)
    with answering(lambda _: (200, content)) as host:
        assert reason_of(f"http://{host}/a.tar.gz", "sha256:0", target) == "Malformed"


def test_stager_stops_at_the_size_of_what_is_unpacked(version: Path, target: Path) -> None:
    """A small archive of much is stopped by what comes out of it."""
    (version / "zeros").write_bytes(bytes(4 * MIB))
    content = archive_of(version)
    assert len(content) < MIB
    with answering(lambda _: (200, content)) as host:
        assert reason_of(f"http://{host}/a.tar.gz", digest(version), target, bytes_max=MIB) == "TooLarge"


def bucket(folder: Path, prefix: str) -> Callable[[str], tuple[int, bytes]]:
    """Answer as an S3 store does that holds *folder* under *prefix*: lists and objects."""
    objects = {f"{prefix}/{path.relative_to(folder).as_posix()}": path for path in folder.rglob("*") if path.is_file()}

    def answer(address: str) -> tuple[int, bytes]:
        parts = urlsplit(address)
        _, _, key = parts.path.lstrip("/").partition("/")
        query = parse_qs(parts.query)
        if "list-type" not in query:
            return (200, objects[key].read_bytes()) if key in objects else (404, b"")
        wanted = query.get("prefix", [""])[0]
        entries = "".join(
            f"<Contents><Key>{escape(name)}</Key><Size>{path.stat().st_size}</Size><ETag>e</ETag>"
            "<LastModified>2026-01-01T00:00:00.000Z</LastModified></Contents>"
            for name, path in sorted(objects.items())
            if name.startswith(wanted)
        )
        listing = f"<ListBucketResult><IsTruncated>false</IsTruncated>{entries}</ListBucketResult>"
        return 200, f'<?xml version="1.0"?>{listing}'.encode()

    return answer


@pytest.fixture
def s3(version: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Run a store with the version under s3://bucket/cancer/1, and say where as a Secret's keys would."""
    with answering(bucket(version, "cancer/1")) as host:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        yield


@pytest.mark.usefixtures("s3")
def test_stager_copies_from_an_s3_store(version: Path, target: Path) -> None:
    """Every object below the prefix is a file of the version; endpoint and keys come from the environment."""
    stage("s3://bucket/cancer/1", digest(version), target, bytes_max=MIB)
    assert digest(target) == digest(version)


@pytest.mark.usefixtures("s3")
def test_stager_says_that_a_prefix_is_empty(target: Path) -> None:
    """A store that has no such prefix answers with an empty list."""
    assert reason_of("s3://bucket/cancer/2", "sha256:0", target) == "NotFound"


def test_stager_ends_at_its_deadline(target: Path) -> None:
    """A store that does not answer is left at the deadline, with its own reason."""
    asked, end = threading.Event(), threading.Event()

    def hang(_: str) -> tuple[int, bytes]:
        asked.set()
        end.wait(30)
        return 200, b""

    with answering(hang) as host:
        with pytest.raises(CannotStage) as late, deadline(0.5):
            stage(f"http://{host}/a.tar", "sha256:0", target, bytes_max=MIB)
        end.set()
    assert asked.is_set()
    assert late.value.failure.reason == "TimedOut"


def test_stager_leaves_a_termination_message(
    version: Path, target: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command ends with 1, and the operator reads why from the pod's status."""
    log = tmp_path / "termination-log"
    log.touch()
    monkeypatch.setattr(failures.Failure.write, "__defaults__", (log,))
    monkeypatch.setattr(stager, "configure_logging", lambda _: None)
    arguments = ["--model=cancer", "--version=1", f"--uri=file://{version}", f"--target={target}"]
    assert stager.main([*arguments, "--digest=sha256:0"]) == 1
    assert failures.read(log.read_text(), otherwise="Other").reason == "DigestMismatch"
    assert stager.main([*arguments, f"--digest={digest(version)}"]) == 0
    assert target.is_dir()


@pytest.mark.parametrize(
    "text", ["", "a log's\nlast line", "[]", '{"reason": 1, "message": 2}', '{"reason": "a b", "message": "x"}']
)
def test_termination_messages_of_others_are_taken_as_text(text: str) -> None:
    """What is not our document becomes one printable line under the reason of last resort."""
    found = failures.read(text + "\x1b[31m", otherwise="LoadFailed")
    assert found.reason == "LoadFailed"
    assert found.message.isprintable()
    assert len(failures.read("x" * 9999, otherwise="LoadFailed").message) == 1000
    assert json.dumps(found.message)


@pytest.mark.parametrize(
    "uri",
    [
        *(
            "",
            "models/1",
            "ftp://x/y",
            "pvc://models",
            "pvc://models/",
            "s3://b/../c",
            "pvc:///x",
            "oci://",
            "oci:///x",
        ),
        *("https://host:abc/x.tar", "https://host:99999/x.tar", "https://host:0/x.tar", "https://host:/x.tar"),
        *("https://ada@host/x.tar", "https://ada:word@host/x.tar", "s3://ada@bucket/x", "pvc://claim:7/x"),
    ],
)
def test_addresses_of_no_place_are_refused(uri: str) -> None:
    """An address is understood wholly or not at all."""
    with pytest.raises(BadAddress):
        parse(uri)


@pytest.mark.parametrize(
    ("uri", "port"), [("https://host/x@2.tar", 443), ("https://host:8443/x.tar", 8443), ("http://host/x.tar", 80)]
)
def test_port_is_the_one_that_the_address_says(uri: str, port: int) -> None:
    """What may leave the pod is that port and no other."""
    assert port_of(parse(uri)) == port


def test_digest_refuses_what_is_no_folder(tmp_path: Path) -> None:
    """No folder, no digest."""
    with pytest.raises(NotAFolderOfFiles):
        digest(tmp_path / "nowhere")
