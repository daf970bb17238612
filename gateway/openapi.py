"""
What OpenAPI says beyond the handlers' signatures.

Of bodies that handlers read by hand; of the problems that paths have in common; and of the paths that auth and records
answer, from their own documents: `upstream_openapi.json` is a copy of the operations that are open to the public, and a
contract test holds it to what the services say.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from fastapi import FastAPI

from gateway.openapi_components import SCHEMAS, Document, operations_of, share
from gateway.problems import (
    BadUpstream,
    BrokenImage,
    ModelUnavailable,
    Overloaded,
    PredictionTimeout,
    SeveralPictures,
    TooManyPixels,
    TooManyRequests,
    UnknownModel,
    UnsupportedImage,
    UploadTooSlow,
    UpstreamUnavailable,
)
from healthguard.problems import (
    InvalidRequest,
    PayloadTooLarge,
    Problem,
    Unauthorized,
    Unavailable,
    UnsupportedMedia,
    ValidationFailed,
    responses,
)

Responses = dict[int | str, dict[str, Any]]

_IMAGE = {"type": "string", "format": "binary"}

TOKEN_PROBLEMS: Sequence[type[Problem]] = (Unauthorized, Unavailable, UpstreamUnavailable, BadUpstream, TooManyRequests)
UPLOAD_PROBLEMS: Sequence[type[Problem]] = (
    InvalidRequest,
    UploadTooSlow,
    PayloadTooLarge,
    UnsupportedMedia,
    UnsupportedImage,
    BrokenImage,
    TooManyPixels,
    SeveralPictures,
    ValidationFailed,
    Overloaded,
)
PREDICTION_PROBLEMS: Sequence[type[Problem]] = (UnknownModel, ModelUnavailable, Overloaded, PredictionTimeout)
UPSTREAM_PROBLEMS: Sequence[type[Problem]] = (
    InvalidRequest,
    UploadTooSlow,
    PayloadTooLarge,
    BadUpstream,
    UpstreamUnavailable,
    Overloaded,
)


REQUEST_TIMEOUT = {
    "name": "X-Request-Timeout",
    "in": "header",
    "required": False,
    "description": "How long the answer is worth waiting for; seconds. A bound of ours holds all the same.",
    "schema": {"type": "number", "minimum": 0.1, "maximum": 3600},
}


def image_body(*, patient: bool = False) -> dict[str, Any]:
    """Return `openapi_extra` for a path that takes an image, as a form or as the raw body."""
    fields: dict[str, Any] = {"file": _IMAGE | {"description": "A JPEG or PNG."}}
    if patient:
        fields["patient"] = {"type": "string", "maxLength": 64, "description": "Whom the image is about; doctors only."}
    form = {"type": "object", "properties": fields, "required": ["file"]}
    content: dict[str, Any] = {"multipart/form-data": {"schema": form}}
    content |= {
        media_type: {"schema": _IMAGE} for media_type in ("image/jpeg", "image/png", "application/octet-stream")
    }
    return {"requestBody": {"required": True, "content": content}, "parameters": [REQUEST_TIMEOUT]}


OVERLAY: Responses = {
    201: {
        "content": {"image/png": {"schema": _IMAGE | {"description": "With explain: the heat map over the image."}}},
        "headers": {
            "Location": {"description": "Where the record is.", "schema": {"type": "string"}},
            "Cache-Status": {"description": "Whether the scores were known (RFC 9211).", "schema": {"type": "string"}},
        },
    }
}
"""What a prediction answers beside its record."""


def prediction_responses(*further: type[Problem]) -> Responses:
    """Return the problems of a path that makes a prediction."""
    return responses(*TOKEN_PROBLEMS, *UPLOAD_PROBLEMS, *PREDICTION_PROBLEMS, *further)


UPSTREAM_DOCUMENT = Path(__file__).with_name("upstream_openapi.json")

READ = "records_read_record_v1_predictions__record_id__get"
CORRECT = "records_correct_record_v1_predictions__record_id__put"
DELETE = "records_delete_record_v1_predictions__record_id__delete"
OLD_READ = "records_read_old_record_predictions__number__get"
OLD_CORRECT = "records_correct_old_record_predictions__number__put"
OLD_DELETE = "records_delete_old_record_predictions__number__delete"

LINKS: Mapping[str, tuple[str, Mapping[str, tuple[str, str]]]] = {
    "create_prediction_api_v1_models__model__predictions_post": (
        "201",
        dict.fromkeys((READ, CORRECT, DELETE), ("record_id", "$response.body#/id")),
    ),
    "predict_and_save_api_workflow_predict_and_save_post": (
        "201",
        dict.fromkeys((OLD_READ, OLD_CORRECT, OLD_DELETE), ("number", "$response.body#/record/id")),
    ),
    "records_create_client_record_predictions_post": (
        "201",
        dict.fromkeys((OLD_READ, OLD_CORRECT, OLD_DELETE), ("number", "$response.body#/id")),
    ),
    "records_list_records_v1_predictions_get": (
        "200",
        {READ: ("record_id", "$response.body#/items/0/id")},
    ),
    "auth_create_key_v1_auth_keys_post": (
        "201",
        {"auth_revoke_key_v1_auth_keys__key_id__delete": ("key_id", "$response.body#/id")},
    ),
    "list_models_api_v1_models_get": (
        "200",
        {
            "get_model_api_v1_models__model__get": ("model", "$response.body#/models/0/name"),
            "create_prediction_api_v1_models__model__predictions_post": ("model", "$response.body#/models/0/name"),
        },
    ),
}
"""By operation: the answer, and where it leads: to which operation, which parameter, and where its value stands."""


def complete(app: FastAPI) -> None:
    """Make *app*'s document tell of the paths that other services answer, too; it is built when first asked for."""
    own = app.openapi

    def openapi() -> Document:
        if app.openapi_schema is None:
            whole = with_upstreams(own(), json.loads(UPSTREAM_DOCUMENT.read_text()))
            app.openapi_schema = share(linked(whole))
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's documented way of extending the document


def with_upstreams(document: Document, upstreams: Mapping[str, Document]) -> Document:
    """Return *document* with the operations of *upstreams*, by the service's name, under `/api`."""
    for service, upstream in upstreams.items():
        named = _renamed(upstream, service)
        for path, operations in named["paths"].items():
            document["paths"]["/api" + path] = {
                method: _passed_on(operation, service, path) for method, operation in operations.items()
            }
        document["components"]["schemas"] |= named["schemas"]
    return document


def linked(document: Document) -> Document:
    """Return *document* with a link from each answer to the operations that its ids are for."""
    by_id = {operation["operationId"]: operation for operation in operations_of(document)}
    for source, (status, targets) in LINKS.items():
        by_id[source]["responses"][status]["links"] = {
            by_id[target]["summary"]: {"operationId": target, "parameters": {parameter: expression}}
            for target, (parameter, expression) in targets.items()
        }
    return document


def _renamed(upstream: Document, service: str) -> Document:
    """Return the document with the service's name before each schema's, so that two services' cannot clash."""
    text = json.dumps(upstream).replace(SCHEMAS, SCHEMAS + service.capitalize())
    found = cast(Document, json.loads(text))
    found["schemas"] = {service.capitalize() + name: schema for name, schema in found["schemas"].items()}
    return found


def _passed_on(operation: Document, service: str, path: str) -> Document:
    """Return the operation as it is here: its tag, its need of a token, and the problems that we may answer with."""
    kinds = [*UPSTREAM_PROBLEMS, *(TOKEN_PROBLEMS if service == "records" else ())]
    if service == "records":
        operation["security"] = [{"HTTPBearer": []}, {"APIKeyHeader": []}]
    if path == "/results":
        kinds.append(TooManyRequests)
    answers = operation["responses"]
    for status, ours in responses(*kinds).items():
        answers[str(status)] = _either(answers.get(str(status)), ours)
    tag = {"auth": "auth", "records": "predictions"}[service] if path.startswith(("/v1/", "/auth/")) else OLD_TAG
    return operation | {"tags": [tag], "operationId": f"{service}_{operation['operationId']}"}


OLD_TAG = "history, old names"


def _either(theirs: Document | None, ours: Document) -> Document:
    """Return an answer that is one of two."""
    if theirs is None:
        return ours
    content = dict(theirs.get("content", {}))
    for media_type, body in ours["content"].items():
        if (other := content.get(media_type)) is None:
            content[media_type] = body
            continue
        content[media_type] = {
            "schema": {"anyOf": [*_schemas(other), *_schemas(body)]},
            "examples": other.get("examples", {}) | body["examples"],
        }
    return theirs | {"content": content}


def _schemas(body: Document) -> list[Document]:
    found = body["schema"].get("oneOf", [body["schema"]])
    return cast(list[Document], found)
