"""Sign-in with a provider for browsers that keep the session in a cookie, without a line of script:

    /sign-in/with/google?return_to=/tasks → the provider → /sign-in/callback → APP_URL/tasks

The pages call the methods of ProviderService through the pipeline. Between them, a cookie of ten minutes binds the sign-in to the
browser that began it, so that an attacker cannot complete one in another browser."""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as Base64Error
from collections.abc import Mapping
from http import HTTPStatus
from typing import Final
from urllib.parse import parse_qsl, quote, urlsplit

from google.protobuf.message import Message
from google.rpc.error_details_pb2 import ErrorInfo
from grpc.aio import EOF, AbortError

from accord.providers.v1 import providers_pb2 as pb
from accord_gateway.settings import Settings
from accord_rpc.pipeline import Routes
from accord_rpc.protocols.context import ProtocolContext
from accord_rpc.protocols.http_errors import SAFE_HEADERS, ended_with
from accord_rpc.protocols.rest.calls import forwarded_metadata
from accord_rpc.server.exchange import Application, Exchange

CALLBACK_PATH: Final = "/sign-in/callback"
"""The installation serves these pages if PROVIDER_REDIRECT_URIS has a URI with this path."""
COOKIE: Final = "__Host-provider-sign-in"
_COOKIE_SECONDS: Final = 600
_ATTRIBUTES: Final = "Path=/; Secure; HttpOnly; SameSite=Lax"
_SERVICE: Final = "/accord.providers.v1.ProviderService/"
_MOST_RETURN_CHARACTERS: Final = 1000


def provider_sign_in_pages(settings: Settings, routes: Routes) -> dict[str, Application]:
    uris = [uri for uri in settings.provider_redirect_uris if urlsplit(uri).path == CALLBACK_PATH]
    if not (settings.session_cookies and uris):
        return {}
    sign_in = ProviderSignIn(routes, settings.app_url, {urlsplit(uri).netloc: uri for uri in uris})
    names = [provider.name for provider in settings.provider_settings()]
    return {f"/sign-in/with/{name}": sign_in.beginning(name) for name in names} | {CALLBACK_PATH: sign_in.complete}


class ProviderSignIn:
    """`redirect_uris` are those that lead to this server, by their host."""

    def __init__(self, routes: Routes, app_url: str, redirect_uris: Mapping[str, str]) -> None:
        self._routes = routes
        self._app_url = app_url
        self._redirect_uris = redirect_uris
        self._first_uri = next(iter(redirect_uris.values()))

    def beginning(self, provider: str) -> Application:
        async def begin(exchange: Exchange) -> None:
            await self._begin(exchange, provider)

        return begin

    async def _begin(self, exchange: Exchange, provider: str) -> None:
        return_to = _parameters(exchange).get("return_to", "/")
        if not _is_path_of_the_app(return_to):
            return self._land(exchange, "/sign-in", error="INVALID_MESSAGE")
        uri = self._redirect_uris.get(exchange.authority.decode("latin-1"), self._first_uri)
        context = _Context(exchange, pb.BeginProviderSignInRequest(provider=provider, redirect_uri=uri))
        response = await self._call("BeginProviderSignIn", context)
        if response is None:
            return self._land(exchange, "/sign-in", error=_reason(context))
        begun = pb.BeginProviderSignInResponse.FromString(response)
        _redirect(exchange, begun.authorization_url, _kept(begun.provider_sign_in_token, return_to))
        return None

    async def complete(self, exchange: Exchange) -> None:
        """The user comes back from the provider, which has not signed them in if `code` is missing."""
        token, return_to = _cookie(exchange)
        sent = _parameters(exchange)
        request = pb.CompleteProviderSignInRequest(
            provider_sign_in_token=token,
            state=sent.get("state", ""),
            code=sent.get("code", ""),
            issuer=sent.get("iss", ""),
        )
        context = _Context(exchange, request)
        response = await self._call("CompleteProviderSignIn", context)
        if response is None:
            return self._land(exchange, "/sign-in", _kept("", ""), error=_reason(context))
        opened = pb.CompleteProviderSignInResponse.FromString(response)
        if opened.second_step_token:
            return self._land(exchange, "/sign-in", _kept("", ""), second_step_token=opened.second_step_token)
        _redirect(exchange, self._app_url + return_to, _kept("", ""), *(context.response_headers or ()))
        return None

    async def _call(self, method: str, context: "_Context") -> bytes | None:
        """None if it failed."""
        try:
            return await self._routes.find(_SERVICE + method)(None, context)
        except AbortError:
            return None

    def _land(self, exchange: Exchange, page: str, *headers: tuple[bytes, bytes], **fragment: str) -> None:
        """On a page of the app. Browsers send a fragment to no server."""
        pairs = "&".join(f"{name}={quote(value, safe='')}" for name, value in fragment.items())
        _redirect(exchange, f"{self._app_url}{page}#{pairs}", *headers)


class _Context(ProtocolContext):
    """A call that the page makes for the browser."""

    __slots__ = ("_message",)

    def __init__(self, exchange: Exchange, request: Message) -> None:
        super().__init__(forwarded_metadata(exchange), exchange.peer, (), None)
        self.take_cookies(())  # a session that the browser has already is left alone
        self._message: object = request.SerializeToString()

    async def read(self) -> object:
        message, self._message = self._message, EOF
        return message

    async def write(self, message: bytes) -> None:
        raise NotImplementedError  # the methods do not stream


def _parameters(exchange: Exchange) -> dict[str, str]:
    """Without those that are repeated or malformed."""
    _, _, query = exchange.target.decode("latin-1").partition("?")
    try:
        pairs = parse_qsl(query, keep_blank_values=True, errors="strict")
    except ValueError:
        return {}
    names = [name for name, _ in pairs]
    return {name: value for name, value in pairs if names.count(name) == 1}


def _is_path_of_the_app(path: str) -> bool:
    """To browsers, a second slash or a backslash begins the name of another host."""
    return (
        path.startswith("/")
        and path[1:2] not in ("/", "\\")
        and path.isascii()
        and path.isprintable()
        and len(path) <= _MOST_RETURN_CHARACTERS
    )


def _kept(token: str, return_to: str) -> tuple[bytes, bytes]:
    """Stores the sign-in in the browser, or clears it if `token` is empty."""
    value = f"{token}.{urlsafe_b64encode(return_to.encode()).decode().rstrip('=')}" if token else ""
    return b"set-cookie", f"{COOKIE}={value}; {_ATTRIBUTES}; Max-Age={_COOKIE_SECONDS if token else 0}".encode()


def _cookie(exchange: Exchange) -> tuple[str, str]:
    """The token and the path to return to. The token is empty without exactly one cookie."""
    header = "; ".join(value.decode("latin-1") for name, value in exchange.headers if name == b"cookie")
    pairs = (pair.strip().partition("=") for pair in header.split(";"))
    values = [value for name, _, value in pairs if name == COOKIE]
    token, _, encoded = values[0].rpartition(".") if len(values) == 1 else ("", "", "")
    try:
        return_to = urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4)).decode()
    except (Base64Error, ValueError):
        return "", "/"
    return token, return_to if _is_path_of_the_app(return_to) else "/"


def _redirect(exchange: Exchange, url: str, *headers: tuple[bytes, bytes]) -> None:
    exchange.respond(
        HTTPStatus.SEE_OTHER,
        ((b"location", url.encode("latin-1")), (b"referrer-policy", b"no-referrer"), *SAFE_HEADERS, *headers),
    )


def _reason(context: ProtocolContext) -> str:
    info = ErrorInfo()
    return next((info.reason for detail in ended_with(context).details if detail.Unpack(info)), "INTERNAL")
