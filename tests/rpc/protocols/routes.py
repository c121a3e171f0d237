"""Methods with HTTP rules, from a contract that a test writes in a few words."""

from itertools import count

from google.protobuf import descriptor_pool, text_format
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorProto

_NUMBERS = count()
_FILE = """
name: "{package}.proto" package: "{package}" syntax: "proto3"
dependency: ["google/api/annotations.proto", "accord/policy/v1/policy.proto", "google/protobuf/timestamp.proto",
             "google/protobuf/struct.proto", "google/protobuf/field_mask.proto"]
message_type {{ name: "Item"
  field {{ name: "id" number: 1 type: TYPE_STRING label: LABEL_OPTIONAL }}
  field {{ name: "name" number: 2 type: TYPE_STRING label: LABEL_OPTIONAL }}
  field {{ name: "key" number: 3 type: TYPE_STRING label: LABEL_OPTIONAL options {{ [accord.policy.v1.sensitive]: true }} }}
  field {{ name: "parent" number: 4 type: TYPE_MESSAGE type_name: ".{package}.Item" label: LABEL_OPTIONAL }}
}}
message_type {{ name: "Call"
  field {{ name: "item_id" number: 1 type: TYPE_STRING label: LABEL_OPTIONAL }}
  field {{ name: "item" number: 2 type: TYPE_MESSAGE type_name: ".{package}.Item" label: LABEL_OPTIONAL }}
  field {{ name: "tags" number: 3 type: TYPE_STRING label: LABEL_REPEATED }}
  field {{ name: "update_mask" number: 4 type: TYPE_MESSAGE type_name: ".google.protobuf.FieldMask" label: LABEL_OPTIONAL }}
}}
message_type {{ name: "Plain"
  field {{ name: "item_id" number: 1 type: TYPE_STRING label: LABEL_OPTIONAL }}
  field {{ name: "page_size" number: 2 type: TYPE_INT32 label: LABEL_OPTIONAL }}
}}
message_type {{ name: "Failed"
  field {{ name: "error" number: 1 type: TYPE_STRING label: LABEL_OPTIONAL }}
}}
message_type {{ name: "Listed"
  field {{ name: "settings" number: 1 type: TYPE_MESSAGE type_name: ".google.protobuf.Struct" label: LABEL_OPTIONAL }}
  field {{ name: "items" number: 2 type: TYPE_MESSAGE type_name: ".{package}.Item" label: LABEL_REPEATED }}
}}
service {{ name: "Items" {methods} }}
"""


def methods(
    *options: str, request: str = "Plain", response: str = "Item", streams_requests: bool = False, streams: bool = False
) -> list[MethodDescriptor]:
    """A method for each text of options, named Call0, Call1, … An option is a rule, `get: "/v1/items"`, or an extension."""
    package = f"routes{next(_NUMBERS)}"
    declared = "\n".join(
        f'method {{ name: "Call{index}" input_type: ".{package}.{request}" output_type: ".{package}.{response}" '
        f"client_streaming: {str(streams_requests).lower()} server_streaming: {str(streams).lower()} options {{ {_option(option)} }} }}"
        for index, option in enumerate(options)
    )
    file = text_format.Parse(_FILE.format(package=package, methods=declared), FileDescriptorProto())
    pool = descriptor_pool.Default()
    pool.Add(file)
    return list(pool.FindServiceByName(f"{package}.Items").methods)


def _option(option: str) -> str:
    """A GET has no side effects, unless its options say so."""
    if not option or option.startswith("["):
        return option
    safe = " idempotency_level: NO_SIDE_EFFECTS" if option.startswith("get:") else ""
    return f"[google.api.http] {{ {option} }}{safe}"
