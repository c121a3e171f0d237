"""Holds what is served against the contract at start: whatever disagrees is told at once, and nothing is served."""

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
from accord_rpc.drift import drift
from accord_rpc.permissions import permission_faults
from accord_rpc.pipeline.receive import Handler
from accord_rpc.policy import Method, read_methods
from accord_rpc.status import reason_faults

CONTRACT_PACKAGE = "accord"


class ContractMismatch(Exception):
    """The gateway must not start. The message lists every fault."""

    def __init__(self, faults: Iterable[str]) -> None:
        super().__init__("The gateway and its contract disagree:\n" + "\n".join(f"  - {fault}" for fault in faults))


class Recorder:
    """Stands in for a grpcio server, so that the generated `add_…_to_server` tells what a servicer implements."""

    def __init__(self) -> None:
        self.handlers: dict[str, Handler] = {}
        self.services: set[str] = set()

    def add_generic_rpc_handlers(self, handlers: object) -> None:
        """The older of the two ways in which generated code registers; the newer one says the same, by name."""

    def add_registered_method_handlers(
        self, service: str, handlers: Mapping[str, "grpc.RpcMethodHandler[Any, Any]"]
    ) -> None:
        self.services.add(service)
        for name, handler in handlers.items():
            ways = (handler.unary_unary, handler.unary_stream, handler.stream_unary, handler.stream_stream)
            self.handlers[f"/{service}/{name}"] = cast(Handler, next(way for way in ways if way))


def contract_services() -> list[ServiceDescriptor]:
    """Every service of the generated contract, in the order of their names."""
    modules = [importlib.import_module(name) for name in sorted(_modules(files(CONTRACT_PACKAGE), CONTRACT_PACKAGE))]
    return [service for module in modules for service in module.DESCRIPTOR.services_by_name.values()]


def _modules(folder: Traversable, package: str) -> Iterator[str]:
    for entry in folder.iterdir():
        if entry.is_dir():
            yield from _modules(entry, f"{package}.{entry.name}")
        elif entry.name.endswith("_pb2.py"):
            yield f"{package}.{entry.name.removesuffix('.py')}"


def check(
    services: Iterable[ServiceDescriptor],
    registered: Recorder,
    resources: Mapping[type[Message], type[Model]],
    validator: Validator,
) -> list[Method]:
    """The methods to serve. Raises ContractMismatch, with every fault there is, if any of them does not hold."""
    services = list(services)
    methods, faults = read_methods(services)
    faults += reason_faults()
    faults += permission_faults()
    faults += _registration_faults(services, registered)
    faults += _rule_faults(methods, validator)
    faults += [fault for message, model in resources.items() for fault in drift(message, model)]
    faults += _resource_faults(services, resources)
    if faults:
        raise ContractMismatch(faults)
    return methods


def _registration_faults(services: Iterable[ServiceDescriptor], registered: Recorder) -> Iterator[str]:
    names = {service.full_name: service for service in services}
    yield from (
        f"{name}: the contract has this service, but no handler is registered"
        for name in names.keys() - registered.services
    )
    yield from (
        f"{name}: a handler is registered, but the contract has no such service"
        for name in registered.services - names.keys()
    )
    for name in names.keys() & registered.services:
        for method in names[name].methods:
            if _is_generated(registered.handlers.get(f"/{name}/{method.name}")):
                yield f"{method.full_name}: the handler does not implement it"


def _is_generated(handler: object) -> bool:
    """Whether it is the generated servicer's own method, which answers UNIMPLEMENTED, or nothing at all."""
    return handler is None or getattr(handler, "__module__", "").endswith("_pb2_grpc")


def _rule_faults(methods: Iterable[Method], validator: Validator) -> Iterator[str]:
    """protovalidate compiles a message's rules when it first sees one: that is now, and not at a call."""
    for method in methods:
        try:
            validator.collect_violations(method.request())
        except CompilationError as error:
            yield f"{method.request.DESCRIPTOR.full_name}: its rules do not compile: {error}"


def _resource_faults(
    services: Iterable[ServiceDescriptor],
    resources: Mapping[type[Message], type[Model]],
) -> Iterator[str]:
    """A message of the contract with an `id` stands for a row, and must say of which table."""
    known = {message.DESCRIPTOR.full_name for message in resources}
    for file in {service.file for service in services}:
        for message in file.message_types_by_name.values():
            if "id" in message.fields_by_name and message.full_name not in known:
                yield f"{message.full_name}: has an id, but no table is registered for it"
