"""What is known about models and their versions, as the APIs tell it."""

import grpc

from serving.modelserver.lifecycle import Models, Version
from serving.modelserver.model_spec import asked_by
from serving.modelserver.refusals import Refused, invalid_argument
from serving.tfs import signatures
from serving.tfs.protos import (
    GetModelMetadataRequest,
    GetModelMetadataResponse,
    GetModelStatusRequest,
    GetModelStatusResponse,
    ModelSpec,
    ModelVersionStatus,
    SignatureDefMap,
)


def metadata(models: Models, request: GetModelMetadataRequest) -> GetModelMetadataResponse:
    """
    Say what a version's signatures take and give.

    Raises:
        Refused: the model is not served, or another field than signature_def is asked for.
    """
    asked = asked_by(request)
    if not request.metadata_field:
        raise invalid_argument("GetModelMetadataRequest must specify at least one metadata_field")
    for field in request.metadata_field:
        if field != "signature_def":
            raise invalid_argument(f"Metadata field {field} is not supported")
    with models.serving(asked) as version:
        known = version.servable.model.signatures.items()
        packed = SignatureDefMap(signature_def={key: signatures.to_proto(signature) for key, signature in known})
        response = GetModelMetadataResponse(model_spec=ModelSpec(name=asked.name))
        response.model_spec.version.value = version.number
        response.metadata["signature_def"].Pack(packed)
        return response


def status(models: Models, request: GetModelStatusRequest) -> GetModelStatusResponse:
    """
    Say in which state the versions of a model are.

    Raises:
        Refused: the model or the version was never there, or the label is unknown.
    """
    asked = asked_by(request)
    number = models.labelled(asked) if asked.label is not None else asked.version
    known = models.versions(asked.name)
    if number is None and not known:
        raise Refused(grpc.StatusCode.NOT_FOUND, f"Could not find any versions of model {asked.name}")
    chosen = [version for version in known if number is None or version.number == number]
    if not chosen:
        raise Refused(grpc.StatusCode.NOT_FOUND, f"Could not find version {number} of model {asked.name}")
    # Newest first, as the original has it: there are clients that look at the first one only.
    return GetModelStatusResponse(model_version_status=[_status(version) for version in reversed(chosen)])


def _status(version: Version) -> ModelVersionStatus:
    told = ModelVersionStatus(version=version.number, state=ModelVersionStatus.State.Name(version.state.value))
    told.status.error_code = version.error.number if version.error else 0  # type: ignore[assignment]
    told.status.error_message = version.error.details if version.error else ""
    return told
