"""Which faces a test of a method calls through. gRPC is tested with every method. The other faces are tested with one method of each
kind, because their code does not depend on the method otherwise; `--faces=all` tests them with every method."""

from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Final

import pytest
from google.protobuf.descriptor import MethodDescriptor

from tests.api.faces import FACES, GRPC, Face
from tests.api.matrix import policy_of
from tests.api.routes import WHOLE, route


def kind_of_route(method: MethodDescriptor) -> Hashable:
    """What decides how a face reads the request: verb, body, and variables of the path."""
    found = route(method)
    if found is None:
        return None
    body = found.body if found.body in ("", WHOLE) else "a field"
    return found.verb, body, bool(found.variables), bool(method.input_type.fields), method.server_streaming


def kind_of_policy(method: MethodDescriptor) -> Hashable:
    """What decides who may call the method."""
    policy = policy_of(method)
    granted = (bool(policy.permission), policy.personal, policy.fresh, policy.in_person)
    return policy.access, tuple(policy.credentials), granted


def representatives(
    methods: Iterable[MethodDescriptor], kind: Callable[[MethodDescriptor], Hashable] = kind_of_route
) -> list[MethodDescriptor]:
    """The first method of each kind."""
    found: dict[Hashable, MethodDescriptor] = {}
    for method in methods:
        found.setdefault(kind(method), method)
    return list(found.values())


class Faces:
    """Chooses faces for methods, by the options of the test run."""

    def __init__(self, config: pytest.Config) -> None:
        self.all: Final = config.getoption("faces") == "all"
        # grpcio's server has no other face.
        self.every: Final[Sequence[Face]] = (GRPC,) if config.getoption("server") == "grpcio" else FACES

    def of(self, method: MethodDescriptor, chosen: Iterable[MethodDescriptor]) -> list[Face]:
        """gRPC, and the other faces if the method is one of the representatives `chosen`."""
        faces = self.every if self.all or method in chosen else (GRPC,)
        return [face for face in faces if face.serves(method)]
