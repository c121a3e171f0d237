"""Prints the OpenAPI document of the contract, from its generated code and the image that protoc compiled with comments.

openapi.py IMAGE FILE…      FILE is a proto file of the contract: accord/tasks/v1/tasks.proto
"""

import gc
import importlib
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from google.protobuf.descriptor import ServiceDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorSet

from accord_rpc.openapi.document import openapi, render


def services(files: Sequence[str]) -> Iterator[ServiceDescriptor]:
    for file in files:
        module = importlib.import_module(file.removesuffix(".proto").replace("/", ".") + "_pb2")
        yield from module.DESCRIPTOR.services_by_name.values()


def main(arguments: Sequence[str]) -> None:
    image, *files = arguments
    document = openapi(services(files), FileDescriptorSet.FromString(Path(image).read_bytes()))
    sys.stdout.buffer.write(render(document).encode())  # UTF-8, whatever the encoding of the terminal


if __name__ == "__main__":
    main(sys.argv[1:])
    gc.freeze()  # the process ends without visiting all objects again, which takes a quarter of a second
