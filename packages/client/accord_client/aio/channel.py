"""The channel for asyncio."""

from collections.abc import Sequence
from typing import Any

import grpc

from accord.services.v1.services_pb2_grpc import TokenServiceStub
from accord_client.aio.call_details import Attempts
from accord_client.aio.interceptors import interceptors
from accord_client.aio.token_renewal import TokenRenewal
from accord_client.contract import NO_METHODS, Methods, contract
from accord_client.credentials import Credentials, ServiceAccount, fixed_header
from accord_client.options import channel_options, plain_text_options
from accord_client.plain_text import require_loopback
from accord_client.tls import PUBLIC_AUTHORITIES, Tls


def open_channel(
    address: str,
    *,
    credentials: Credentials | None = None,
    tls: Tls | None = PUBLIC_AUTHORITIES,
    options: Sequence[tuple[str, Any]] = (),
    methods: Methods = NO_METHODS,
) -> grpc.aio.Channel:
    """Like `accord_client.open_channel`. Close it with `await`, or use it in an `async with`."""
    methods = {**contract(), **methods}
    settings = [*options, *channel_options(methods)]
    if not isinstance(credentials, ServiceAccount):
        return _channel(address, tls, settings, Attempts(methods, fixed_header(credentials)))
    # IssueToken is public, so the same channel issues the tokens.
    renewal = TokenRenewal(credentials, lambda: TokenServiceStub(channel))
    channel = _channel(address, tls, settings, Attempts(methods, renewal=renewal))
    return channel


def _channel(address: str, tls: Tls | None, settings: list[tuple[str, Any]], attempts: Attempts) -> grpc.aio.Channel:
    if tls is None:
        require_loopback(address)
        settings = [*plain_text_options(), *settings]
        return grpc.aio.insecure_channel(address, settings, interceptors=interceptors(attempts))
    settings = [*tls.options(), *settings]
    return grpc.aio.secure_channel(address, tls.channel_credentials(), settings, interceptors=interceptors(attempts))
