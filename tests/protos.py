"""Contracts that exist for tests alone. Their Python is generated at the first use and never committed."""

import importlib
import sys
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import NamedTuple

import grpc_tools
from grpc_tools import protoc

from stubs import _validation_rules

CONTRACT = Path(__file__).resolve().parents[1] / "proto"


class Generated(NamedTuple):
    """The modules of one proto file."""

    messages: ModuleType
    stubs: ModuleType


@cache
def generated(root: Path, file: str) -> Generated:
    """`file` is relative to `root`, and may import the contract."""
    packages = next(path for path in sys.path if path.endswith("site-packages"))
    well_known = Path(grpc_tools.__file__).parent / "_proto"
    name = file.removesuffix(".proto").replace("/", ".")
    with TemporaryDirectory(prefix="accord-protos-") as target:
        rules = Path(target) / "rules.binpb"
        rules.write_bytes(_validation_rules().SerializeToString())
        arguments = ["protoc", *(f"-I{path}" for path in (root, CONTRACT, packages, well_known))]
        arguments += [f"--descriptor_set_in={rules}", f"--python_out={target}", f"--grpc_python_out={target}", file]
        assert protoc.main(arguments) == 0
        sys.path.append(target)
        try:
            return Generated(importlib.import_module(f"{name}_pb2"), importlib.import_module(f"{name}_pb2_grpc"))
        finally:
            sys.path.remove(target)
