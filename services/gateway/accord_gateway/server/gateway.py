"""Builds the server from settings, database and contract, and binds it."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial

from protovalidate import Validator

from accord.policy.v1.policy_pb2 import (
    CREDENTIAL_API_KEY,
    CREDENTIAL_CLIENT_CERTIFICATE,
    CREDENTIAL_SERVICE_TOKEN,
    CREDENTIAL_SESSION,
)
from accord_api.dependencies import Dependencies, Rules
from accord_api.outbox import Outbox
from accord_api.registration import register
from accord_api.sign_ins import SignIns
from accord_auth.api_keys import ApiKeys
from accord_auth.credentials import Authenticators
from accord_auth.interceptor import AuthInterceptor
from accord_auth.passwords import Passwords
from accord_auth.providers import Providers
from accord_auth.second_factors import SecondFactors
from accord_auth.services import CertificateAuthenticator, ServiceTokenAuthenticator, ServiceTokens, SigningKeys
from accord_auth.sessions import Sessions
from accord_db.engine.database import Database
from accord_db.engine.listen import Listener
from accord_gateway.errors import StartupError
from accord_gateway.secret_key import keyring
from accord_gateway.server.health import Health, health_methods
from accord_gateway.server.pages import gateway_pages
from accord_gateway.server.provider_sign_in import provider_sign_in_pages
from accord_gateway.server.servers import GatewayServer, client_addresses, make_server
from accord_gateway.settings import Settings
from accord_rpc.contract import ContractMismatch, check, contract_services
from accord_rpc.pagination import Paginator
from accord_rpc.pipeline import Pipeline, Routes
from accord_rpc.pipeline.concurrency import CallSlots
from accord_rpc.pipeline.counters import Counters
from accord_rpc.pipeline.rate_limits import rate_limiter
from accord_rpc.pipeline.receive import Handler
from accord_rpc.pipeline.telemetry import call_metrics
from accord_rpc.policy import Method


@dataclass(frozen=True, slots=True)
class Runtime:
    """What a server needs. The lifecycle opens and closes it."""

    settings: Settings
    secret_key: bytes
    database: Database
    listener: Listener


@dataclass(frozen=True, slots=True)
class Gateway:
    """A server that is ready to listen, and its state that changes while it serves."""

    server: GatewayServer
    health: Health
    routes: Routes
    slots: CallSlots


def build_server(runtime: Runtime) -> Gateway:
    """Raises StartupError if the handlers and the contract disagree."""
    settings, validator = runtime.settings, Validator()
    sessions = _sessions(runtime)
    tokens = _service_tokens(runtime)
    pipeline = _pipeline(runtime, _authenticators(runtime, sessions, tokens), sessions, validator)
    methods = _contract_methods(_dependencies(runtime, sessions, tokens), validator)
    health = Health(_services(methods))
    methods |= health_methods(health)
    methods |= _reflection_methods(settings, _services(methods))
    routes = Routes(pipeline, methods)
    pages = gateway_pages(settings, health, tokens.keys.public, pipeline, provider_sign_in_pages(settings, routes))
    return Gateway(make_server(routes, settings, pages), health, routes, pipeline.slots)


def _services(methods: Iterable[Method]) -> set[str]:
    return {method.service for method in methods}


def _sessions(runtime: Runtime) -> Sessions:
    return Sessions(
        runtime.database,
        runtime.listener,
        lifetime=runtime.settings.session_lifetime,
        idle_lifetime=runtime.settings.session_idle_lifetime,
    )


def _service_tokens(runtime: Runtime) -> ServiceTokens:
    settings, database = runtime.settings, runtime.database
    keys = SigningKeys(database, keyring(settings, runtime.secret_key))
    return ServiceTokens(keys, database.clock, issuer=settings.service_issuer, audience=settings.service_audience)


def _authenticators(runtime: Runtime, sessions: Sessions, tokens: ServiceTokens) -> Authenticators:
    database, cache = runtime.database, sessions.cache
    return {
        CREDENTIAL_SESSION: sessions,
        CREDENTIAL_API_KEY: ApiKeys(database, cache),
        CREDENTIAL_SERVICE_TOKEN: ServiceTokenAuthenticator(database, tokens, cache),
        CREDENTIAL_CLIENT_CERTIFICATE: CertificateAuthenticator(database, runtime.settings.service_identities, cache),
    }


def _pipeline(runtime: Runtime, authenticators: Authenticators, sessions: Sessions, validator: Validator) -> Pipeline:
    settings = runtime.settings
    return Pipeline(
        runtime.database,
        partial(
            AuthInterceptor.of, authenticators=authenticators, streams=sessions.streams, clock=runtime.database.clock
        ),
        _counters(settings),
        validator,
        call_metrics(),
        client_addresses(settings),
        max_calls=settings.max_concurrent_calls,
        cookie_origins=settings.allowed_origins if settings.session_cookies else None,
    )


def _contract_methods(dependencies: Dependencies, validator: Validator) -> dict[Method, Handler]:
    """The methods of the contract and their handlers, after checking that they match."""
    registry = register(dependencies)
    try:
        methods = check(contract_services(), registry, validator)
    except ContractMismatch as mismatch:
        raise StartupError(str(mismatch)) from None
    return {method: registry.handlers[method.path] for method in methods}


def _reflection_methods(settings: Settings, services: Iterable[str]) -> dict[Method, Handler]:
    if settings.reflection == "off":
        return {}
    from accord_gateway.server.reflection import reflection_methods  # memory that production saves: off is its default

    return reflection_methods(services, settings.reflection)


def _dependencies(runtime: Runtime, sessions: Sessions, tokens: ServiceTokens) -> Dependencies:
    settings, keys = runtime.settings, keyring(runtime.settings, runtime.secret_key)
    second_factors = SecondFactors(keys)
    return Dependencies(
        database=runtime.database,
        paginator=Paginator(runtime.secret_key),
        sessions=sessions,
        sign_ins=SignIns(sessions, second_factors, runtime.database.clock),
        passwords=Passwords(minimum_length=settings.password_min_length),
        second_factors=second_factors,
        providers=Providers(
            settings.provider_settings(),
            redirect_uris=frozenset(settings.provider_redirect_uris),
            database=runtime.database,
            keys=keys,
            insecure_loopback=not settings.production,
        ),
        service_tokens=tokens,
        outbox=Outbox(keys),
        secret_key=runtime.secret_key,
        rules=Rules(
            verified_email_required=settings.verified_email_required,
            link_by_email=settings.link_providers_by_email,
            deleted_organizations_kept=settings.deleted_organizations_kept,
            verification_uri=f"{settings.app_url}/device",
        ),
    )


def _counters(settings: Settings) -> Counters:
    try:
        return rate_limiter(settings.rate_limit_storage.get_secret_value())
    except ValueError as error:
        raise StartupError(f"RATE_LIMIT_STORAGE cannot be used: {error}") from None
