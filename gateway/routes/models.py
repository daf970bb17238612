"""What is served: models, their versions, and what the stable ones say of themselves."""

from collections import Counter
from typing import Annotated

from fastapi import APIRouter, Depends, Request

from gateway.deps import Caller, Model, state_of
from gateway.openapi import TOKEN_PROBLEMS
from gateway.problems import ModelUnavailable, UnknownModel
from gateway.schemas import Model as ModelOut
from gateway.schemas import Models, Share, VersionState
from gateway.served import ServedModel
from gateway.traffic import Canary, Shadow
from healthguard.problems import responses

router = APIRouter(prefix="/api/v1/models", tags=["models"])


async def all_models(request: Request) -> list[ServedModel]:
    """Return every model that is served here."""
    return list(state_of(request)["models"].values())


@router.get("", summary="List the models", responses=responses(*TOKEN_PROBLEMS))
async def list_models(_caller: Caller, models: Annotated[list[ServedModel], Depends(all_models)]) -> Models:
    """Return every model with the state of its versions."""
    return Models(models=[describe(model) for model in models])


@router.get("/{model}", summary="Describe a model", responses=responses(*TOKEN_PROBLEMS, UnknownModel))
async def get_model(_caller: Caller, model: Model) -> ModelOut:
    """Return one model with the state of its versions."""
    return describe(model)


def describe(model: ServedModel) -> ModelOut:
    """Return what is known of *model* at the moment."""
    try:
        contract = model.contract()
    except ModelUnavailable:
        contract = None
    # By address: one server may have several versions, and is then a replica of each.
    told = {
        (status.version, status.state, replica.endpoint.address)
        for replica in model.replicas
        for status in replica.versions
    }
    counted = Counter((version, state) for version, state, _ in told)
    versions = [VersionState(version=key[0], state=key[1], replicas=count) for key, count in sorted(counted.items())]
    return ModelOut(
        name=model.name,
        available=contract is not None,
        stable=model.stable,
        canary=_share(model.traffic.canary),
        shadow=_share(model.traffic.shadow),
        versions=versions,
        contract=contract,
    )


def _share(part: Canary | Shadow | None) -> Share | None:
    return Share(version=part.version, percent=part.percent) if part is not None else None
