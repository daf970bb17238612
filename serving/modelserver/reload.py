"""A new configuration while the server runs: by RPC, and by looking at the file again."""

import asyncio
from pathlib import Path

import grpc
import structlog

from serving.modelserver.config import BadConfig, ConfiguredModel, models_from, models_in
from serving.modelserver.lifecycle import Models
from serving.modelserver.refusals import Refused, invalid_argument
from serving.tfs.protos import ReloadConfigRequest, ReloadConfigResponse

logger = structlog.get_logger()


async def reload(models: Models, request: ReloadConfigRequest) -> ReloadConfigResponse:
    """
    Replace the whole configuration, and answer when every new model is available, or will not be.

    As with the original, models that are left out are unloaded, and known models are not waited for. Unlike it, a
    model that never comes holds up no later reload; the caller's deadline bounds the wait.

    Raises:
        Refused: the configuration is wrong (nothing was changed), or a new model did not become available.
    """
    if request.metric_names:
        raise Refused(grpc.StatusCode.UNIMPLEMENTED, "metric_names is not honoured")
    if not request.config.HasField("model_config_list"):
        raise invalid_argument(
            "ServerModelConfig type not supported by HandleReloadConfigRequest. "
            "Only ModelConfigList is currently supported"
        )
    try:
        configs = models_from(request.config)
    except BadConfig as exc:
        raise invalid_argument(str(exc)) from exc
    new = models.configure(configs)
    logger.info("configuration_reloaded", models=len(configs), new=len(new))
    await models.available(new)
    response = ReloadConfigResponse()
    response.status.SetInParent()
    return response


async def follow(models: Models, path: Path, every_s: float) -> None:
    """
    Read a configuration file again and again, and serve what it says.

    It is applied each time, not only when it changed: a label that could not be set yet is set once its version is
    available. What goes wrong is told once, and the configuration before it stays.
    """
    told: str | None = None
    while True:
        await asyncio.sleep(every_s)
        wrong = await _apply(models, path)
        if wrong is not None and wrong != told:
            logger.error("configuration_not_reloaded", reason=wrong)
        told = wrong


async def _apply(models: Models, path: Path) -> str | None:
    """Apply a file's configuration; return what is wrong with it, or None."""
    try:
        configs: list[ConfiguredModel] = await asyncio.to_thread(models_in, path)
        models.configure(configs)
    except BadConfig as exc:
        return str(exc)
    except Refused as exc:
        return exc.details
    return None
