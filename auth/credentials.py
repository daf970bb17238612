"""The credentials of a log-in, from JSON or from the form of FastAPI's OAuth2 helpers."""

from typing import Any

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError

from auth.schemas import Credentials
from healthguard.problems import InvalidRequest, UnsupportedMedia

FORM_FIELDS_MAX = 16
FORMS = frozenset({"application/x-www-form-urlencoded", "multipart/form-data"})

CREDENTIALS_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": Credentials.model_json_schema(),
                "example": {"email": "ada@example.org", "password": "…"},
            },
            "application/x-www-form-urlencoded": {
                "schema": {
                    "type": "object",
                    "required": ["username", "password"],
                    "properties": {"username": {"type": "string"}, "password": {"type": "string"}},
                }
            },
        },
    }
}
"""What OpenAPI says of the body: FastAPI itself cannot say that one path takes both forms."""


async def read_credentials(request: Request) -> Credentials:
    """
    Return the credentials that *request* carries.

    Raises:
        InvalidRequest: the body cannot be read.
        UnsupportedMedia: it is neither JSON nor a form.
        RequestValidationError: a field is missing or not valid.
    """
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type == "application/json":
        return _validated(await _json_fields(request))
    if media_type in FORMS:
        return _validated(await _form_fields(request))
    raise UnsupportedMedia


async def _json_fields(request: Request) -> dict[str, Any]:
    try:
        fields = await request.json()
    # Deeply nested brackets are a RecursionError.
    except (ValueError, RecursionError) as exc:
        raise InvalidRequest from exc
    if not isinstance(fields, dict):
        raise InvalidRequest("A JSON object is needed.")
    return fields


async def _form_fields(request: Request) -> dict[str, Any]:
    """Return the fields by their JSON names; OAuth2 calls the e-mail `username`."""
    async with request.form(max_files=0, max_fields=FORM_FIELDS_MAX) as form:
        fields = {"email": form.get("username", form.get("email")), "password": form.get("password")}
    return {name: value for name, value in fields.items() if value is not None}


def _validated(fields: dict[str, Any]) -> Credentials:
    try:
        return Credentials.model_validate(fields)
    except ValidationError as exc:
        # As FastAPI's own validation raises it: with the place counted from the body's root.
        raise RequestValidationError([{**error, "loc": ("body", *error["loc"])} for error in exc.errors()]) from exc
