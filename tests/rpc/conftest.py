import pytest

from tests.rpc import things


@pytest.fixture
def things_table(dsn: str) -> None:
    """The table of tests/rpc/things.py, in this test's database."""
    things.create_table(dsn)
