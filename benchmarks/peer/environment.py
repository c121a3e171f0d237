"""The peer's Python environment, made once and again when its lock has changed."""

import subprocess
import sys
from pathlib import Path

LOCK = Path(__file__).parent.parent / "peer-requirements.lock"


def python(folder: Path) -> Path:
    """Its interpreter. The stamp is written last, so that an interrupted set-up starts again."""
    stamp, interpreter = folder / "lock", folder / "bin" / "python"
    if not (stamp.exists() and stamp.read_bytes() == LOCK.read_bytes()):
        print("Making the peer's environment, once …", flush=True)
        subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
        install = ["install", "--quiet", "--only-binary=:all:", "--require-hashes", f"--requirement={LOCK}"]
        subprocess.run([interpreter, "-m", "pip", "--disable-pip-version-check", *install], check=True)
        stamp.write_bytes(LOCK.read_bytes())
    return interpreter
