import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass

import httpx2
import pytest

from tests.rpc.protocols.faces import KEY, SERVICE, Service, serving

# The service has no TLS. By default, each client reads the certificate authorities of the system.
NO_AUTHORITIES = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
OWN = {"authorization": KEY}


@dataclass(frozen=True)
class Faces:
    """The service, its address, and a client of one version of HTTP."""

    service: Service
    address: str
    http: httpx2.AsyncClient

    async def post(self, method: str, kind: str, body: bytes | str = b"", **headers: str) -> httpx2.Response:
        """Names of headers with underscores instead of hyphens. The caller has the key, unless `authorization` is empty."""
        own = OWN | {name.replace("_", "-"): value for name, value in headers.items()} | {"content-type": kind}
        own = {name: value for name, value in own.items() if value}
        return await self.http.post(f"/{SERVICE}/{method}", content=body, headers=own)


@pytest.fixture
async def service() -> Service:
    return Service()


@pytest.fixture
async def address(service: Service) -> AsyncIterator[str]:
    async with serving(service) as address:
        yield address


@pytest.fixture(params=[1, 2], ids=["http1", "http2"])
async def faces(service: Service, address: str, request: pytest.FixtureRequest) -> AsyncIterator[Faces]:
    http1, base = request.param == 1, f"http://{address}"
    async with httpx2.AsyncClient(
        http1=http1, http2=not http1, base_url=base, trust_env=False, verify=NO_AUTHORITIES
    ) as http:
        http.headers.clear()
        yield Faces(service, address, http)
