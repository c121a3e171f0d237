"""Which faces a test of a method calls through. gRPC is tested with every method. The other faces are tested with one method of each
kind, because their code does not depend on the method otherwise; `--faces=all` tests them with every method."""

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from typing import Final

import pytest
from google.protobuf.descriptor import Descriptor, MethodDescriptor

from tests.api.faces import FACES, GRPC, Face
from tests.api.matrix import policy_of
from tests.api.routes import WHOLE, route

Traits = Callable[[MethodDescriptor], Iterable[Hashable]]


def traits_of_request(method: MethodDescriptor) -> Iterator[Hashable]:
    """What decides how a face reads the request: verb, body and variables of the route, and each kind of field."""
    found = route(method)
    if found is not None:
        body = found.body if found.body in ("", WHOLE) else "a field"
        yield found.verb, body, bool(found.variables), method.server_streaming
    yield from _kinds_of_fields(method.input_type)


def traits_of_policy(method: MethodDescriptor) -> Iterator[Hashable]:
    """What decides who may call the method."""
    policy = policy_of(method)
    yield policy.access, *policy.credentials, bool(policy.permission), policy.personal, policy.fresh, policy.in_person


def representatives(methods: Iterable[MethodDescriptor], traits: Traits = traits_of_request) -> list[MethodDescriptor]:
    """Methods that together have every trait: each has one that those before it have not."""
    seen, found = set[Hashable](), list[MethodDescriptor]()
    for method in methods:
        if new := set(traits(method)) - seen:
            found.append(method)
            seen |= new
    return found


def _kinds_of_fields(message: Descriptor, depth: int = 0) -> Iterator[Hashable]:
    for field in message.fields:
        inner = field.message_type
        if inner is None:
            yield field.type, field.is_repeated
        elif inner.full_name.startswith("google."):
            yield inner.full_name, field.is_repeated
        else:
            yield "message", field.is_repeated
            if depth < 3:  # types can be recursive
                yield from _kinds_of_fields(inner, depth + 1)


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
