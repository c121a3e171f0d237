"""The JSON form of messages (protobuf.dev/programming-guides/json), compiled once for each type. Reads strictly.

Public: `json_reader` and `json_writer` for whole bodies; `parse`, `message_reader`, `scalar_reader` and `Violations` for a
protocol that takes a message from several places."""

from accord_rpc.protocols.json_codec.document import Violations, parse
from accord_rpc.protocols.json_codec.reader import json_reader, message_reader
from accord_rpc.protocols.json_codec.scalars import scalar_reader
from accord_rpc.protocols.json_codec.writer import json_writer, message_writer

__all__ = [
    "Violations",
    "json_reader",
    "json_writer",
    "message_reader",
    "message_writer",
    "parse",
    "scalar_reader",
]
