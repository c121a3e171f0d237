"""Checks the contract in proto/ with buf.

contract.py lint       checks the style, configured in buf.yaml, and the HTTP routes
contract.py breaking   checks the compatibility with the released contract and with that of main
contract.py release    makes the current contract the released one
"""

import argparse
import re
import subprocess
import sys
import sysconfig
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool

from accord_rpc.protocols.rest.http_rules import http_rule_problems
from stubs import ROOT, SOURCES, ContractError, compile_image

RELEASED = SOURCES / "released.binpb"


def lint(folder: Path) -> None:
    image = image_of(SOURCES, folder / "current.binpb")
    buf("lint", image)
    if problems := http_rule_problems(methods_of(FileDescriptorSet.FromString(image.read_bytes()))):
        raise ContractError("\n".join(problems))


def methods_of(image: FileDescriptorSet) -> Iterator[MethodDescriptor]:
    """Every method of the contract's own files."""
    pool = DescriptorPool()
    for file in image.file:  # an image lists a file after its imports
        pool.Add(file)
    for file in image.file:
        for service in pool.FindFileByName(file.name).services_by_name.values():
            yield from service.methods


def breaking(folder: Path) -> None:
    current = image_of(SOURCES, folder / "current.binpb")
    for name, base in earlier_contracts(folder):
        print(f"compared with {name}")
        buf("breaking", current, f"--against={base}")


def release(folder: Path) -> None:
    breaking(folder)
    image = compile_image(SOURCES, folder / "current.binpb")
    for file in image.file:
        file.ClearField("source_code_info")
    RELEASED.write_bytes(image.SerializeToString(deterministic=True))
    print(f"released: {RELEASED.relative_to(ROOT)}; commit it")


def earlier_contracts(folder: Path) -> Iterator[tuple[str, Path]]:
    """The name and the image of each contract that callers may use."""
    if RELEASED.exists():
        yield "the released contract", RELEASED
    if (base := base_of_branch()) and git("ls-tree", base, "proto"):
        archive, sources = folder / "base.zip", folder / "base"
        git("archive", "--format=zip", f"--output={archive}", base, "proto")
        zipfile.ZipFile(archive).extractall(sources)
        yield f"main ({base[:12]})", image_of(sources / "proto", folder / "base.binpb")


def base_of_branch() -> str | None:
    """The merge base with main. None on main, outside git, and in a clone without main."""
    if git("branch", "--show-current") == "main":
        return None
    for main in ("origin/main", "main"):
        if tip := git("rev-parse", "--verify", "--quiet", f"{main}^{{commit}}"):
            return git("merge-base", "HEAD", tip) or tip
    return None


def image_of(sources: Path, image: Path) -> Path:
    compile_image(sources, image)
    return image


def buf(command: str, image: Path, *arguments: str) -> None:
    program = Path(sysconfig.get_path("scripts"), "buf")
    # The image also contains third-party files; the path excludes them.
    call = [str(program), command, str(image), f"--config={ROOT / 'buf.yaml'}", "--path=accord", *arguments]
    done = subprocess.run(call, capture_output=True, text=True)
    if done.returncode:
        raise ContractError(re.sub(r"^accord/", "proto/accord/", done.stdout + done.stderr, flags=re.MULTILINE).strip())


def git(*arguments: str) -> str:
    """The output of git, empty if it fails or is not installed."""
    try:
        done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True)
    except OSError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def main(arguments: Sequence[str] | None = None) -> int:
    commands = {command.__name__: command for command in (lint, breaking, release)}
    parser = argparse.ArgumentParser(description="Check the contract in proto/ with buf.")
    parser.add_argument("command", choices=commands)
    command = commands[parser.parse_args(arguments).command]
    with tempfile.TemporaryDirectory() as folder:
        try:
            command(Path(folder))
        except ContractError as error:
            print(error, file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
