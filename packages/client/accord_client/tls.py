"""The TLS settings of a channel."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import grpc


@dataclass(frozen=True, slots=True)
class Tls:
    """PEM files, read when the channel opens. Open a new channel after a certificate is renewed.

    `authorities` may issue the server's certificate; None means the public authorities. `certificate` (with its chain) and
    `key` are the client's, for mutual TLS. `server_name` is the name in the server's certificate if it differs from the
    address.
    """

    authorities: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    server_name: str | None = None

    def __post_init__(self) -> None:
        if (self.certificate is None) != (self.key is None):
            raise ValueError("Set both `certificate` and `key`, or neither.")

    def channel_credentials(self) -> grpc.ChannelCredentials:
        return grpc.ssl_channel_credentials(_content(self.authorities), _content(self.key), _content(self.certificate))

    def options(self) -> list[tuple[str, object]]:
        return [("grpc.ssl_target_name_override", self.server_name)] if self.server_name else []


PUBLIC_AUTHORITIES: Final = Tls()


def _content(file: Path | None) -> bytes | None:
    return file.read_bytes() if file else None
