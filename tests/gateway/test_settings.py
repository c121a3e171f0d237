"""Settings: defaults, the environment, `.env`, and messages for invalid values."""

import re
from base64 import b64encode
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from pydantic import SecretStr

from accord_gateway import settings
from accord_gateway.settings import Settings, SettingsError, read_settings

ROOT = Path(__file__).parents[2]
KEY = "0123456789abcdef-0123456789abcdef"
ENCRYPTION_KEY = b64encode(bytes(range(32))).decode()
PRODUCTION = {
    "ACCORD_ENV": "production",
    "DATABASE_URL": "postgresql://accord@db.example.com/accord?sslmode=verify-full",
    "SECRET_KEY": KEY,
    "ENCRYPTION_KEYS": f"2026-11:{ENCRYPTION_KEY}",
    "SMTP_URL": "smtps://accord:mail-password@smtp.example.com",
    "MAIL_FROM": "Example <accounts@example.com>",
    "APP_URL": "https://app.example.com",
}

Set = Callable[..., None]


@pytest.fixture
def set_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Set:
    """Removes all settings from the environment and changes to an empty folder. The function sets the given ones."""
    monkeypatch.chdir(tmp_path)
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)

    def set_environment(**values: str) -> None:
        for name, value in values.items():
            monkeypatch.setenv(name, value)

    return set_environment


@pytest.fixture(autouse=True)
def _clean(set_environment: Set) -> None:
    """Applies to tests that set nothing, too."""


def problems() -> dict[str, str]:
    with pytest.raises(SettingsError) as error:
        read_settings()
    return error.value.problems


def test_development_requires_no_setting() -> None:
    found = read_settings()
    assert (found.host, found.port, found.workers, found.reflection) == ("127.0.0.1", 50051, 1, "on")
    assert found.database_url is None
    assert found.migrate_on_start


def test_empty_values_are_ignored(set_environment: Set) -> None:
    set_environment(PORT="", DATABASE_URL="", TLS_CERT_FILE="", METRICS_PORT="")
    assert read_settings() == Settings()


def test_the_environment_overrides_dot_env(set_environment: Set, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("PORT=1000\nWORKERS=3\nCOMPOSE_PROJECT_NAME=other\n")
    set_environment(PORT="2000")
    found = read_settings()
    assert (found.port, found.workers) == (2000, 3)


def test_a_misspelled_name_in_dot_env_is_reported(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("DATABSE_URL=postgresql://db/accord\n")
    assert "DATABASE_URL" in problems()["DATABSE_URL"]


def test_all_problems_are_reported_together(set_environment: Set) -> None:
    set_environment(PORT="70000", WORKERS="many", SESSION_LIFETIME="30", LOG_LEVEL="loud", PASSWORD_MIN_LENGTH="7")
    assert problems().keys() == {"PORT", "WORKERS", "SESSION_LIFETIME", "LOG_LEVEL", "PASSWORD_MIN_LENGTH"}


def test_problems_of_values_and_of_production_are_reported_together(set_environment: Set) -> None:
    set_environment(ACCORD_ENV="production", PORT="none", HOST="0.0.0.0", REFLECTION="on")
    assert problems().keys() == {
        "PORT",
        "DATABASE_URL",
        "SECRET_KEY",
        "ENCRYPTION_KEYS",
        "SMTP_URL",
        "MAIL_FROM",
        "APP_URL",
        "REFLECTION",
        "TLS_CERT_FILE",
    }


def test_the_message_has_the_value_and_the_allowed_values(set_environment: Set) -> None:
    set_environment(ACCORD_ENV="staging")
    with pytest.raises(SettingsError, match=r"ACCORD_ENV .*'development' or 'production' \(it is 'staging'\)"):
        read_settings()


@pytest.mark.parametrize(
    "name", ["DATABASE_URL", "DATABASE_DIRECT_URL", "SECRET_KEY", "ENCRYPTION_KEYS", "RATE_LIMIT_STORAGE", "SMTP_URL"]
)
def test_problems_do_not_quote_secrets(set_environment: Set, name: str) -> None:
    set_environment(**{name: "hunter2"})
    with pytest.raises(SettingsError) as error:
        read_settings()
    assert name in error.value.problems
    assert "hunter2" not in str(error.value)


def test_repr_of_settings_has_no_secrets(set_environment: Set) -> None:
    set_environment(**PRODUCTION, RATE_LIMIT_STORAGE="async+redis://:hunter2@cache:6379")
    text = repr(read_settings())
    assert KEY not in text
    assert ENCRYPTION_KEY not in text
    assert repr(bytes(range(32))) not in text
    assert "hunter2" not in text
    assert "db.example.com" not in text
    assert "mail-password" not in text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("500ms", timedelta(milliseconds=500)),
        ("90s", timedelta(seconds=90)),
        ("45m", timedelta(minutes=45)),
        ("12h", timedelta(hours=12)),
        ("30d", timedelta(days=30)),
    ],
)
def test_durations_have_a_unit(set_environment: Set, text: str, expected: timedelta) -> None:
    set_environment(SESSION_LIFETIME=text)
    assert read_settings().session_lifetime == expected


@pytest.mark.parametrize("text", ["30", "0s", "-1d", "1w", "a day"])
def test_invalid_durations_are_refused(set_environment: Set, text: str) -> None:
    set_environment(SESSION_LIFETIME=text)
    assert problems().keys() == {"SESSION_LIFETIME"}


@pytest.mark.parametrize(
    "address",
    ["mysql://db/accord", "postgresql+psycopg://db/accord", "db.example.com", "postgresql://db.example.com"],
)
def test_an_invalid_database_url_is_refused(set_environment: Set, address: str) -> None:
    set_environment(DATABASE_URL=address)
    assert problems().keys() == {"DATABASE_URL"}


def test_a_database_url_may_have_several_hosts(set_environment: Set) -> None:
    set_environment(DATABASE_URL="postgresql://one:5432,two:5433/accord")
    assert read_settings().database_url is not None


@pytest.mark.parametrize(
    "storage",
    [
        "memory://",
        "async+memcached://host:11211",
        "async+redis://host:none",
        "async+redis://:1/a@host",
        "async+redis://:1#a@host",
    ],
)
def test_an_unsupported_rate_limit_storage_is_refused(set_environment: Set, storage: str) -> None:
    set_environment(RATE_LIMIT_STORAGE=storage)
    assert problems().keys() == {"RATE_LIMIT_STORAGE"}


def test_allowed_origins_are_as_browsers_send_them(set_environment: Set) -> None:
    assert read_settings().allowed_origins == ()
    set_environment(ALLOWED_ORIGINS="https://app.example.com, http://127.0.0.1:3000,https://[::1]:8443")
    assert read_settings().allowed_origins == (
        *("https://app.example.com", "http://127.0.0.1:3000", "https://[::1]:8443"),
    )


@pytest.mark.parametrize(
    "origin",
    [
        *(
            "*",
            "https://*.example.com",
            "https://app.example.com/",
            "https://app.example.com/a",
            "app.example.com",
            "null",
        ),
        *("https://App.example.com", "https://app.example.com:443", "http://app.example.com:80", "https://straße.de"),
        *("https://u@app.example.com", "https://app.example.com:0", "https://", "ftp://app.example.com", "https://a?b"),
    ],
)
def test_origin_that_no_browser_sends_is_refused(set_environment: Set, origin: str) -> None:
    set_environment(ALLOWED_ORIGINS=origin)
    assert problems().keys() == {"ALLOWED_ORIGINS"}


def test_production_refuses_http_origins_of_other_machines(set_environment: Set) -> None:
    set_environment(**PRODUCTION, ALLOWED_ORIGINS="https://app.example.com,http://127.0.0.1:3000")
    assert read_settings().allowed_origins
    set_environment(**PRODUCTION, ALLOWED_ORIGINS="http://app.example.com")
    assert problems().keys() == {"ALLOWED_ORIGINS"}


def test_trusted_proxies_are_addresses_and_networks(set_environment: Set) -> None:
    assert read_settings().trusted_proxies == ()
    set_environment(TRUSTED_PROXIES="10.0.0.0/8, 192.0.2.7,2001:db8::/48")
    assert list(map(str, read_settings().trusted_proxies)) == ["10.0.0.0/8", "192.0.2.7/32", "2001:db8::/48"]


def test_the_proxy_of_the_unix_socket_is_trusted_if_it_is_named(set_environment: Set) -> None:
    set_environment(TRUSTED_PROXIES="10.0.0.0/8, unix", UNIX_SOCKET="accord.sock")
    found = read_settings()
    assert (list(map(str, found.proxy_networks)), found.trusts_unix_socket) == (["10.0.0.0/8"], True)
    set_environment(UNIX_SOCKET="")
    assert problems().keys() == {"TRUSTED_PROXIES"}


def test_compression_of_grpc_is_refused_where_it_would_include_secrets(set_environment: Set) -> None:
    set_environment(GRPC_COMPRESSION="gzip", SERVER="grpcio")
    assert problems().keys() == {"GRPC_COMPRESSION"}


def test_production_tells_browsers_to_use_tls(set_environment: Set, tmp_path: Path) -> None:
    assert read_settings().hsts == "off"
    set_environment(**PRODUCTION)
    assert read_settings().hsts == "host"


@pytest.mark.parametrize(
    "proxies",
    [
        "unix,",
        "unix,0.0.0.0/0",
        "proxy.example.com",
        "10.0.0.0/33",
        "10.0.0.1/8",
        "10.0.0.0/8,",
        "*",
        "0.0.0.0/0",
        "10.0.0.0/8,::/0",
    ],
)
def test_trusted_proxies_that_are_no_networks_or_include_all_addresses_are_refused(
    set_environment: Set, proxies: str
) -> None:
    set_environment(TRUSTED_PROXIES=proxies)
    assert "never all addresses" in problems()["TRUSTED_PROXIES"]


@pytest.mark.parametrize(
    "address",
    [
        "smtp.example.com:25",
        "http://smtp.example.com",
        "smtp://",
        "smtps://host:none",
        "smtp://ada:p%C3%A4ss@host",
        "smtp://ada:1/2@host",
        "smtp://ada:1?2@host",
        "smtp://ada:1#2@host",
    ],
)
def test_an_invalid_smtp_url_is_refused(set_environment: Set, address: str) -> None:
    set_environment(SMTP_URL=address)
    assert problems().keys() == {"SMTP_URL"}


@pytest.mark.parametrize(
    "sender", ["a@example.com", "Ex & Co. <a@example.com>", '"Ex, Inc." <a@example.com>', "Bücher <a@bücher.example>"]
)
def test_mail_from_is_one_address(set_environment: Set, sender: str) -> None:
    set_environment(MAIL_FROM=sender)
    assert read_settings().mail_from == sender


@pytest.mark.parametrize(
    "sender",
    [
        "Example",
        "Example <>",
        "Example <a@>",
        "Example <@example.com>",
        "a@example.com, b@example.com",
        "Ex, Inc. <a@example.com>",
        "Example <a@example.com> and more",
        "Example <a b@example.com>",
        "Example <a@example..com>",
        "Example <ä@example.com>",
        "Example <a@example.com>\nBcc: eve@example.com",
        "Example\r\nBcc: eve@example.com <a@example.com>",
    ],
)
def test_mail_from_that_is_not_one_address_is_refused(set_environment: Set, sender: str) -> None:
    set_environment(MAIL_FROM=sender)
    assert problems().keys() == {"MAIL_FROM"}


@pytest.mark.parametrize("sender", ["a@straße.de", "Straße <a@straße.de>", "a@Faß.example", "a@ab--cd.example"])
def test_mail_from_may_have_a_domain_of_idna_2008(set_environment: Set, sender: str) -> None:
    set_environment(MAIL_FROM=sender)
    assert read_settings().mail_from == sender


@pytest.mark.parametrize(
    ("name", "value", "encoded"),
    [
        ("SMTP_URL", "smtps://ada:s3cret@mail.straße.de:465", "smtps://ada:s3cret@mail.xn--strae-oqa.de:465"),
        ("RATE_LIMIT_STORAGE", "async+redis://straße.de:6379/0", "async+redis://xn--strae-oqa.de:6379/0"),
        ("APP_URL", "https://app.straße.de/app/", "https://app.xn--strae-oqa.de/app"),
        ("HOST", "straße.de", "xn--strae-oqa.de"),
        ("METRICS_HOST", "straße.de", "xn--strae-oqa.de"),
        ("APP_URL", "https://App.example.com", "https://App.example.com"),
        ("SMTP_URL", "smtp://[::1]:25", "smtp://[::1]:25"),
    ],
)
def test_hosts_are_encoded_by_idna_2008(set_environment: Set, name: str, value: str, encoded: str) -> None:
    """IDNA 2003, of Python's codec, connects to strasse.de, a domain of another owner."""
    set_environment(**{name: value})
    found = getattr(read_settings(), name.lower())
    assert (found.get_secret_value() if isinstance(found, SecretStr) else found) == encoded


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SMTP_URL", "smtps://-ü.example"),
        ("RATE_LIMIT_STORAGE", "async+redis://ü..example"),
        ("APP_URL", "https://a_ü.example"),
        ("HOST", "\u200d.example"),
        ("PROVIDERS", '{"corp": {"issuer": "https://straße.de", "client_id": "a", "client_secret": "b"}}'),
        ("PROVIDER_REDIRECT_URIS", "https://app.straße.de/signed-in"),
    ],
)
def test_hosts_that_idna_2008_refuses_and_compared_addresses_that_are_not_ascii_are_refused(
    set_environment: Set, name: str, value: str
) -> None:
    set_environment(**{name: value})
    assert problems().keys() >= {name}


@pytest.mark.parametrize("value", ["smtp://ada:hun℀ter2@mail.example.com", "smtp://ada:hunter2@[::1"])
@pytest.mark.parametrize(("name", "scheme"), [("SMTP_URL", "smtp"), ("RATE_LIMIT_STORAGE", "async+redis")])
def test_problems_do_not_quote_the_password_of_a_malformed_url(
    set_environment: Set, name: str, scheme: str, value: str
) -> None:
    set_environment(**{name: value.replace("smtp", scheme)})
    problem = problems()[name]
    assert "hun" not in problem
    assert "ter2" not in problem


@pytest.mark.parametrize("name", ["SMTP_URL", "MAIL_FROM", "APP_URL"])
def test_production_requires_the_mail_settings(set_environment: Set, name: str) -> None:
    set_environment(**{key: value for key, value in PRODUCTION.items() if key != name})
    assert problems().keys() == {name}


def test_production_requires_https_for_links_with_tokens(set_environment: Set) -> None:
    set_environment(**PRODUCTION | {"APP_URL": "http://app.example.com"})
    assert problems().keys() == {"APP_URL"}


def test_a_pooler_requires_the_direct_url(set_environment: Set) -> None:
    set_environment(DATABASE_URL="postgresql://pooler:6432/accord", DB_POOLER="true")
    assert problems().keys() == {"DATABASE_DIRECT_URL"}


def test_a_certificate_requires_its_key(set_environment: Set, tmp_path: Path) -> None:
    (tmp_path / "server.pem").touch()
    set_environment(TLS_CERT_FILE="server.pem")
    assert problems().keys() == {"TLS_KEY_FILE"}


def test_production_accepts_the_required_settings(set_environment: Set) -> None:
    set_environment(**PRODUCTION)
    found = read_settings()
    assert (found.reflection, found.migrate_on_start, found.log_format) == ("off", False, "json")
    assert found.workers == settings.cores()


def test_production_requires_verified_tls_to_the_database(set_environment: Set) -> None:
    set_environment(**PRODUCTION | {"DATABASE_URL": "postgresql://accord@db.example.com/accord?sslmode=require"})
    assert problems().keys() == {"DATABASE_URL"}


def test_production_may_listen_without_tls_if_a_proxy_terminates_it(set_environment: Set) -> None:
    set_environment(**PRODUCTION, HOST="0.0.0.0", TLS_AT_PROXY="true", TRUSTED_PROXIES="10.0.0.7")
    assert read_settings().host == "0.0.0.0"


def test_production_requires_the_addresses_of_the_tls_proxy(set_environment: Set) -> None:
    set_environment(**PRODUCTION, TLS_AT_PROXY="true")
    assert problems().keys() == {"TRUSTED_PROXIES"}


@pytest.mark.parametrize("key", ["short", "a" * 64, "abcabcabcabcabcabcabcabcabcabcabcabc"])
def test_a_weak_secret_key_is_refused(set_environment: Set, key: str) -> None:
    set_environment(SECRET_KEY=key)
    assert problems().keys() == {"SECRET_KEY"}


def test_encryption_keys_keep_their_order(set_environment: Set) -> None:
    other = b64encode(bytes(range(32, 64))).decode()
    set_environment(ENCRYPTION_KEYS=f"2026-11:{other}, 2026-05:{ENCRYPTION_KEY}")
    keys = read_settings().encryption_keys
    assert list(keys) == ["2026-11", "2026-05"]
    assert keys["2026-05"].get_secret_value() == bytes(range(32))


@pytest.mark.parametrize(
    "keys",
    [
        ENCRYPTION_KEY,
        f":{ENCRYPTION_KEY}",
        f"a b:{ENCRYPTION_KEY}",
        "a:" + b64encode(bytes(range(31))).decode(),
        "a:" + b64encode(bytes(32)).decode(),
        f"a:{ENCRYPTION_KEY},a:{b64encode(bytes(range(32, 64))).decode()}",
        f"a:{ENCRYPTION_KEY},b:{ENCRYPTION_KEY}",
        f"a:{ENCRYPTION_KEY},",
    ],
    ids=["no name", "empty name", "space", "short", "zeros", "same name", "same key", "nothing after the comma"],
)
def test_invalid_encryption_keys_are_refused_and_not_quoted(set_environment: Set, keys: str) -> None:
    set_environment(ENCRYPTION_KEYS=keys)
    assert problems().keys() == {"ENCRYPTION_KEYS"}
    assert keys not in problems()["ENCRYPTION_KEYS"]


def test_problems_do_not_quote_the_client_secret_of_a_provider(set_environment: Set) -> None:
    set_environment(PROVIDERS='{"acme": {"client_id": "accord", "client_secret": "hunter2"}}')
    assert "hunter2" not in problems()["PROVIDERS"]


@pytest.mark.parametrize(("quota", "cores"), [("max 100000", 4), ("200000 100000", 2), ("50000 100000", 1)])
def test_the_cpu_quota_of_a_container_limits_the_cores(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, quota: str, cores: int
) -> None:
    (tmp_path / "cpu.max").write_text(quota)
    monkeypatch.setattr(settings, "CPU_QUOTA", tmp_path / "cpu.max")
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1, 2, 3}, raising=False)
    assert settings.cores() == cores


CORP = '{"corp": {"issuer": "https://login.example.com", "client_id": "accord", "client_secret": "hunter2"}}'
SIGNED_IN = "https://app.example.com/signed-in"


def test_providers_are_google_and_the_entries_of_providers(set_environment: Set) -> None:
    set_environment(GOOGLE_CLIENT_ID="1.apps.googleusercontent.com", GOOGLE_CLIENT_SECRET="hunter2", PROVIDERS=CORP)
    set_environment(PROVIDER_REDIRECT_URIS=f"{SIGNED_IN}, com.example.app:/signed-in")
    found = read_settings()
    google, corp = found.provider_settings()
    assert (google.name, google.issuer, google.client_secret) == ("google", "https://accounts.google.com", "hunter2")
    assert (corp.name, corp.display_name, corp.issuer) == ("corp", "Corp", "https://login.example.com")
    assert found.provider_redirect_uris == (SIGNED_IN, "com.example.app:/signed-in")
    assert "hunter2" not in repr((found, google, corp))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("}}", "}"),
        ('{"corp"', '["corp"'),
        ('"corp"', '"Corp"'),
        ('"corp"', '"c orp"'),
        ("https://login.example.com", "http://login.example.com"),
        ("https://login.example.com", "login.example.com"),
        ("https://login.example.com", "https://login.example.com?tenant=1"),
        ("https://login.example.com", "https://user@login.example.com"),
        ('"accord"', '""'),
        ('"hunter2"', '""'),
        ('"client_secret": "hunter2"', '"secret": "hunter2"'),
        ('"hunter2"', '"hunter2", "scopes": ["email"]'),
        ('"hunter2"', '"hunter2", "scopes": ["openid email"]'),
        ('"hunter2"', '"hunter2", "trusted_audiences": "project"'),
        ('"hunter2"', '"hunter2", "trusted_audiences": [""]'),
        ('"hunter2"', '"hunter2", "trusted_audiences": [7]'),
    ],
)
def test_an_invalid_provider_is_refused(set_environment: Set, old: str, new: str) -> None:
    set_environment(PROVIDERS=CORP.replace(old, new), PROVIDER_REDIRECT_URIS=SIGNED_IN)
    found = problems()
    assert found.keys() == {"PROVIDERS"}
    assert "hunter2" not in found["PROVIDERS"]


def test_a_provider_may_have_trusted_audiences(set_environment: Set) -> None:
    set_environment(PROVIDERS=CORP, PROVIDER_REDIRECT_URIS=SIGNED_IN)
    [corp] = read_settings().provider_settings()
    assert corp.trusted_audiences == frozenset()
    listed = CORP.replace('"hunter2"', '"hunter2", "trusted_audiences": ["252855756087375358", "other@project"]')
    set_environment(PROVIDERS=listed)
    [corp] = read_settings().provider_settings()
    assert corp.trusted_audiences == {"252855756087375358", "other@project"}


def test_the_problem_of_a_provider_names_provider_and_member(set_environment: Set) -> None:
    set_environment(PROVIDERS=CORP.replace("https:", "http:"), PROVIDER_REDIRECT_URIS=SIGNED_IN)
    assert problems()["PROVIDERS"].startswith("corp.issuer: must be https")


@pytest.mark.parametrize("uri", ["app.example.com", "https://app.example.com/#x", "https://*.example.com", "https:"])
def test_an_incomplete_redirect_uri_is_refused(set_environment: Set, uri: str) -> None:
    set_environment(PROVIDERS=CORP, PROVIDER_REDIRECT_URIS=f"{SIGNED_IN},{uri}")
    assert problems().keys() == {"PROVIDER_REDIRECT_URIS"}


def test_a_provider_requires_a_redirect_uri(set_environment: Set) -> None:
    set_environment(PROVIDERS=CORP)
    assert problems().keys() == {"PROVIDER_REDIRECT_URIS"}


def test_google_requires_its_client_secret_and_excludes_a_provider_of_the_same_name(set_environment: Set) -> None:
    set_environment(GOOGLE_CLIENT_ID="1", PROVIDER_REDIRECT_URIS=SIGNED_IN)
    assert problems().keys() == {"GOOGLE_CLIENT_SECRET"}
    set_environment(GOOGLE_CLIENT_SECRET="secret", PROVIDERS=CORP.replace("corp", "google"))
    assert problems().keys() == {"PROVIDERS"}


def test_production_requires_https_for_providers_and_redirect_uris(set_environment: Set) -> None:
    local = CORP.replace("https://login.example.com", "http://127.0.0.1:4000")
    set_environment(PROVIDERS=local, PROVIDER_REDIRECT_URIS=f"http://127.0.0.1/,{SIGNED_IN}")
    read_settings()
    set_environment(**PRODUCTION, PROVIDER_REDIRECT_URIS="http://app.example.com/")
    assert problems().keys() == {"PROVIDERS", "PROVIDER_REDIRECT_URIS"}


@pytest.fixture
def authority(set_environment: Set, tmp_path: Path) -> None:
    """Sets a client authority, with the certificate and key that it requires."""
    for name in ("TLS_CERT_FILE", "TLS_KEY_FILE", "TLS_CLIENT_CA_FILE"):
        (tmp_path / name).touch()
        set_environment(**{name: str(tmp_path / name)})


@pytest.mark.usefixtures("authority")
def test_service_identities_map_uris_to_service_accounts(set_environment: Set) -> None:
    set_environment(SERVICE_IDENTITIES='{"spiffe://example.com/billing": "billing", "urn:accord:mailer": "mailer"}')
    assert read_settings().service_identities == {
        "spiffe://example.com/billing": "billing",
        "urn:accord:mailer": "mailer",
    }


@pytest.mark.usefixtures("authority")
@pytest.mark.parametrize(
    "identities",
    [
        "spiffe://example.com/billing",
        '["spiffe://example.com/billing"]',
        '{"billing": "billing"}',
        '{"billing.example.com": "billing"}',
        '{"spiffe:": "billing"}',
        '{"spiffe://example.com/*": "billing"}',
        '{"spiffe://example.com/bílling": "billing"}',
        '{"spiffe://example.com/billing": ""}',
        '{"spiffe://example.com/billing": "Billing"}',
        '{"spiffe://example.com/billing": "billing", "spiffe://example.com/billing": "mailer"}',
    ],
)
def test_invalid_service_identities_are_refused(set_environment: Set, identities: str) -> None:
    set_environment(SERVICE_IDENTITIES=identities)
    assert problems().keys() == {"SERVICE_IDENTITIES"}


def test_service_identities_require_a_client_authority(set_environment: Set) -> None:
    set_environment(SERVICE_IDENTITIES='{"spiffe://example.com/billing": "billing"}')
    assert problems().keys() == {"TLS_CLIENT_CA_FILE"}


@pytest.mark.parametrize("name", ["two words", "", "näme", "a" * 256])
def test_invalid_service_issuer_and_audience_are_refused(set_environment: Set, name: str) -> None:
    set_environment(SERVICE_ISSUER=name or " ", SERVICE_AUDIENCE=name or " ")
    assert problems().keys() == {"SERVICE_ISSUER", "SERVICE_AUDIENCE"}


def test_env_example_lists_exactly_the_settings_with_their_defaults() -> None:
    listed = dict(re.findall(r"^#([A-Z_]+)=(.*)$", (ROOT / ".env.example").read_text(), flags=re.MULTILINE))
    assert list(listed) != []
    assert set(listed) == {name.upper() for name in Settings.model_fields}
    defaults = {name.lower(): value for name, value in listed.items() if value}
    assert Settings(**defaults) == Settings()


def test_env_example_has_no_values() -> None:
    lines = (ROOT / ".env.example").read_text().splitlines()
    assert [line for line in lines if not line.startswith("#") and line] == []
    assert {"#SECRET_KEY=", "#DATABASE_URL="} <= set(lines)
