"""What a user of KServe's client writes, over HTTP and gRPC; runs in an environment without HealthGuard."""

import asyncio
import json
import sys

import numpy as np
from kserve import InferenceGRPCClient, InferenceRESTClient, InferInput, InferRequest
from kserve.inference_client import RESTConfig


def question(pixels, binary):
    """Return KServe's own request object."""
    image = InferInput("image", list(pixels.shape), "UINT8")
    image.set_data_from_numpy(pixels, binary_data=binary)
    return InferRequest(model_name="cancer", infer_inputs=[image], request_id="q-1")


def scores(answer):
    """Return the answer's numbers."""
    return {output.name: output.as_numpy().tolist() for output in answer.outputs} | {"id": answer.id}


async def main():
    """Ask both ways, and write what came."""
    given = json.load(sys.stdin)
    pixels = np.asarray(given["pixels"], dtype=np.uint8)
    headers = {"authorization": f"Bearer {given['token']}"}
    base, found = f"http://{given['http']}", {}
    async with InferenceRESTClient(RESTConfig(protocol="v2")) as client:
        found["http"] = {
            "live": await client.is_server_live(base),
            "ready": await client.is_server_ready(base),
            "model": await client.is_model_ready(base, "cancer", headers=headers),
        }
        for binary in (True, False):
            answer = await client.infer(base, question(pixels, binary), model_name="cancer", headers=dict(headers))
            found[f"http binary={binary}"] = scores(answer)
    async with InferenceGRPCClient(given["grpc"]) as client:
        metadata = tuple(headers.items())
        found["grpc"] = {
            "live": await client.is_server_live(),
            "ready": await client.is_server_ready(),
            "model": await client.is_model_ready("cancer", headers=metadata),
        }
        for binary in (True, False):
            found[f"grpc binary={binary}"] = scores(await client.infer(question(pixels, binary), headers=metadata))
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    asyncio.run(main())
