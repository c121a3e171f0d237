import asyncio
import sys
from asyncio.subprocess import PIPE, STDOUT

import pytest

from tests.rpc.server.fuzz_connections import ROOT


@pytest.mark.slow
async def test_server_outlives_mutated_connections() -> None:
    """A short run. With a seed of its own, `python -m tests.rpc.server.fuzz_connections` takes longer and finds more."""
    command = (sys.executable, "-m", "tests.rpc.server.fuzz_connections", "2000", "--seed", "9")
    process = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdout=PIPE, stderr=STDOUT)
    output, _ = await process.communicate()
    assert process.returncode == 0, output.decode()
