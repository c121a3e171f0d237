"""How a channel is set up: what gRPC repeats by itself, and how."""

import json
from collections.abc import Iterable
from importlib.metadata import version
from typing import Any, Final

from accord_client.contract import Method, Methods

Options = list[tuple[str, Any]]

# What docs/operating.md publishes, and what the gateway's drain is made for. Each call ends with its deadline all the same.
RETRY_POLICY: Final = {
    "maxAttempts": 5,
    "initialBackoff": "0.5s",
    "maxBackoff": "5s",
    "backoffMultiplier": 2,
    "retryableStatusCodes": ["UNAVAILABLE"],
}
# gRPC keeps what it may have to send again, and repeats no call that is larger: 256 KiB unless told. Messages have 4 MiB.
_KEPT_FOR_RETRIES: Final = 5 * 1024 * 1024
_LONGEST_RECONNECT_MS: Final = 5_000  # instead of two minutes, which a restart should not cost


def channel_options(methods: Methods) -> Options:
    return [
        ("grpc.service_config", service_config(methods.values())),
        ("grpc.per_rpc_retry_buffer_size", _KEPT_FOR_RETRIES),
        ("grpc.max_reconnect_backoff_ms", _LONGEST_RECONNECT_MS),
        ("grpc.primary_user_agent", f"accord-client/{version('accord-client')}"),
    ]


def plain_text_options() -> Options:
    """A proxy would carry to another machine what is meant for this one. Goes before all: of two, gRPC takes the first."""
    return [("grpc.enable_http_proxy", 0)]


def service_config(methods: Iterable[Method]) -> str:
    repeatable = [{"service": method.service, "method": method.name} for method in methods if method.repeatable]
    return json.dumps({"methodConfig": [{"name": repeatable, "retryPolicy": RETRY_POLICY}]} if repeatable else {})
