"""The HTTP client for providers: no redirects, a short timeout, and responses of bounded size."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache
from typing import Any, Final

import httpx2
from authlib.integrations.base_client import OAuthError  # type: ignore[import-untyped]  # no annotations
from authlib.integrations.httpx_client import AsyncOAuth2Client  # type: ignore[import-untyped]

from accord_auth.providers.encodings import read_object
from accord_auth.providers.errors import ProviderUnreachable, SignInFailed
from accord_auth.providers.provider_identity import ProviderSettings

TIMEOUT_SECONDS: Final = 5.0
MAX_BYTES: Final = 256 * 1024

# No compression: the size of a response would be known only after it is decompressed.
_HEADERS: Final = {"Accept": "application/json", "Accept-Encoding": "identity", "User-Agent": "accord"}


class Http:
    """Does not follow redirects, and does not read proxies or credentials from the environment."""

    @asynccontextmanager
    async def client(self, settings: ProviderSettings) -> AsyncIterator[AsyncOAuth2Client]:
        """For one exchange of TIMEOUT_SECONDS at most. Raises ProviderUnreachable, SignInFailed."""
        transport = _Bounded(httpx2.AsyncHTTPTransport(verify=_tls(), trust_env=False))
        try:
            async with (
                asyncio.timeout(TIMEOUT_SECONDS),
                AsyncOAuth2Client(
                    settings.client_id,
                    settings.client_secret,
                    code_challenge_method="S256",
                    transport=transport,
                    headers=_HEADERS,
                    timeout=TIMEOUT_SECONDS,
                    trust_env=False,
                ) as client,
            ):
                yield client
        except TimeoutError:
            raise ProviderUnreachable(f"no response within {TIMEOUT_SECONDS:.0f} s") from None
        except httpx2.TransportError as error:
            raise ProviderUnreachable(type(error).__name__) from None
        except (httpx2.RequestError, httpx2.InvalidURL) as error:
            raise SignInFailed(type(error).__name__) from None

    async def get_object(
        self, settings: ProviderSettings, url: str, *, access_token: str | None = None
    ) -> dict[str, Any]:
        """Raises ProviderUnreachable, and SignInFailed unless the response is a JSON object."""
        headers = {"Authorization": f"Bearer {access_token}"} if access_token else {}
        async with self.client(settings) as client:
            return response_object(await client.request("GET", url, headers=headers, withhold_token=True))


@cache
def _tls() -> ssl.SSLContext:
    return ssl.create_default_context()  # reads the certificate authorities of the system, once


def response_object(response: httpx2.Response) -> dict[str, Any]:
    """Raises ProviderUnreachable for 429 and 5xx, SignInFailed unless the response is 200 with a JSON object."""
    if response.status_code >= 500 or response.status_code == 429:
        raise ProviderUnreachable(f"it responded {response.status_code}")
    if response.status_code != 200:
        raise SignInFailed(f"it responded {response.status_code}")
    return json_object(response)


def json_object(response: httpx2.Response) -> dict[str, Any]:
    kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json" and not (kind.startswith("application/") and kind.endswith("+json")):
        raise SignInFailed("its response has no JSON content type")
    try:
        return read_object(response.content)
    except ValueError:
        raise SignInFailed("its response is not a JSON object") from None


class _Bounded(httpx2.AsyncBaseTransport):
    """Refuses responses that are too long or compressed."""

    def __init__(self, transport: httpx2.AsyncBaseTransport) -> None:
        self._transport = transport

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        response = await self._transport.handle_async_request(request)
        if response.headers.get("content-encoding", "identity") != "identity":
            await response.aclose()
            raise SignInFailed("its response is compressed")
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
        left = MAX_BYTES
        async for chunk in self._stream:
            if (left := left - len(chunk)) < 0:
                raise SignInFailed(f"its response is longer than {MAX_BYTES} bytes")
            yield chunk

    async def aclose(self) -> None:
        await self._stream.aclose()


__all__ = ["AsyncOAuth2Client", "Http", "OAuthError", "json_object", "response_object"]
