"""Builds the gRPC server from settings, database and contract, binds it, and limits its connections."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial

import grpc
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
from accord_gateway.server.draining import Draining
from accord_gateway.server.health import Health, health_methods
from accord_gateway.server.ports import PortUnavailable, format_address
from accord_gateway.server.tls import server_credentials
from accord_gateway.settings import Settings
from accord_rpc.client_address import ClientAddresses
from accord_rpc.contract import ContractMismatch, check, contract_services
from accord_rpc.pagination import Paginator
from accord_rpc.pipeline import Pipeline, Routes
from accord_rpc.pipeline.concurrency import CallSlots
from accord_rpc.pipeline.counters import Counters
from accord_rpc.pipeline.rate_limits import rate_limiter
from accord_rpc.pipeline.receive import Handler
from accord_rpc.pipeline.telemetry import call_metrics
from accord_rpc.policy import Method

KIB, MIB = 1024, 1024 * 1024
SECOND, MINUTE = 1000, 60_000  # in milliseconds, the unit of gRPC's options


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

    server: grpc.aio.Server
    health: Health
    draining: Draining
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
    draining = Draining(Routes(pipeline, methods))
    server = grpc.aio.server(options=channel_options(settings))
    server.add_generic_rpc_handlers((draining,))
    return Gateway(server, health, draining, pipeline.slots)


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
        ClientAddresses(settings.trusted_proxies),
        max_calls=settings.max_concurrent_calls,
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


def listen(server: grpc.aio.Server, settings: Settings) -> int:
    """Returns the port: PORT, or a free one if PORT is 0. Raises PortUnavailable, TlsError."""
    address = format_address(settings.host, settings.port)
    credentials = server_credentials(settings)
    try:
        return server.add_secure_port(address, credentials) if credentials else server.add_insecure_port(address)
    except RuntimeError as error:  # grpcio raises nothing more specific
        raise PortUnavailable(f"Cannot listen on {address}: {error}") from None


def channel_options(settings: Settings) -> list[tuple[str, int]]:
    return [
        ("grpc.so_reuseport", int(settings.workers > 1)),
        # Unlimited by default, which lets one connection take any amount of memory.
        ("grpc.max_concurrent_streams", 100),
        # Calls that wait for the event loop to accept them. By default gRPC resets some beyond 1,000 at random.
        ("grpc.server.max_pending_requests", 20_000),
        ("grpc.server.max_pending_requests_hard_limit", 30_000),
        # Closes connections that never send anything.
        ("grpc.server_handshake_timeout_ms", 5 * SECOND),
        # Makes clients reconnect, so that they spread over workers and machines that started later.
        ("grpc.max_connection_age_ms", 30 * MINUTE),
        ("grpc.max_connection_age_grace_ms", 1 * MINUTE),
        ("grpc.max_connection_idle_ms", 15 * MINUTE),
        # Detects clients that vanished, and disconnects those that ping more often than every 10 s.
        ("grpc.keepalive_time_ms", 2 * MINUTE),
        ("grpc.keepalive_timeout_ms", 20 * SECOND),
        ("grpc.http2.min_ping_interval_without_data_ms", 10 * SECOND),
        ("grpc.http2.max_ping_strikes", 2),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.max_receive_message_length", 4 * MIB),
        # Between the soft and the hard limit gRPC rejects calls at random. Equal limits reject the same calls each time.
        ("grpc.max_metadata_size", 16 * KIB),
        ("grpc.absolute_max_metadata_size", 16 * KIB),
    ]
