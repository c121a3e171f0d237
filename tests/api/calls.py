"""Calls of a service in the name of one person, written without request classes and headers."""

from collections.abc import Awaitable, Callable
from types import ModuleType
from typing import Any

import grpc
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message_factory import GetMessageClass

from tests.api import requests
from tests.factories import Headers, Person


class Calls:
    """The unary methods of a contract's module: `await calls.GetNote(note_id=id)` returns the response."""

    def __init__(self, channel: grpc.aio.Channel, contract: ModuleType, headers: Headers) -> None:
        self._channel, self._contract, self._headers = channel, contract, headers

    def by(self, person: Person) -> "Calls":
        return Calls(self._channel, self._contract, person.headers)

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        method = self._method(name)

        def call(**fields: Any) -> Awaitable[Any]:
            request = GetMessageClass(method.input_type)(**fields)
            sent: Awaitable[Any] = requests.send(self._channel, method, request, self._headers)
            return sent

        return call

    async def pages(self, name: str, **fields: Any) -> list[Any]:
        """All resources of a List method, two to a page."""
        listed = next(field.name for field in self._method(name).output_type.fields if field.is_repeated)
        found, token = list[Any](), ""
        while True:
            page = await getattr(self, name)(page_size=2, page_token=token, **fields)
            found += getattr(page, listed)
            if not (token := page.next_page_token):
                return found

    def _method(self, name: str) -> MethodDescriptor:
        services = self._contract.DESCRIPTOR.services_by_name.values()
        found = (service.methods_by_name[name] for service in services if name in service.methods_by_name)
        method: MethodDescriptor = next(found)
        return method
