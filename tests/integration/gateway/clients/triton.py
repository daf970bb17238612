"""What a user of tritonclient writes, over HTTP and gRPC; runs in an environment without HealthGuard."""

import json
import sys

import numpy as np
import tritonclient.grpc
import tritonclient.http
from tritonclient.utils import InferenceServerException


def asked(module, pixels, **how):
    """Return the module's own objects for one question."""
    image = module.InferInput("image", pixels.shape, "UINT8")
    image.set_data_from_numpy(pixels, **how)
    return [image]


def scores(answer):
    """Return the answer's numbers."""
    return {name: answer.as_numpy(name).tolist() for name in ("probability", "ood_score")}


def refusals(client, module, pixels, headers):
    """Return what the client tells of bad tensors, of a bad token and of an unknown model."""
    # A copy for each call: over HTTP the client adds to the dictionary that it is given.
    told = {}
    wrong = {
        "rank": asked(module, pixels[0]),
        "shape": asked(module, pixels[:, :100]),
        "batch": asked(module, np.repeat(pixels, 20, axis=0)),
    }
    floats = module.InferInput("image", pixels.shape, "FP32")
    floats.set_data_from_numpy(pixels.astype(np.float32))
    named = module.InferInput("picture", pixels.shape, "UINT8")
    named.set_data_from_numpy(pixels)
    wrong |= {"type": [floats], "name": [named]}
    for what, inputs in wrong.items():
        told[what] = failure(lambda inputs=inputs: client.infer("cancer", inputs, headers=dict(headers)))
    good = asked(module, pixels)
    told["model"] = failure(lambda: client.infer("lung", good, headers=dict(headers)))
    told["version"] = failure(lambda: client.infer("cancer", good, model_version="99", headers=dict(headers)))
    told["token"] = failure(lambda: client.infer("cancer", good, headers={"authorization": "Bearer x"}))
    told["no token"] = failure(lambda: client.infer("cancer", good))
    outputs = [module.InferRequestedOutput("logits")]
    told["output"] = failure(lambda: client.infer("cancer", good, outputs=outputs, headers=dict(headers)))
    return told


def failure(call):
    """Return status and message of the client's own exception."""
    try:
        call()
    except InferenceServerException as exc:
        return [exc.status(), exc.message()]
    return None


def described(client, version, headers, **as_json):
    """Return what the client learns of server and model."""
    return {
        "live": client.is_server_live(),
        "ready": client.is_server_ready(),
        "model": client.is_model_ready("cancer", headers=dict(headers)),
        "version": client.is_model_ready("cancer", version, headers=dict(headers)),
        "server": client.get_server_metadata(**as_json),
        "metadata": client.get_model_metadata("cancer", headers=dict(headers), **as_json),
    }


def main():
    """Ask both ways, and write what came."""
    given = json.load(sys.stdin)
    pixels = np.asarray(given["pixels"], dtype=np.uint8)
    headers = {"authorization": f"Bearer {given['token']}"}
    found = {}
    with tritonclient.http.InferenceServerClient(given["http"]) as client:
        module = tritonclient.http
        found["http"] = described(client, given["version"], headers)
        for binary in (True, False):
            inputs = asked(module, pixels, binary_data=binary)
            outputs = [module.InferRequestedOutput(name, binary_data=binary) for name in ("probability", "ood_score")]
            answer = client.infer("cancer", inputs, outputs=outputs, request_id="q-1", headers=dict(headers))
            found[f"http binary={binary}"] = scores(answer) | {"id": answer.get_response()["id"]}
        found["http all"] = scores(client.infer("cancer", asked(module, pixels), headers=dict(headers)))
        found["http version"] = scores(
            client.infer("cancer", asked(module, pixels), given["version"], headers=dict(headers))
        )
        found["http refused"] = refusals(client, module, pixels, headers)
    with tritonclient.grpc.InferenceServerClient(given["grpc"]) as client:
        module = tritonclient.grpc
        found["grpc"] = described(client, given["version"], headers, as_json=True)
        answer = client.infer("cancer", asked(module, pixels), request_id="q-1", headers=dict(headers))
        found["grpc all"] = scores(answer) | {"id": answer.get_response().id}
        found["grpc version"] = scores(
            client.infer("cancer", asked(module, pixels), given["version"], headers=dict(headers))
        )
        found["grpc refused"] = refusals(client, module, pixels, headers)
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
