"""The channel of programs that call from threads."""

from collections.abc import Sequence
from typing import Any

import grpc

from accord.services.v1.services_pb2_grpc import TokenServiceStub
from accord_client.contract import NO_OTHERS, Methods, contract
from accord_client.credentials import Credentials, ServiceAccount, fixed_header
from accord_client.options import channel_options, plain_text_options
from accord_client.plain_text import require_loopback
from accord_client.sync.interceptor import CallInterceptor
from accord_client.sync.renewal import Renewal
from accord_client.tls import PUBLIC_AUTHORITIES, Tls


def open_channel(
    address: str,
    *,
    credentials: Credentials | None = None,
    tls: Tls | None = PUBLIC_AUTHORITIES,
    options: Sequence[tuple[str, Any]] = (),
    methods: Methods = NO_OTHERS,
) -> grpc.Channel:
    """A channel for the stubs of the contract; close it, or use it in a `with`. It connects with the first call.

    With `tls=None` nothing is encrypted, and the address has to be on this machine. `options` are gRPC's and go before ours.
    `methods` are those of services that the gateway serves beside the installed contract's (`methods_of`).
    """
    methods = {**contract(), **methods}
    plain = _plain_channel(address, tls, [*options, *channel_options(methods)])
    if isinstance(credentials, ServiceAccount):
        issuing = TokenServiceStub(grpc.intercept_channel(plain, CallInterceptor(methods)))
        return grpc.intercept_channel(plain, CallInterceptor(methods, renewal=Renewal(credentials, issuing)))
    return grpc.intercept_channel(plain, CallInterceptor(methods, fixed_header(credentials)))


def _plain_channel(address: str, tls: Tls | None, options: list[tuple[str, Any]]) -> grpc.Channel:
    if tls is None:
        require_loopback(address)
        return grpc.insecure_channel(address, [*plain_text_options(), *options])
    return grpc.secure_channel(address, tls.channel_credentials(), [*tls.options(), *options])
