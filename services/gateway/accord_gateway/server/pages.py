"""The pages of the gateway: health for load balancers, the keys of service tokens, and the API reference."""

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from http import HTTPStatus
from typing import Final

from google.protobuf.duration_pb2 import Duration
from google.protobuf.empty_pb2 import Empty

from accord.policy.v1.policy_pb2 import ACCESS_SIGNED_IN, MethodPolicy
from accord_gateway.server.health import Health
from accord_gateway.settings import Settings
from accord_rpc.call import Context
from accord_rpc.pipeline import Pipeline
from accord_rpc.policy import Method, Policy
from accord_rpc.protocols.pages import GuardedPage, JsonPage, JsonSource, Pages
from accord_rpc.server.exchange import Application, Exchange

PublicKeys = Callable[[], Awaitable[Sequence[Mapping[str, str]]]]

_JWKS_PATH: Final = "/.well-known/jwks.json"
# As `GetJwks`: keys are published long before they sign.
_KEYS_MAX_AGE: Final = 86_400
_AUTHORITY: Final = re.compile(r"[A-Za-z0-9.\-]{1,253}(:[0-9]{1,5})?|\[[0-9A-Fa-f:.]{2,45}\](:[0-9]{1,5})?")


def gateway_pages(
    settings: Settings,
    health: Health,
    public_keys: PublicKeys,
    pipeline: Pipeline,
    others: Mapping[str, Application],
) -> Pages:
    return Pages(
        {
            "/healthz": JsonPage(_alive),
            "/readyz": JsonPage(_readiness(health)),
            _JWKS_PATH: JsonPage(_jwks(public_keys), max_age=_KEYS_MAX_AGE),
            "/.well-known/openid-configuration": JsonPage(
                _configuration(settings.service_issuer, tls_at_proxy=settings.tls_at_proxy)
            ),
            **_reference(settings, pipeline),
            **others,
        }
    )


async def _alive(exchange: Exchange) -> tuple[int, object]:
    return HTTPStatus.OK, {"status": "alive"}


def _readiness(health: Health) -> JsonSource:
    async def readiness(exchange: Exchange) -> tuple[int, object]:
        if health.serving:
            return HTTPStatus.OK, {"status": "serving"}
        return HTTPStatus.SERVICE_UNAVAILABLE, {"status": "not serving"}

    return readiness


def _jwks(public_keys: PublicKeys) -> JsonSource:
    async def jwks(exchange: Exchange) -> tuple[int, object]:
        return HTTPStatus.OK, {"keys": list(await public_keys())}

    return jwks


def _configuration(issuer: str, *, tls_at_proxy: bool) -> JsonSource:
    """What verifiers of service tokens read (OpenID Connect Discovery 1.0, section 3; RFC 8414): the issuer and its keys."""

    def base_of(exchange: Exchange) -> str | None:
        if issuer.startswith(("https://", "http://")):
            return issuer.rstrip("/")
        return _own_address(exchange, secure=exchange.secure or tls_at_proxy)

    async def configuration(exchange: Exchange) -> tuple[int, object]:
        base = base_of(exchange)
        if base is None:
            return HTTPStatus.BAD_REQUEST, {"message": "The Host of the request is not a host name and a port."}
        return HTTPStatus.OK, {
            "issuer": issuer,
            "jwks_uri": base + _JWKS_PATH,
            "response_types_supported": ["none"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["ES256"],
        }

    return configuration


def _own_address(exchange: Exchange, *, secure: bool) -> str | None:
    """The URL under which the client reached the gateway, for an issuer that is not a URL."""
    authority = exchange.authority.decode("latin-1")
    return f"{'https' if secure else 'http'}://{authority}" if _AUTHORITY.fullmatch(authority) else None


def _reference(settings: Settings, pipeline: Pipeline) -> dict[str, Application]:
    if settings.reflection == "off":
        return {}
    from accord_rpc.openapi.reference import docs_pages, document_page  # as reflection: off is production's default

    document = document_page()
    if settings.reflection == "signed-in":
        document = GuardedPage(document, pipeline.chain(_signed_in_method(), _admitted))
    return {"/openapi.json": document, **docs_pages(session_cookies=settings.session_cookies)}


async def _admitted(request: object, context: Context) -> Empty:
    return Empty()


def _signed_in_method() -> Method:
    deadline = Duration(seconds=5)
    policy = MethodPolicy(access=ACCESS_SIGNED_IN, default_deadline=deadline, max_deadline=deadline)
    return Method(
        service="openapi.json",
        name="Get",
        request=Empty,
        response=Empty,
        policy=Policy.of(policy),
        request_streaming=False,
        response_streaming=False,
        idempotent=False,
        account_field=None,
    )
