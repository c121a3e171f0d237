"""The metrics port of a gateway with one process. test_workers.py tests several."""

import socket
import urllib.error

import pytest

from tests.gateway.conftest import Start, healthy, read_metrics
from tests.ports import free_port


def test_calls_and_queries_are_counted(start: Start, database_url: str) -> None:
    port = free_port()
    gateway = start(DATABASE_URL=database_url, METRICS_PORT=port, DB_POOL_SIZE=3)
    assert healthy(gateway.address)
    metrics = read_metrics(port)
    assert 'grpc_server_handled_total{code="OK",method="Check",service="grpc.health.v1.Health"} 1.0' in metrics
    assert "grpc_server_handling_seconds_bucket" in metrics
    assert "db_queries_total" in metrics
    assert "db_connection_pool_size 3.0" in metrics
    assert "process_resident_memory_bytes" in metrics


def test_a_silent_scraper_delays_neither_calls_nor_other_scrapers(start: Start, database_url: str) -> None:
    port = free_port()
    gateway = start(DATABASE_URL=database_url, METRICS_PORT=port)
    gateway.event("listening")
    with socket.create_connection(("127.0.0.1", port)):
        assert healthy(gateway.address)
        assert "grpc_server_handled_total" in read_metrics(port)
        assert gateway.stop() == 0


def test_the_metrics_port_closes_with_the_gateway(start: Start, database_url: str) -> None:
    port = free_port()
    gateway = start(DATABASE_URL=database_url, METRICS_PORT=port)
    gateway.event("listening")
    assert gateway.stop() == 0
    with pytest.raises(urllib.error.URLError):
        read_metrics(port)
