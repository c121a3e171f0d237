"""How providers are spoken to: to where we were told and nowhere else, for a few seconds, and for a bounded answer."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cached_property
from typing import Any, Final

import httpx2
from authlib.integrations.base_client import OAuthError  # type: ignore[import-untyped]  # it has no annotations
from authlib.integrations.httpx_client import AsyncOAuth2Client  # type: ignore[import-untyped]  # … nor here

from accord_auth.providers.encodings import read_object
from accord_auth.providers.faults import ProviderUnreachable, SignInFailed
from accord_auth.providers.settings import ProviderSettings

SECONDS: Final = 5.0
MOST_BYTES: Final = 256 * 1024

# What is compressed cannot be bounded before it is unpacked.
_HEADERS: Final = {"Accept": "application/json", "Accept-Encoding": "identity", "User-Agent": "accord"}


class Http:
    """Redirects are not followed, and neither proxies nor credentials are taken from the environment."""

    @asynccontextmanager
    async def client(self, settings: ProviderSettings) -> AsyncIterator[AsyncOAuth2Client]:
        """For one exchange, which has SECONDS in all. Raises ProviderUnreachable."""
        transport = _Bounded(httpx2.AsyncHTTPTransport(verify=self._tls, trust_env=False))
        try:
            async with (
                asyncio.timeout(SECONDS),
                AsyncOAuth2Client(
                    settings.client_id,
                    settings.client_secret,
                    code_challenge_method="S256",
                    transport=transport,
                    headers=_HEADERS,
                    timeout=SECONDS,
                    trust_env=False,
                ) as client,
            ):
                yield client
        except TimeoutError:
            raise ProviderUnreachable(f"no answer within {SECONDS:.0f} s") from None
        except httpx2.TransportError as error:
            raise ProviderUnreachable(type(error).__name__) from None
        except (httpx2.RequestError, httpx2.InvalidURL) as error:
            raise SignInFailed(type(error).__name__) from None

    async def get_object(
        self, settings: ProviderSettings, url: str, *, access_token: str | None = None
    ) -> dict[str, Any]:
        """The JSON object that is there."""
        headers = {"Authorization": f"Bearer {access_token}"} if access_token else {}
        async with self.client(settings) as client:
            return answered_object(await client.request("GET", url, headers=headers, withhold_token=True))

    @cached_property
    def _tls(self) -> ssl.SSLContext:
        return ssl.create_default_context()  # the authorities of the system; to read them takes a while


def answered_object(response: httpx2.Response) -> dict[str, Any]:
    """Raises ProviderUnreachable if the provider says that it cannot now, SignInFailed for anything but JSON and 200."""
    if response.status_code >= 500 or response.status_code == 429:
        raise ProviderUnreachable(f"it answered {response.status_code}")
    if response.status_code != 200:
        raise SignInFailed(f"it answered {response.status_code}")
    return json_object(response)


def json_object(response: httpx2.Response) -> dict[str, Any]:
    kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json" and not (kind.startswith("application/") and kind.endswith("+json")):
        raise SignInFailed("its answer is not of a JSON type")
    try:
        return read_object(response.content)
    except ValueError:
        raise SignInFailed("its answer is no JSON object") from None


class _Bounded(httpx2.AsyncBaseTransport):
    """Ends an answer that grows too long, or comes in another form than asked for."""

    def __init__(self, transport: httpx2.AsyncBaseTransport) -> None:
        self._transport = transport

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        response = await self._transport.handle_async_request(request)
        if response.headers.get("content-encoding", "identity") != "identity":
            await response.aclose()
            raise SignInFailed("its answer is compressed, which was not asked for")
        assert isinstance(response.stream, httpx2.AsyncByteStream)
        return httpx2.Response(
            response.status_code,
            headers=response.headers,
            stream=_BoundedStream(response.stream),
            extensions=response.extensions,
        )

    async def aclose(self) -> None:
        await self._transport.aclose()


class _BoundedStream(httpx2.AsyncByteStream):
    def __init__(self, stream: httpx2.AsyncByteStream) -> None:
        self._stream = stream

    async def __aiter__(self) -> AsyncIterator[bytes]:
        left = MOST_BYTES
        async for chunk in self._stream:
            if (left := left - len(chunk)) < 0:
                raise SignInFailed(f"its answer is longer than {MOST_BYTES} bytes")
            yield chunk

    async def aclose(self) -> None:
        await self._stream.aclose()


__all__ = ["AsyncOAuth2Client", "Http", "OAuthError", "answered_object", "json_object"]
