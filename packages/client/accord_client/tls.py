"""How a channel knows its server, and is known to it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import grpc


@dataclass(frozen=True, slots=True)
class Tls:
    """Files are in PEM, and are read once: open another channel when a certificate was renewed.

    `authorities` are those who may have issued the server's certificate, the public ones if None. `certificate`, with its
    chain, and `key` are the client's own, for mutual TLS. `server_name` is the name in the server's certificate, if that is
    not the one in the address.
    """

    authorities: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    server_name: str | None = None

    def __post_init__(self) -> None:
        if (self.certificate is None) != (self.key is None):
            raise ValueError("A client's certificate and its key go together: name both or none.")

    def channel_credentials(self) -> grpc.ChannelCredentials:
        return grpc.ssl_channel_credentials(_content(self.authorities), _content(self.key), _content(self.certificate))

    def options(self) -> list[tuple[str, object]]:
        return [("grpc.ssl_target_name_override", self.server_name)] if self.server_name else []


PUBLIC_AUTHORITIES: Final = Tls()


def _content(file: Path | None) -> bytes | None:
    return file.read_bytes() if file else None
