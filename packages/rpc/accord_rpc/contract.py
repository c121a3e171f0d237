"""Compares what is served with the contract, at start. Every difference is reported, and nothing is served."""

import importlib
from collections.abc import Iterable, Iterator, Mapping
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Any, cast

import grpc
from google.protobuf.descriptor import ServiceDescriptor
from google.protobuf.message import Message
from protovalidate import CompilationError, Validator

from accord_db.engine.model import Model
from accord_db.engine.row_level_security import tenant_problems
from accord_rpc.drift import drift, request_drift
from accord_rpc.expansions import expansion_problems
from accord_rpc.permissions import permission_faults
from accord_rpc.pipeline.receive import Handler
from accord_rpc.policy import Method, read_methods
from accord_rpc.protocols.rest.http_rules import http_rule_problems
from accord_rpc.reasons import reason_faults
from accord_rpc.tenancy import tenancy_problems
from accord_rpc.views import view_problems

CONTRACT_PACKAGE = "accord"


class ContractMismatch(Exception):
    """The gateway must not start. The message lists every problem."""

    def __init__(self, problems: Iterable[str]) -> None:
        super().__init__(
            "The gateway and its contract disagree:\n" + "\n".join(f"  - {problem}" for problem in problems)
        )


class Registry:
    """The handlers of all services, collected through the generated `add_…Servicer_to_server` of each."""

    def __init__(self, servicers: Iterable[object] = ()) -> None:
        self.handlers: dict[str, Handler] = {}
        self.services: set[str] = set()
        # Which table the messages of a type are filled from.
        self.resources: dict[type[Message], type[Model]] = {}
        for servicer in servicers:
            self.add(servicer)

    def add(self, servicer: object) -> None:
        """Registers an instance of a generated servicer. Its class may name `resources`: message type to table."""
        generated = next(base for base in type(servicer).__mro__ if base.__module__.endswith("_pb2_grpc"))
        module = importlib.import_module(generated.__module__)
        getattr(module, f"add_{generated.__name__}_to_server")(servicer, self)
        self.resources |= getattr(servicer, "resources", {})

    def add_generic_rpc_handlers(self, handlers: object) -> None:
        """Called by generated code before `add_registered_method_handlers`, with the same handlers."""

    def add_registered_method_handlers(
        self, service: str, handlers: Mapping[str, "grpc.RpcMethodHandler[Any, Any]"]
    ) -> None:
        self.services.add(service)
        for name, handler in handlers.items():
            kinds = (handler.unary_unary, handler.unary_stream, handler.stream_unary, handler.stream_stream)
            self.handlers[f"/{service}/{name}"] = cast(Handler, next(kind for kind in kinds if kind))


def contract_services() -> list[ServiceDescriptor]:
    """Every service of the generated contract, sorted by file."""
    modules = [importlib.import_module(name) for name in sorted(_modules(files(CONTRACT_PACKAGE), CONTRACT_PACKAGE))]
    return [service for module in modules for service in module.DESCRIPTOR.services_by_name.values()]


def _modules(folder: Traversable, package: str) -> Iterator[str]:
    for entry in folder.iterdir():
        if entry.is_dir():
            yield from _modules(entry, f"{package}.{entry.name}")
        elif entry.name.endswith("_pb2.py"):
            yield f"{package}.{entry.name.removesuffix('.py')}"


def check(services: Iterable[ServiceDescriptor], registry: Registry, validator: Validator) -> list[Method]:
    """The methods to serve. Raises ContractMismatch with every problem found."""
    services = list(services)
    methods, problems = read_methods(services)
    problems += http_rule_problems(method for service in services for method in service.methods)
    problems += reason_faults()
    problems += permission_faults()
    problems += _registration_problems(services, registry)
    problems += _rule_problems(methods, validator)
    problems += tenancy_problems(methods, registry.handlers)
    problems += [problem for message, model in registry.resources.items() for problem in drift(message, model)]
    problems += [problem for method in methods for problem in request_drift(method, registry.resources)]
    problems += expansion_problems(methods)
    problems += view_problems(methods, registry.resources)
    problems += _resource_problems(services, registry.resources)
    problems += tenant_problems(Model.metadata)
    if problems:
        raise ContractMismatch(problems)
    return methods


def _registration_problems(services: Iterable[ServiceDescriptor], registry: Registry) -> Iterator[str]:
    names = {service.full_name: service for service in services}
    yield from (
        f"{name}: the contract has this service, but no handler is registered"
        for name in names.keys() - registry.services
    )
    yield from (
        f"{name}: a handler is registered, but the contract has no such service"
        for name in registry.services - names.keys()
    )
    for name in names.keys() & registry.services:
        for method in names[name].methods:
            if _is_generated(registry.handlers.get(f"/{name}/{method.name}")):
                yield f"{method.full_name}: the handler does not implement it"


def _is_generated(handler: object) -> bool:
    """Whether it is missing, or the generated servicer's own method, which returns UNIMPLEMENTED."""
    return handler is None or getattr(handler, "__module__", "").endswith("_pb2_grpc")


def _rule_problems(methods: Iterable[Method], validator: Validator) -> Iterator[str]:
    """Validates an empty message of each type, because protovalidate compiles rules at the first use."""
    for method in methods:
        try:
            validator.collect_violations(method.request())
        except CompilationError as error:
            yield f"{method.request.DESCRIPTOR.full_name}: its rules do not compile: {error}"


def _resource_problems(
    services: Iterable[ServiceDescriptor],
    resources: Mapping[type[Message], type[Model]],
) -> Iterator[str]:
    """A message with an `id` is filled from a row, so a servicer must name its table."""
    known = {message.DESCRIPTOR.full_name for message in resources}
    for file in {service.file for service in services}:
        for message in file.message_types_by_name.values():
            if "id" in message.fields_by_name and message.full_name not in known:
                yield f"{message.full_name}: has an id, but no servicer names its table (resources)"
