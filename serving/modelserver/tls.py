"""
TLS from TensorFlow Serving's SSLConfig: PEM text of key, certificate and, where clients must show one, their CA.

The file is looked at again for each new connection, so that a renewed certificate is used without a restart, which the
original needs.
"""

from dataclasses import dataclass
from pathlib import Path

import grpc
import structlog

from serving.modelserver.config import BadConfig, read
from serving.tfs.ssl_config_pb2 import SSLConfig

logger = structlog.get_logger()


@dataclass
class Certificates:
    """The newest usable certificates of a configuration file."""

    path: Path

    def __post_init__(self) -> None:
        """
        Read the file for the first time.

        Raises:
            BadConfig: it is not usable.
        """
        self._stamp = self._stamp_now()
        self._config = read(self.path, SSLConfig, secret=True)
        _check(self._config)
        self.clients_verified = self._config.client_verify

    def credentials(self) -> grpc.ServerCredentials:
        """
        Return what a gRPC server listens with.

        Raises:
            BadConfig: key and certificate are no PEM text.
        """
        return grpc.dynamic_ssl_server_credentials(
            _configuration(self._config),
            self.renewed,  # type: ignore[arg-type]  # None is allowed, and means that nothing is new
            require_client_authentication=self.clients_verified,
        )

    def renewed(self) -> grpc.ServerCertificateConfiguration | None:
        """Return new certificates if the file has changed to usable ones; gRPC calls this for each new connection."""
        try:
            stamp = self._stamp_now()
            if stamp == self._stamp:
                return None
            self._stamp = stamp
            config = read(self.path, SSLConfig, secret=True)
            _check(config)
        except BadConfig:
            # Whoever connects gets the certificate that was good; what is wrong with the new one may be secret.
            logger.error("tls_configuration_not_renewed")  # noqa: TRY400
            return None
        self._config = config
        logger.info("tls_configuration_renewed")
        return _configuration(config)

    def _stamp_now(self) -> tuple[int, int, int]:
        """
        Return what changes when the file does, also where a link to it is swapped.

        Raises:
            BadConfig: there is no such file.
        """
        try:
            found = self.path.stat()
        except OSError as exc:
            raise BadConfig(f"cannot read {self.path}: {exc.strerror}") from exc
        return found.st_mtime_ns, found.st_size, found.st_ino


def _check(config: SSLConfig) -> None:
    """
    Hold a configuration to what gRPC needs.

    Raises:
        BadConfig: naming the field, never its content.
    """
    for field, marker in (("server_key", "PRIVATE KEY-----"), ("server_cert", "BEGIN CERTIFICATE-----")):
        if marker not in getattr(config, field):
            raise BadConfig(f"ssl_config: {field} is not PEM text")
    if config.custom_ca and "BEGIN CERTIFICATE-----" not in config.custom_ca:
        raise BadConfig("ssl_config: custom_ca is not PEM text")
    if config.client_verify and not config.custom_ca:
        raise BadConfig("ssl_config: client_verify needs custom_ca")


def _configuration(config: SSLConfig) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration(
        [(config.server_key.encode(), config.server_cert.encode())],
        root_certificates=config.custom_ca.encode() or None,
    )
