"""The channel for threads."""

from collections.abc import Sequence
from typing import Any

import grpc

from accord.services.v1.services_pb2_grpc import TokenServiceStub
from accord_client.contract import NO_METHODS, Methods, contract
from accord_client.credentials import Credentials, ServiceAccount, fixed_header
from accord_client.options import channel_options, plain_text_options
from accord_client.plain_text import require_loopback
from accord_client.sync.interceptor import CallInterceptor
from accord_client.sync.token_renewal import TokenRenewal
from accord_client.tls import PUBLIC_AUTHORITIES, Tls


def open_channel(
    address: str,
    *,
    credentials: Credentials | None = None,
    tls: Tls | None = PUBLIC_AUTHORITIES,
    options: Sequence[tuple[str, Any]] = (),
    methods: Methods = NO_METHODS,
) -> grpc.Channel:
    """A channel for the stubs of the contract. Close it, or use it in a `with`. It connects at the first call.

    `tls=None` is unencrypted and permitted only for addresses of this machine. `options` of gRPC override Accord's.
    `methods` describe services that are not in the installed contract (`methods_of`). Raises PlainTextRefused.
    """
    methods = {**contract(), **methods}
    plain = _plain_channel(address, tls, [*options, *channel_options(methods)])
    if isinstance(credentials, ServiceAccount):
        token_service = TokenServiceStub(grpc.intercept_channel(plain, CallInterceptor(methods)))
        return grpc.intercept_channel(plain, CallInterceptor(methods, renewal=TokenRenewal(credentials, token_service)))
    return grpc.intercept_channel(plain, CallInterceptor(methods, fixed_header(credentials)))


def _plain_channel(address: str, tls: Tls | None, options: list[tuple[str, Any]]) -> grpc.Channel:
    if tls is None:
        require_loopback(address)
        return grpc.insecure_channel(address, [*plain_text_options(), *options])
    return grpc.secure_channel(address, tls.channel_credentials(), [*tls.options(), *options])
