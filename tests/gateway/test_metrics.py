"""The figures for Prometheus, of a gateway of one process; those of several are in test_workers.py."""

import socket
import urllib.error

import pytest

from tests.gateway.conftest import Start, figures, healthy
from tests.ports import free_port


def test_calls_and_queries_are_counted(start: Start, database_url: str) -> None:
    port = free_port()
    gateway = start(DATABASE_URL=database_url, METRICS_PORT=port, DB_POOL_SIZE=3)
    assert healthy(gateway.address)
    counted = figures(port)
    assert 'grpc_server_handled_total{code="OK",method="Check",service="grpc.health.v1.Health"} 1.0' in counted
    assert "grpc_server_handling_seconds_bucket" in counted
    assert "db_queries_total" in counted
    assert "db_connection_pool_size 3.0" in counted
    assert "process_resident_memory_bytes" in counted


def test_a_scraper_that_says_nothing_holds_up_neither_calls_nor_others(start: Start, database_url: str) -> None:
    port = free_port()
    gateway = start(DATABASE_URL=database_url, METRICS_PORT=port)
    gateway.event("listening")
    with socket.create_connection(("127.0.0.1", port)):
        assert healthy(gateway.address)
        assert "grpc_server_handled_total" in figures(port)
        assert gateway.stop() == 0


def test_they_end_with_the_gateway(start: Start, database_url: str) -> None:
    port = free_port()
    gateway = start(DATABASE_URL=database_url, METRICS_PORT=port)
    gateway.event("listening")
    assert gateway.stop() == 0
    with pytest.raises(urllib.error.URLError):
        figures(port)
