"""What stands around every handler: compression, origins, proxies, traces, headers; and HTTP's framing at the door."""

import asyncio
from pathlib import Path

import grpc
import grpc.aio
import numpy as np
import pytest

from gateway.open_inference_pb2 import ModelInferRequest, ModelInferResponse, ServerReadyRequest, ServerReadyResponse
from tests.framing import PROBES
from tests.integration.gateway.conftest import Building, Door
from tests.integration.gateway.stack import Stack, free_port
from tests.integration.healthguard.test_framing import refused_once, said, statuses
from tests.unit.healthguard.install.test_certificates import NAMES, NOW

PATH = "/api/v1/models"
SERVICE = "/inference.GRPCInferenceService"


async def test_gateway_refuses_wrong_framing_once(stack: Stack) -> None:
    """The real process: no probe brings a second answer, or one that is no refusal."""
    port = int(stack.gateway_url.rpartition(":")[2])
    # Those without an end wait for the clock, which has a test of its own.
    probes = {name: probe for name, probe in PROBES.items() if "without an end" not in name and name != "HTTP/0.9"}
    answers = await asyncio.gather(*(said(port, probe, within_s=30) for probe in probes.values()))
    found = dict(zip(probes, map(statuses, answers), strict=True))
    assert {name: all_ for name, all_ in found.items() if not refused_once(all_)} == {}


async def test_long_answers_are_compressed_but_for_secrets(door: Door) -> None:
    """The document and the metrics are; a short answer is not, and no answer of the paths that hold tokens."""
    for path in ("/openapi.json", "/metrics"):
        assert (await door.client.get(path)).headers["Content-Encoding"] == "gzip"
    plain = await door.client.get("/openapi.json", headers={"Accept-Encoding": "identity"})
    assert "Content-Encoding" not in plain.headers
    assert "Content-Encoding" not in (await door.client.get(PATH, headers=door.authorization())).headers


async def test_answers_with_secrets_are_never_compressed(building: Building, monkeypatch: pytest.MonkeyPatch) -> None:
    """However short an answer may be to be compressed; the other paths are, so the test can fail."""
    monkeypatch.setattr("gateway.app.BYTES_MIN", 1)
    door = await building.door()
    assert (await door.client.get(PATH, headers=door.authorization())).headers["Content-Encoding"] == "gzip"
    for path in ("/api/auth/verify", "/api/v1/auth/me"):
        assert "Content-Encoding" not in (await door.client.get(path)).headers


async def test_preflight_has_a_request_id_and_the_headers_of_all_answers(building: Building) -> None:
    """It is answered before any handler, and is still found in the logs."""
    door = await building.door(cors_origins=["https://clinic.example"])
    asked = {"Origin": "https://clinic.example", "Access-Control-Request-Method": "POST"}
    response = await door.client.options(PATH, headers=asked | {"Access-Control-Request-Headers": "traceparent"})
    assert response.status_code == 200
    assert response.headers["Access-Control-Allow-Origin"] == "https://clinic.example"
    assert len(response.headers["X-Request-Id"]) == 32
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    other = await door.client.options(PATH, headers=asked | {"Origin": "https://elsewhere.example"})
    assert "Access-Control-Allow-Origin" not in other.headers


@pytest.mark.parametrize(
    ("networks", "counted_apart"), [([], True), (["127.0.0.0/8"], True), (["192.0.2.0/24"], False)]
)
async def test_forwarded_addresses_count_from_our_proxies_alone(
    building: Building, networks: list[str], counted_apart: bool
) -> None:
    """Behind a proxy of ours each client has their own rate; past it everybody is who connects."""
    door = await building.door(trusted_hops=1, trusted_proxies=networks, anonymous_anemia=True, anonymous_per_minute=1)
    first = await door.client.get("/api/results", headers={"X-Forwarded-For": "198.51.100.1"})
    second = await door.client.get("/api/results", headers={"X-Forwarded-For": "198.51.100.2"})
    assert first.status_code != 429
    assert (second.status_code != 429) is counted_apart


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path, bytes]:
    """Return files of a certificate and its key, and the authority's PEM."""
    from healthguard.install import certificates

    authority = certificates.make_authority(NOW)
    pair = certificates.issue(authority, NAMES, NOW)
    cert, key = tmp_path / "tls.crt", tmp_path / "tls.key"
    cert.write_bytes(pair.certificate)
    key.write_bytes(pair.key)
    return cert, key, authority.certificate


async def test_grpc_speaks_tls_where_the_gateway_does(
    building: Building, certificate: tuple[Path, Path, bytes]
) -> None:
    """With a verified name; a client that speaks in plain text gets nothing."""
    cert, key, authority = certificate
    port = free_port()
    door = await building.door(grpc_port=port, tls_cert_file=cert, tls_key_file=key)
    named = (("grpc.ssl_target_name_override", NAMES[0]),)
    credentials = grpc.ssl_channel_credentials(authority)
    async with grpc.aio.secure_channel(f"127.0.0.1:{port}", credentials, options=named) as channel:
        assert (await ready(channel)).ready
        answer = await infer(channel, door.authorization()["Authorization"])
        assert answer.model_version == "1"
        assert len(answer.raw_output_contents) == 2
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await infer(channel, "Bearer none")
        assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED
        assert "x-request-id" in str(refused.value.trailing_metadata())
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        with pytest.raises(grpc.aio.AioRpcError):
            await ready(channel)


async def ready(channel: grpc.aio.Channel) -> ServerReadyResponse:
    """Ask whether the server takes requests."""
    call = channel.unary_unary(
        f"{SERVICE}/ServerReady",
        request_serializer=ServerReadyRequest.SerializeToString,
        response_deserializer=ServerReadyResponse.FromString,
    )
    answer: ServerReadyResponse = await call(ServerReadyRequest(), timeout=10)
    return answer


async def infer(channel: grpc.aio.Channel, authorization: str) -> ModelInferResponse:
    """Ask about a black picture."""
    call = channel.unary_unary(
        f"{SERVICE}/ModelInfer",
        request_serializer=ModelInferRequest.SerializeToString,
        response_deserializer=ModelInferResponse.FromString,
    )
    shape = (1, 224, 224, 3)
    request = ModelInferRequest(model_name="cancer", raw_input_contents=[np.zeros(shape, np.uint8).tobytes()])
    request.inputs.add(name="image", datatype="UINT8", shape=shape)
    answer: ModelInferResponse = await call(request, timeout=10, metadata=(("authorization", authorization),))
    return answer


async def test_trace_context_goes_on_to_the_services_behind(building: Building) -> None:
    """The trace that a client has begun (W3C) is the one that records and auth hear of."""
    heard: list[str] = []

    async def service(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        heard.extend(line.decode() for line in head.split(b"\r\n") if line.lower().startswith(b"traceparent:"))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(service, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        door = await building.door(records_url=f"http://127.0.0.1:{port}")
        trace = "4bf92f3577b34da6a3ce929d0e0e4736"
        sent = door.authorization() | {"traceparent": f"00-{trace}-00f067aa0ba902b7-01"}
        await door.client.get("/api/v1/predictions", headers=sent)
        assert any(trace in line for line in heard)
