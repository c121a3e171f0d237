"""gRPC's interop cases (grpc/grpc, doc/interop-test-descriptions.md) with other clients than our own.

Each peer is a program that runs all cases against one server, and prints a JSON object with the result of each."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import pytest

from tests.npm import installed
from tests.rpc.peers.probe import SPECIAL_MESSAGE, serving

FOLDER: Final = Path(__file__).parent
MIB: Final = 1024 * 1024
SIZES: Final = [27_182, 8, 1_828, 45_904]
CANCELLED, DEADLINE_EXCEEDED, RESOURCE_EXHAUSTED, UNIMPLEMENTED = 1, 4, 8, 12

CASES: Final[Mapping[str, Any]] = {
    "empty_unary": 0,
    "large_unary": MIB,
    "client_compressed_unary_gzip": [100_000, "gzip"],
    "client_compressed_unary_deflate": [100_000, "deflate"],
    "server_compressed_unary": 100_000,
    "server_compressed_streaming": [100_000, 5],
    "client_streaming": "a,b,,c",
    "server_streaming": ["a", "a", "a"],
    "ping_pong": SIZES,
    "empty_stream": [],
    "status_code_and_message": [[2, "test status message"]] * 2,
    "special_status_message": [2, SPECIAL_MESSAGE],
    "unimplemented_method": UNIMPLEMENTED,
    "unimplemented_service": UNIMPLEMENTED,
    "cancel_after_begin": CANCELLED,
    "cancel_after_first_response": ["a", CANCELLED],
    "timeout_on_sleeping_server": DEADLINE_EXCEEDED,
    "custom_metadata": ["some text", "00ffab"],
    "largest_message": 4 * MIB - 1,
    "too_large_message": RESOURCE_EXHAUSTED,
    "deadline_propagation": "20",
}
"""The result of each case. Errors are codes of gRPC."""


def _python(program: str) -> Callable[[], list[str]]:
    return lambda: [sys.executable, program]


def _ruby() -> list[str]:
    ruby = shutil.which("ruby")
    if ruby is None or subprocess.run([ruby, "-rgrpc", "-e", ""], capture_output=True, check=False).returncode:
        pytest.skip("Ruby with grpc (Debian's package ruby-grpc) is not installed")
    return [ruby, "grpc_ruby.rb"]


PEERS: Final[Mapping[str, Callable[[], list[str]]]] = {
    "grpcio": _python("grpcio_sync.py"),
    "grpcio, asyncio": _python("grpcio_aio.py"),
    "grpc-js": lambda: [installed(FOLDER / "grpc_js"), "grpc_js/peer.js"],
    "grpc-ruby": _ruby,
}


@pytest.fixture(scope="module", params=PEERS)
def results(request: pytest.FixtureRequest) -> Mapping[str, Any]:
    command = PEERS[request.param]()
    with serving() as address:
        arguments = [*command, address, *CASES]
        peer = subprocess.run(arguments, cwd=FOLDER, capture_output=True, text=True, timeout=60, check=False)
    assert peer.returncode == 0, peer.stderr
    return {line["case"]: line["result"] for line in map(json.loads, peer.stdout.splitlines())}


@pytest.mark.parametrize("case", CASES)
def test_peer(results: Mapping[str, Any], case: str) -> None:
    assert results[case] == CASES[case]
