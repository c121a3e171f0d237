"""TLS on the port: ALPN, limits of the handshake, renewed certificates."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trustme

from accord_rpc.server.listening import CertificateFiles, Certificates
from tests.rpc.server.serving import Client, Site, describe, serving

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


class Authority:
    def __init__(self, folder: Path) -> None:
        self._authority = trustme.CA()
        self._files = CertificateFiles(folder / "certificate.pem", folder / "key.pem")
        self.renew()
        self.certificates = Certificates(self._files)

    def renew(self) -> None:
        pair = self._authority.issue_cert("localhost")
        pair.private_key_pem.write_to_path(str(self._files.key))
        pair.cert_chain_pems[0].write_to_path(str(self._files.certificate))

    @asynccontextmanager
    async def serving(self, *alpn: str, **limits: Any) -> AsyncIterator[tuple[Site, Client]]:
        """A server, and a client that is connected."""
        async with serving(describe, self.certificates, **limits) as site, self.client(site, *alpn) as client:
            yield site, client

    @asynccontextmanager
    async def client(self, site: Site, *alpn: str) -> AsyncIterator[Client]:
        context = ssl.create_default_context()
        self._authority.configure_trust(context)
        if alpn:
            context.set_alpn_protocols(alpn)
        async with site.client(ssl=context, server_hostname="localhost") as client:
            yield client


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def serial_number(client: Client) -> object:
    return client._writer.get_extra_info("peercert")["serialNumber"]


@pytest.mark.parametrize("alpn", [(), ("http/1.1",)])
async def test_http1_over_tls(authority: Authority, alpn: tuple[str, ...]) -> None:
    async with authority.serving(*alpn) as (_site, client):
        for _ in range(2):
            seen = (await client.request(GET)).json()
            assert seen["secure"] is True
            assert seen["peer"].startswith("ipv4:127.0.0.1:")
        await client.request(GET.replace(b"Host", b"Connection: close\r\nHost"))
        assert await client.rest() == b""


async def test_client_that_is_refused_gets_the_reason_over_tls(authority: Authority) -> None:
    async with authority.serving() as (site, client):
        assert (await client.request(b"NONSENSE\r\n\r\n")).status == 400
        site.pass_time(3)
        assert await client.rest() == b""


async def test_alpn_chooses_http2(authority: Authority) -> None:
    async with authority.serving("h2", "http/1.1") as (_site, client):
        assert (await client.read(9))[3] == 4  # SETTINGS, before the client has sent a byte


async def test_client_without_a_handshake_is_counted_and_closed(authority: Authority) -> None:
    limited = serving(describe, authority.certificates, connections_per_address=2)
    async with limited as site, site.client() as silent, site.client() as fragment:
        await site.until(connections=2)
        fragment.send(b"\x16\x03\x01")
        async with site.client() as third:
            assert await third.rest() == b""
        site.pass_time(6)
        assert await silent.rest() == b""
        assert await fragment.rest() == b""
        await site.until(connections=0)


async def test_plaintext_on_a_port_with_tls_is_closed(authority: Authority) -> None:
    async with serving(describe, authority.certificates) as site, site.client() as client:
        client.send(GET)
        assert not (await client.rest()).startswith(b"HTTP")
        await site.until(connections=0)


async def test_renewed_certificate_is_used_for_new_connections(authority: Authority) -> None:
    async with authority.serving() as (site, old):
        authority.renew()
        authority.certificates.reload_if_changed()
        async with authority.client(site) as new:
            assert serial_number(new) != serial_number(old)
            assert (await new.request(GET)).status == (await old.request(GET)).status == 200


async def test_stop_ends_handshakes(authority: Authority) -> None:
    async with serving(describe, authority.certificates) as site, site.client() as client:
        await site.until(connections=1)
        async with asyncio.timeout(3):
            await site.server.stop(5)
        assert await client.rest() == b""
