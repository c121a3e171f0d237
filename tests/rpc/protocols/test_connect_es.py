"""connect-es as a peer: the transports for Node.js, and those for browsers on the `fetch` of Node.js."""

import asyncio
import json
from base64 import b64encode
from pathlib import Path
from typing import Any, Final

import pytest
from google.protobuf.descriptor import FileDescriptor
from google.protobuf.descriptor_pb2 import DescriptorProto, FileDescriptorSet

from tests.npm import installed
from tests.rpc.protocols.faces import KEY, pb

FOLDER: Final = Path(__file__).parents[2] / "connect_es"
TRANSPORTS: Final = (
    *("node connect json 1", "node connect json 2", "node connect binary 2"),
    *("node grpc-web 1", "node grpc-web 2", "node grpc 2"),
    *("web connect json", "web connect binary, GET", "web grpc-web"),
)
REASON: Final = ["google.rpc.ErrorInfo"]


def _descriptors(file: FileDescriptor) -> FileDescriptorSet:
    """The file after those that it imports."""
    found = FileDescriptorSet()
    seen: set[str] = set()

    def add(file: FileDescriptor) -> None:
        if file.name not in seen:
            seen.add(file.name)
            for imported in file.dependencies:
                add(imported)
            file.CopyToProto(found.file.add())
            for message in found.file[-1].message_type:
                _name(message)

    add(file)
    return found


def _name(message: DescriptorProto) -> None:
    """protoc adds the names for JSON, of which Python keeps no copy."""
    for field in message.field:
        first, *others = field.name.split("_")
        field.json_name = first + "".join(map(str.capitalize, others))
    for inner in message.nested_type:
        _name(inner)


@pytest.mark.slow
async def test_every_transport_makes_every_kind_of_call(address: str) -> None:
    descriptors = b64encode(_descriptors(pb.DESCRIPTOR).SerializeToString()).decode()
    process = await asyncio.create_subprocess_exec(
        installed(FOLDER), "peer.js", f"http://{address}", KEY, descriptors, cwd=FOLDER, stdout=asyncio.subprocess.PIPE
    )
    try:
        output, _ = await asyncio.wait_for(process.communicate(), 60)
    finally:
        if process.returncode is None:
            process.kill()
    results: dict[str, Any] = json.loads(output)
    assert results == {name: _expected(name) for name in TRANSPORTS}


def _expected(name: str) -> dict[str, Any]:
    expected: dict[str, Any] = {
        "unary": ["ü", str(2**62)],
        "large": 40_000,
        "safe": "a b+ü",
        "refused": {
            "code": "NotFound",
            "message": "The task does not exist. Check the task_id.",
            "details": REASON,
        },
        "unauthenticated": {
            "code": "Unauthenticated",
            "message": "The call has no credential. Sign in, and send the header 'authorization: Bearer <token>'.",
            "details": REASON,
        },
        "late": "DeadlineExceeded",
        "serverStream": ["a"] * 3,
        "brokenStream": {
            "code": "NotFound",
            "message": "The task does not exist. Check the task_id.",
            "details": REASON,
        },
    }
    if name.startswith("node"):
        expected["clientStream"] = "a,b,c"
    if name.endswith("2"):
        expected["bidi"] = ["a", "b", "c"]
    return expected
