"""The options of a channel: retries and reconnects."""

import json
from collections.abc import Iterable
from importlib.metadata import version
from typing import Any, Final

from accord_client.contract import Method, Methods

Options = list[tuple[str, Any]]

# docs/operating.md documents it, and the drain of the gateway relies on it. A deadline ends all attempts.
RETRY_POLICY: Final = {
    "maxAttempts": 5,
    "initialBackoff": "0.5s",
    "maxBackoff": "5s",
    "backoffMultiplier": 2,
    "retryableStatusCodes": ["UNAVAILABLE"],
}
# gRPC does not retry a call that is larger. Its default is 256 KiB; a message has at most 4 MiB.
_RETRY_BUFFER_BYTES: Final = 5 * 1024 * 1024
_MAX_RECONNECT_BACKOFF_MS: Final = 5_000  # gRPC's default is two minutes, too long after a restart


def channel_options(methods: Methods) -> Options:
    return [
        ("grpc.service_config", service_config(methods.values())),
        ("grpc.per_rpc_retry_buffer_size", _RETRY_BUFFER_BYTES),
        ("grpc.max_reconnect_backoff_ms", _MAX_RECONNECT_BACKOFF_MS),
        ("grpc.primary_user_agent", f"accord-client/{version('accord-client')}"),
    ]


def plain_text_options() -> Options:
    """No proxy, because it would forward the call to another machine. Must be first: gRPC uses the first of two values."""
    return [("grpc.enable_http_proxy", 0)]


def service_config(methods: Iterable[Method]) -> str:
    repeatable = [{"service": method.service, "method": method.name} for method in methods if method.repeatable]
    return json.dumps({"methodConfig": [{"name": repeatable, "retryPolicy": RETRY_POLICY}]} if repeatable else {})
