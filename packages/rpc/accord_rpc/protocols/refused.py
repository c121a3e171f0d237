"""Log lines and the metric of requests that are a call of no method, and so do not enter the pipeline."""

from functools import cache
from typing import Final, NamedTuple

import structlog
from prometheus_client import Counter

from accord_rpc.client_address import FORWARDED_HEADER, ClientAddresses
from accord_rpc.pipeline.telemetry import printable
from accord_rpc.server.exchange import Exchange

_MOST_PATH: Final = 200  # characters
_MOST_VERB: Final = 20


class Refused(NamedTuple):
    """`request_id` is that of the response; empty if it has none."""

    status: int
    request_id: str = ""


class RefusedRequests:
    """The path is logged without its query, which can have a secret."""

    def __init__(self, peers: ClientAddresses) -> None:
        self._peers = peers
        self._log: structlog.typing.FilteringBoundLogger = structlog.get_logger("accord.request").bind()

    def record(self, exchange: Exchange, refused: Refused | None) -> None:
        """None: the request was not refused."""
        if refused is None:
            return
        refused_metrics().requests.labels(refused.status).inc()
        name = FORWARDED_HEADER.encode()
        forwarded = [value.decode("latin-1") for key, value in exchange.headers if key == name]
        line: dict[str, object] = {
            "http_method": printable(exchange.method[:_MOST_VERB].decode("latin-1")),
            "path": printable(exchange.target.partition(b"?")[0][:_MOST_PATH].decode("latin-1")),
            "status": refused.status,
            "peer": self._peers.address(exchange.peer, forwarded),
        }
        if refused.request_id:
            line["request_id"] = refused.request_id
        self._log.info("request_refused", **line)


class RefusedMetrics:
    def __init__(self) -> None:
        self.requests = Counter(
            "accord_requests_refused_total", "Requests that are a call of no method, by HTTP status.", ["status"]
        )


@cache
def refused_metrics() -> RefusedMetrics:
    """Cached, because prometheus_client registers each name once per process."""
    return RefusedMetrics()
