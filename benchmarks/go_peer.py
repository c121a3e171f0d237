"""Builds the peer in Go, if Go and Debian's packages for it are installed."""

import os
import shutil
import subprocess
from pathlib import Path
from typing import Final

SOURCES: Final = Path(__file__).parent / "peer_go"
# Debian installs the sources of packages there: GOPATH mode needs neither a proxy nor go.mod.
PACKAGES: Final = Path("/usr/share/gocode")
NEEDED: Final = ("src/google.golang.org/grpc", "src/github.com/lib/pq", "src/github.com/golang/protobuf/ptypes")
# Debian's generator is older than its protoc, which knows a newer home of this package.
GENERATE: Final = "plugins=grpc,Mgoogle/protobuf/timestamp.proto=github.com/golang/protobuf/ptypes/timestamp"
INSTALL: Final = (
    "apt install golang-go golang-google-grpc-dev golang-github-lib-pq-dev golang-goprotobuf-dev protobuf-compiler"
)


def build(folder: Path) -> Path | None:
    """The program, built again when its sources have changed. None without Go."""
    if not _can_build():
        print(f"Go is skipped. To measure it: {INSTALL}", flush=True)
        return None
    folder = folder.resolve()  # GOPATH must be absolute
    program = folder / "peer"
    sources = sorted(SOURCES.iterdir())
    if not program.exists() or program.stat().st_mtime < max(file.stat().st_mtime for file in sources):
        print("Building the peer in Go, once …", flush=True)
        _build(folder, program)
    return program


def _can_build() -> bool:
    return all(map(shutil.which, ("go", "protoc", "protoc-gen-go"))) and all(
        (PACKAGES / package).is_dir() for package in NEEDED
    )


def _build(folder: Path, program: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    package = folder / "src" / "peer"
    package.mkdir(parents=True)
    shutil.copy(SOURCES / "main.go", package)
    subprocess.run(
        ["protoc", f"--proto_path={SOURCES}", f"--go_out={GENERATE}:{folder / 'src'}", "tasks.proto"], check=True
    )
    environment = {
        **os.environ,
        "GO111MODULE": "off",
        "GOPATH": f"{folder}:{PACKAGES}",
        "GOCACHE": str(folder / "cache"),
        "CGO_ENABLED": "0",
    }
    subprocess.run(["go", "build", "-o", program, "peer"], env=environment, check=True)
