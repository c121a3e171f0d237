"""A reason and a permission that an application adds in accord/app/v1 work on the server and in the client.

The values of an enum are fixed when its module is imported, so the cases in application_cases.py run in another
process, with code that is generated from a copy of the contract with the two values.
"""

import os
import subprocess
import sysconfig
from pathlib import Path
from shutil import copytree

import pytest

import stubs

ROOT = Path(__file__).resolve().parents[2]
PROTOS = Path(__file__).parent / "protos"
VALUES = {
    "reasons": """
  // The probe is not ready. Metadata: `probe_id`.
  REASON_PROBE_NOT_READY = 900000 [(accord.errors.v1.answer) = {
    code: FAILED_PRECONDITION
    message: "The probe is not ready. Try again when it is."
  }];
  // Declared by no method.
  REASON_PROBE_LOST = 900001 [(accord.errors.v1.answer) = {
    code: NOT_FOUND
    message: "The probe is lost."
  }];
}
""",
    "permissions": """
  // Launch the organization's probes.
  PERMISSION_PROBES_LAUNCH = 900000 [
    (accord.policy.v1.permission_name) = "probes.launch",
    (accord.policy.v1.held_by) = ROLE_ADMIN
  ];
}
""",
}


@pytest.fixture
def application(tmp_path: Path) -> Path:
    """A folder with the generated code of the contract, its client exceptions, and the service of application.proto."""
    sources, target = tmp_path / "proto", tmp_path / "python"
    copytree(stubs.SOURCES, sources)
    for name, values in VALUES.items():
        file = sources / f"accord/app/v1/{name}.proto"
        file.write_text(file.read_text().rstrip().removesuffix("}") + values.lstrip("\n"))
    target.mkdir()
    stubs.generate(sources, target)
    probes = [f"--proto_path={PROTOS}", f"--python_out={target}", f"--grpc_python_out={target}"]
    stubs._protoc(sources, *probes, "probe/v1/application.proto")
    (target / "application_errors.py").write_text((target / stubs.CLIENT_ERRORS).read_text())
    return target


def test_reason_and_permission_of_an_application_work_end_to_end(application: Path) -> None:
    pytest_ = Path(sysconfig.get_path("scripts"), "pytest")
    call = [str(pytest_), "-q", "-p", "no:cacheprovider", "tests/api/application_cases.py"]
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    environment = inherited | {"PYTHONPATH": str(application)}
    done = subprocess.run(call, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert " skipped" not in done.stdout
