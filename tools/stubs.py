"""Generates packages/contract, with the OpenAPI document, and the exceptions of packages/client from proto/.

stubs.py             writes missing and stale files, and removes files without a proto file
stubs.py --check     writes nothing; lists stale files and fails if there are any
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Sequence
from pathlib import Path

from google.protobuf import descriptor_pb2, duration_pb2, field_mask_pb2, timestamp_pb2
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet
from protovalidate._gen.buf.validate import validate_pb

from client_errors import AmbiguousName, client_errors

ROOT = Path(__file__).resolve().parent.parent
SOURCES = ROOT / "proto"
CONTRACT = ROOT / "packages" / "contract"
CLIENT = ROOT / "packages" / "client" / "accord_client"
PACKAGES = ("accord", "buf")
CLIENT_ERRORS = "errors.py"  # the one file of `CLIENT` that is generated
OPENAPI = "accord/openapi.json"
RULES = "buf/validate/validate.proto"  # the generated code of the contract imports its Python module


# The application uses the import when it declares its first value.
_UNUSED_IMPORT_OF_APPLICATION = re.compile(r"^.*/accord/app/\S+ warning: Import \S+ is unused\.\n", flags=re.MULTILINE)


class ContractError(Exception):
    """The proto files do not compile. The message is protoc's."""


def proto_files(sources: Path) -> list[str]:
    return sorted(path.relative_to(sources).as_posix() for path in sources.rglob("*.proto"))


def compile_image(sources: Path, image: Path) -> FileDescriptorSet:
    """Writes the descriptors of every proto file below `sources`, with imports and comments, to `image`."""
    files = proto_files(sources)
    if not files:
        raise ContractError(f"There is no proto file in {sources}.")
    _protoc(sources, "--include_imports", "--include_source_info", f"--descriptor_set_out={image}", *files)
    return FileDescriptorSet.FromString(image.read_bytes())


def generate(sources: Path, target: Path) -> None:
    """Fills the empty folder `target` with the Python packages of every proto file below `sources`, and CLIENT_ERRORS."""
    image = compile_image(sources, target / "image")
    own = set(proto_files(sources))
    messages = sorted({*own, RULES})
    _protoc(sources, f"--python_out={target}", f"--mypy_out=quiet:{target}", *messages)
    services = [file.name for file in image.file if file.name in own and file.service]
    if services:
        _protoc(sources, f"--grpc_python_out={target}", f"--mypy_grpc_out=quiet:{target}", *services)
    for folder in {path.parent for path in target.rglob("*.py")}:
        # `accord` and `buf` are namespace packages, so each folder of modules has its own marker (PEP 561).
        (folder / "py.typed").touch()
    (target / CLIENT_ERRORS).write_text(client_errors(image))
    (target / OPENAPI).write_text(_openapi(target, target / "image", services), encoding="utf-8")
    (target / "image").unlink()


def _openapi(target: Path, image: Path, services: Sequence[str]) -> str:
    """Another process imports the new code; this one may have imported the previous code."""
    program = Path(__file__).with_name("openapi.py")
    command = [sys.executable, str(program), str(image), *services]
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": str(target)}, capture_output=True)
    if done.returncode:
        raise ContractError(done.stderr.decode(errors="replace").strip())
    return done.stdout.decode()


def _protoc(sources: Path, *arguments: str) -> None:
    scripts, packages = sysconfig.get_path("scripts"), sysconfig.get_path("purelib")
    with tempfile.NamedTemporaryFile(suffix=".binpb") as rules:
        rules.write(_validation_rules().SerializeToString())
        rules.flush()
        command = [
            *(sys.executable, "-m", "grpc_tools.protoc"),
            *(f"--proto_path={sources}", f"--proto_path={packages}"),  # googleapis-common-protos ships its proto files
            f"--descriptor_set_in={rules.name}",
            *(f"--plugin={name}={Path(scripts, name)}" for name in ("protoc-gen-mypy", "protoc-gen-mypy_grpc")),
            *arguments,
        ]
        done = subprocess.run(command, cwd=sources, capture_output=True, text=True)
    if done.returncode:
        raise ContractError(done.stderr.strip())
    sys.stderr.write(_UNUSED_IMPORT_OF_APPLICATION.sub("", done.stderr))


def _validation_rules() -> FileDescriptorSet:
    """`buf/validate/validate.proto` and its imports. protovalidate's wheel has the descriptor but not the source."""
    files = FileDescriptorSet()
    for imported in (descriptor_pb2, duration_pb2, field_mask_pb2, timestamp_pb2):
        imported.DESCRIPTOR.CopyToProto(files.file.add())
    files.file.append(FileDescriptorProto.FromString(validate_pb.desc().proto.to_binary()))
    return files


def stale_files(fresh: Path, committed: Path) -> list[str]:
    """The relative paths of files that differ or exist in one folder only."""
    everything = sorted(generated_files(fresh) | generated_files(committed))
    return [path for path in everything if content(fresh / path) != content(committed / path)]


def generated_files(root: Path) -> set[str]:
    files = (path for package in PACKAGES for path in (root / package).rglob("*") if path.is_file())
    return {path.relative_to(root).as_posix() for path in files if path.parent.name != "__pycache__"}


def content(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() else None


def update_file(path: str, fresh: Path, committed: Path) -> str:
    """Copies or removes one file. Returns the verb for the report."""
    target, expected = committed / path, content(fresh / path)
    if expected is None:
        target.unlink()
        return "removed"
    verb = "changed" if target.exists() else "added"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(expected)
    return verb


def remove_empty_folders(root: Path) -> None:
    """Removes folders without generated files, so that their compiled modules cannot be imported."""
    for folder in sorted((path for package in PACKAGES for path in (root / package).rglob("*")), reverse=True):
        if (
            folder.is_dir()
            and folder.name != "__pycache__"
            and {path.name for path in folder.iterdir()} <= {"__pycache__"}
        ):
            shutil.rmtree(folder)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description="Generate packages/contract, and the exceptions of packages/client, from proto/."
    )
    parser.add_argument("--check", action="store_true", help="write nothing, fail if the committed code is stale")
    check = parser.parse_args(arguments).check
    with tempfile.TemporaryDirectory() as folder:
        fresh = Path(folder)
        try:
            generate(SOURCES, fresh)
        except (ContractError, AmbiguousName) as error:
            print(error, file=sys.stderr)
            return 1
        stale = [(path, CONTRACT) for path in stale_files(fresh, CONTRACT)]
        if content(fresh / CLIENT_ERRORS) != content(CLIENT / CLIENT_ERRORS):
            stale.append((CLIENT_ERRORS, CLIENT))
        for path, committed in stale:
            print(f"stale: {path}" if check else f"{update_file(path, fresh, committed)}: {path}")
    if check and stale:
        print("The generated code does not match proto/. Run `make stubs` and commit the result.", file=sys.stderr)
        return 1
    if stale:
        remove_empty_folders(CONTRACT)
    return 0


if __name__ == "__main__":
    sys.exit(main())
