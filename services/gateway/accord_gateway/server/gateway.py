"""The server: what it is made of, where it listens, and what it allows a connection."""

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
from accord_gateway.server import health
from accord_gateway.server.draining import Draining
from accord_gateway.server.health import Health
from accord_gateway.server.ports import PortUnavailable, address
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
SECOND, MINUTE = 1000, 60_000  # in the milliseconds of gRPC's options


@dataclass(frozen=True, slots=True)
class Runtime:
    """What a server is made of; the lifecycle makes them, and ends them."""

    settings: Settings
    secret_key: bytes
    database: Database
    listener: Listener


@dataclass(frozen=True, slots=True)
class Gateway:
    """A server that is ready to listen, and its state that changes while it runs."""

    server: grpc.aio.Server
    health: Health
    draining: Draining
    slots: CallSlots


def build_server(parts: Runtime) -> Gateway:
    """Everything is wired here. Raises StartRefused if the contract and what is served disagree."""
    settings, validator = parts.settings, Validator()
    sessions = Sessions(
        parts.database,
        parts.listener,
        lifetime=settings.session_lifetime,
        idle_lifetime=settings.session_idle_lifetime,
    )
    tokens = _service_tokens(parts)
    authenticators, addresses = _authenticators(parts, sessions, tokens), ClientAddresses(settings.trusted_proxies)
    access = partial(
        AuthInterceptor.of, authenticators=authenticators, streams=sessions.streams, clock=parts.database.clock
    )
    pipeline = Pipeline(
        parts.database,
        access,
        _counters(settings),
        validator,
        call_metrics(),
        addresses,
        max_calls=settings.max_concurrent_calls,
    )
    served = _contract(parts, sessions, tokens, validator)
    gateway_health = Health({method.service for method in served})
    served |= health.methods(gateway_health)
    if settings.reflection != "off":
        from accord_gateway.server import reflection  # memory that production, where it is off, need not have

        served |= reflection.methods({method.service for method in served}, settings.reflection)
    draining = Draining(Routes(pipeline, served))
    server = grpc.aio.server(options=channel_options(settings))
    server.add_generic_rpc_handlers((draining,))
    return Gateway(server, gateway_health, draining, pipeline.slots)


def _service_tokens(parts: Runtime) -> ServiceTokens:
    settings = parts.settings
    keys = SigningKeys(parts.database, keyring(settings, parts.secret_key))
    return ServiceTokens(keys, parts.database.clock, issuer=settings.service_issuer, audience=settings.service_audience)


def _authenticators(parts: Runtime, sessions: Sessions, tokens: ServiceTokens) -> Authenticators:
    database, cache = parts.database, sessions.cache
    return {
        CREDENTIAL_SESSION: sessions,
        CREDENTIAL_API_KEY: ApiKeys(database, cache),
        CREDENTIAL_SERVICE_TOKEN: ServiceTokenAuthenticator(database, tokens, cache),
        CREDENTIAL_CLIENT_CERTIFICATE: CertificateAuthenticator(database, parts.settings.service_identities, cache),
    }


def _contract(parts: Runtime, sessions: Sessions, tokens: ServiceTokens, validator: Validator) -> dict[Method, Handler]:
    """The methods of the contract with their handlers, once it is certain that they fit each other."""
    registry = register(_dependencies(parts, sessions, tokens))
    try:
        methods = check(contract_services(), registry, validator)
    except ContractMismatch as mismatch:
        raise StartupError(str(mismatch)) from None
    return {method: registry.handlers[method.path] for method in methods}


def _dependencies(parts: Runtime, sessions: Sessions, tokens: ServiceTokens) -> Dependencies:
    settings, database, keys = parts.settings, parts.database, keyring(parts.settings, parts.secret_key)
    second_factors = SecondFactors(keys)
    return Dependencies(
        database=database,
        paginator=Paginator(parts.secret_key),
        sessions=sessions,
        sign_ins=SignIns(sessions, second_factors, database.clock),
        passwords=Passwords(minimum_length=settings.password_min_length),
        second_factors=second_factors,
        providers=Providers(
            settings.provider_settings(),
            redirect_uris=frozenset(settings.provider_redirect_uris),
            database=database,
            keys=keys,
            insecure_loopback=not settings.production,
        ),
        service_tokens=tokens,
        outbox=Outbox(keys),
        secret_key=parts.secret_key,
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
    """Binds the server, and returns the port: the one of the settings, or for 0 the one that was free."""
    place = address(settings.host, settings.port)
    credentials = server_credentials(settings)
    try:
        return server.add_secure_port(place, credentials) if credentials else server.add_insecure_port(place)
    except RuntimeError as error:  # all that grpc raises when it cannot bind
        raise PortUnavailable(f"Cannot listen on {place}: {error}") from None


def channel_options(settings: Settings) -> list[tuple[str, int]]:
    return [
        ("grpc.so_reuseport", int(settings.workers > 1)),
        # Unlimited by default, which lets one connection hold as much memory as it likes.
        ("grpc.max_concurrent_streams", 100),
        # Calls that wait until the event loop accepts them. By default gRPC resets some from 1,000 on, whoever sent them.
        ("grpc.server.max_pending_requests", 20_000),
        ("grpc.server.max_pending_requests_hard_limit", 30_000),
        # Connections that never send anything are closed.
        ("grpc.server_handshake_timeout_ms", 5 * SECOND),
        # Clients reconnect now and then, and so spread over workers and machines that came later.
        ("grpc.max_connection_age_ms", 30 * MINUTE),
        ("grpc.max_connection_age_grace_ms", 1 * MINUTE),
        ("grpc.max_connection_idle_ms", 15 * MINUTE),
        # A client that vanished without a word is found out; one that pings more often than every 10 s is sent off.
        ("grpc.keepalive_time_ms", 2 * MINUTE),
        ("grpc.keepalive_timeout_ms", 20 * SECOND),
        ("grpc.http2.min_ping_interval_without_data_ms", 10 * SECOND),
        ("grpc.http2.max_ping_strikes", 2),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.max_receive_message_length", 4 * MIB),
        # Between the soft and the hard limit gRPC refuses some calls at random: one limit is the same for all.
        ("grpc.max_metadata_size", 16 * KIB),
        ("grpc.absolute_max_metadata_size", 16 * KIB),
    ]
