"""Settings: the defaults, the environment, `.env`, and what is said of wrong ones."""

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
    "SMTP_URL": "smtps://accord:the-word-of-mail@smtp.example.com",
    "MAIL_FROM": "Example <accounts@example.com>",
    "APP_URL": "https://app.example.com",
}

Set = Callable[..., None]


@pytest.fixture
def set_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Set:
    """Leaves nothing of the real environment, nor of a `.env`; then sets what it is told."""
    monkeypatch.chdir(tmp_path)
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)

    def set_environment(**values: str) -> None:
        for name, value in values.items():
            monkeypatch.setenv(name, value)

    return set_environment


@pytest.fixture(autouse=True)
def _clean(set_environment: Set) -> None:
    """Also for tests that set nothing."""


def faults() -> dict[str, str]:
    with pytest.raises(SettingsError) as error:
        read_settings()
    return error.value.faults


def test_nothing_has_to_be_set_for_development() -> None:
    found = read_settings()
    assert (found.host, found.port, found.workers, found.reflection) == ("127.0.0.1", 50051, 1, "on")
    assert found.database_url is None
    assert found.migrate_on_start


def test_empty_values_count_as_none(set_environment: Set) -> None:
    set_environment(PORT="", DATABASE_URL="", TLS_CERT_FILE="", METRICS_PORT="")
    assert read_settings() == Settings()


def test_dot_env_is_read_and_the_environment_goes_before_it(set_environment: Set, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("PORT=1000\nWORKERS=3\nCOMPOSE_PROJECT_NAME=other\n")
    set_environment(PORT="2000")
    found = read_settings()
    assert (found.port, found.workers) == (2000, 3)


def test_a_misspelled_name_in_dot_env_is_found(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("DATABSE_URL=postgresql://db/accord\n")
    assert "DATABASE_URL" in faults()["DATABSE_URL"]


def test_every_fault_is_listed_at_once(set_environment: Set) -> None:
    set_environment(PORT="70000", WORKERS="many", SESSION_LIFETIME="30", LOG_LEVEL="loud", PASSWORD_MIN_LENGTH="7")
    assert faults().keys() == {"PORT", "WORKERS", "SESSION_LIFETIME", "LOG_LEVEL", "PASSWORD_MIN_LENGTH"}


def test_faults_of_values_and_of_production_are_listed_together(set_environment: Set) -> None:
    set_environment(ACCORD_ENV="production", PORT="none", HOST="0.0.0.0", REFLECTION="on")
    assert faults().keys() == {
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


def test_the_message_says_what_is_wrong_and_what_is_allowed(set_environment: Set) -> None:
    set_environment(ACCORD_ENV="staging")
    with pytest.raises(SettingsError, match=r"ACCORD_ENV .*'development' or 'production' \(it is 'staging'\)"):
        read_settings()


@pytest.mark.parametrize(
    "name", ["DATABASE_URL", "DATABASE_DIRECT_URL", "SECRET_KEY", "ENCRYPTION_KEYS", "RATE_LIMIT_STORAGE", "SMTP_URL"]
)
def test_secrets_are_not_repeated_in_faults(set_environment: Set, name: str) -> None:
    set_environment(**{name: "hunter2"})
    with pytest.raises(SettingsError) as error:
        read_settings()
    assert name in error.value.faults
    assert "hunter2" not in str(error.value)


def test_secrets_are_not_shown_with_the_settings(set_environment: Set) -> None:
    set_environment(**PRODUCTION, RATE_LIMIT_STORAGE="async+redis://:hunter2@cache:6379")
    shown = repr(read_settings())
    assert KEY not in shown
    assert ENCRYPTION_KEY not in shown
    assert repr(bytes(range(32))) not in shown
    assert "hunter2" not in shown
    assert "db.example.com" not in shown
    assert "the-word-of-mail" not in shown


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("500ms", timedelta(milliseconds=500)),
        ("90s", timedelta(seconds=90)),
        ("45m", timedelta(minutes=45)),
        ("12h", timedelta(hours=12)),
        ("30d", timedelta(days=30)),
    ],
)
def test_times_are_written_with_their_unit(set_environment: Set, text: str, meant: timedelta) -> None:
    set_environment(SESSION_LIFETIME=text)
    assert read_settings().session_lifetime == meant


@pytest.mark.parametrize("text", ["30", "0s", "-1d", "1w", "a day"])
def test_other_times_are_refused(set_environment: Set, text: str) -> None:
    set_environment(SESSION_LIFETIME=text)
    assert faults().keys() == {"SESSION_LIFETIME"}


@pytest.mark.parametrize(
    "address",
    ["mysql://db/accord", "postgresql+psycopg://db/accord", "db.example.com", "postgresql://db.example.com"],
)
def test_what_is_no_address_of_a_postgres_database_is_refused(set_environment: Set, address: str) -> None:
    set_environment(DATABASE_URL=address)
    assert faults().keys() == {"DATABASE_URL"}


def test_several_hosts_of_one_database_are_taken(set_environment: Set) -> None:
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
def test_other_storages_of_rate_limits_are_refused(set_environment: Set, storage: str) -> None:
    set_environment(RATE_LIMIT_STORAGE=storage)
    assert faults().keys() == {"RATE_LIMIT_STORAGE"}


def test_proxies_are_listed_by_address_and_by_network(set_environment: Set) -> None:
    assert read_settings().trusted_proxies == ()
    set_environment(TRUSTED_PROXIES="10.0.0.0/8, 192.0.2.7,2001:db8::/48")
    assert list(map(str, read_settings().trusted_proxies)) == ["10.0.0.0/8", "192.0.2.7/32", "2001:db8::/48"]


@pytest.mark.parametrize(
    "proxies", ["proxy.example.com", "10.0.0.0/33", "10.0.0.1/8", "10.0.0.0/8,", "*", "0.0.0.0/0", "10.0.0.0/8,::/0"]
)
def test_what_is_no_network_of_proxies_or_everybody_is_refused(set_environment: Set, proxies: str) -> None:
    set_environment(TRUSTED_PROXIES=proxies)
    assert "never everybody" in faults()["TRUSTED_PROXIES"]


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
def test_what_is_no_address_of_a_mail_server_is_refused(set_environment: Set, address: str) -> None:
    set_environment(SMTP_URL=address)
    assert faults().keys() == {"SMTP_URL"}


@pytest.mark.parametrize(
    "sender", ["a@example.com", "Ex & Co. <a@example.com>", '"Ex, Inc." <a@example.com>', "Bücher <a@bücher.example>"]
)
def test_mail_may_be_from_any_one_address(set_environment: Set, sender: str) -> None:
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
def test_what_is_not_one_address_to_mail_from_is_refused(set_environment: Set, sender: str) -> None:
    set_environment(MAIL_FROM=sender)
    assert faults().keys() == {"MAIL_FROM"}


@pytest.mark.parametrize("sender", ["a@straße.de", "Straße <a@straße.de>", "a@Faß.example", "a@ab--cd.example"])
def test_mail_may_be_from_a_domain_of_idna_2008(set_environment: Set, sender: str) -> None:
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
    assert faults().keys() >= {name}


@pytest.mark.parametrize("value", ["smtp://ada:hun℀ter2@mail.example.com", "smtp://ada:hunter2@[::1"])
@pytest.mark.parametrize(("name", "scheme"), [("SMTP_URL", "smtp"), ("RATE_LIMIT_STORAGE", "async+redis")])
def test_the_password_of_a_malformed_url_is_not_repeated(
    set_environment: Set, name: str, scheme: str, value: str
) -> None:
    set_environment(**{name: value.replace("smtp", scheme)})
    fault = faults()[name]
    assert "hun" not in fault
    assert "ter2" not in fault


@pytest.mark.parametrize("name", ["SMTP_URL", "MAIL_FROM", "APP_URL"])
def test_production_demands_what_mail_needs(set_environment: Set, name: str) -> None:
    set_environment(**{key: value for key, value in PRODUCTION.items() if key != name})
    assert faults().keys() == {name}


def test_production_does_not_mail_tokens_in_links_without_tls(set_environment: Set) -> None:
    set_environment(**PRODUCTION | {"APP_URL": "http://app.example.com"})
    assert faults().keys() == {"APP_URL"}


def test_a_pooler_needs_a_way_past_it(set_environment: Set) -> None:
    set_environment(DATABASE_URL="postgresql://pooler:6432/accord", DB_POOLER="true")
    assert faults().keys() == {"DATABASE_DIRECT_URL"}


def test_a_certificate_needs_its_key(set_environment: Set, tmp_path: Path) -> None:
    (tmp_path / "server.pem").touch()
    set_environment(TLS_CERT_FILE="server.pem")
    assert faults().keys() == {"TLS_KEY_FILE"}


def test_production_is_content_with_what_it_needs(set_environment: Set) -> None:
    set_environment(**PRODUCTION)
    found = read_settings()
    assert (found.reflection, found.migrate_on_start, found.log_format) == ("off", False, "json")
    assert found.workers == settings.cores()


def test_production_demands_a_verified_database(set_environment: Set) -> None:
    set_environment(**PRODUCTION | {"DATABASE_URL": "postgresql://accord@db.example.com/accord?sslmode=require"})
    assert faults().keys() == {"DATABASE_URL"}


def test_production_behind_a_proxy_may_listen_in_plain_text(set_environment: Set) -> None:
    set_environment(**PRODUCTION, HOST="0.0.0.0", TLS_AT_PROXY="true", TRUSTED_PROXIES="10.0.0.7")
    assert read_settings().host == "0.0.0.0"


def test_production_behind_a_proxy_has_to_know_the_proxy(set_environment: Set) -> None:
    set_environment(**PRODUCTION, TLS_AT_PROXY="true")
    assert faults().keys() == {"TRUSTED_PROXIES"}


@pytest.mark.parametrize("key", ["short", "a" * 64, "abcabcabcabcabcabcabcabcabcabcabcabc"])
def test_a_key_that_can_be_guessed_is_refused(set_environment: Set, key: str) -> None:
    set_environment(SECRET_KEY=key)
    assert faults().keys() == {"SECRET_KEY"}


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
def test_unusable_encryption_keys_are_refused_and_not_repeated(set_environment: Set, keys: str) -> None:
    set_environment(ENCRYPTION_KEYS=keys)
    assert faults().keys() == {"ENCRYPTION_KEYS"}
    assert keys not in faults()["ENCRYPTION_KEYS"]


def test_secret_of_a_provider_is_not_repeated_in_faults(set_environment: Set) -> None:
    set_environment(PROVIDERS='{"acme": {"client_id": "accord", "client_secret": "hunter2"}}')
    assert "hunter2" not in faults()["PROVIDERS"]


@pytest.mark.parametrize(("quota", "cores"), [("max 100000", 4), ("200000 100000", 2), ("50000 100000", 1)])
def test_the_quota_of_a_container_counts_as_its_cores(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, quota: str, cores: int
) -> None:
    (tmp_path / "cpu.max").write_text(quota)
    monkeypatch.setattr(settings, "CPU_QUOTA", tmp_path / "cpu.max")
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1, 2, 3}, raising=False)
    assert settings.cores() == cores


CORP = '{"corp": {"issuer": "https://login.example.com", "client_id": "accord", "client_secret": "hunter2"}}'
SIGNED_IN = "https://app.example.com/signed-in"


def test_providers_are_google_by_its_client_and_others_by_name(set_environment: Set) -> None:
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
def test_provider_that_is_set_up_wrongly_is_refused(set_environment: Set, old: str, new: str) -> None:
    set_environment(PROVIDERS=CORP.replace(old, new), PROVIDER_REDIRECT_URIS=SIGNED_IN)
    found = faults()
    assert found.keys() == {"PROVIDERS"}
    assert "hunter2" not in found["PROVIDERS"]


def test_a_provider_lists_the_audiences_that_it_adds(set_environment: Set) -> None:
    set_environment(PROVIDERS=CORP, PROVIDER_REDIRECT_URIS=SIGNED_IN)
    [corp] = read_settings().provider_settings()
    assert corp.trusted_audiences == frozenset()
    listed = CORP.replace('"hunter2"', '"hunter2", "trusted_audiences": ["252855756087375358", "other@project"]')
    set_environment(PROVIDERS=listed)
    [corp] = read_settings().provider_settings()
    assert corp.trusted_audiences == {"252855756087375358", "other@project"}


def test_fault_of_a_provider_says_whose_and_which_it_is(set_environment: Set) -> None:
    set_environment(PROVIDERS=CORP.replace("https:", "http:"), PROVIDER_REDIRECT_URIS=SIGNED_IN)
    assert faults()["PROVIDERS"].startswith("corp.issuer: must be https")


@pytest.mark.parametrize("uri", ["app.example.com", "https://app.example.com/#x", "https://*.example.com", "https:"])
def test_redirect_uri_that_is_no_whole_address_is_refused(set_environment: Set, uri: str) -> None:
    set_environment(PROVIDERS=CORP, PROVIDER_REDIRECT_URIS=f"{SIGNED_IN},{uri}")
    assert faults().keys() == {"PROVIDER_REDIRECT_URIS"}


def test_provider_needs_somewhere_to_send_people_back_to(set_environment: Set) -> None:
    set_environment(PROVIDERS=CORP)
    assert faults().keys() == {"PROVIDER_REDIRECT_URIS"}


def test_client_of_google_needs_its_secret_and_its_name_for_itself(set_environment: Set) -> None:
    set_environment(GOOGLE_CLIENT_ID="1", PROVIDER_REDIRECT_URIS=SIGNED_IN)
    assert faults().keys() == {"GOOGLE_CLIENT_SECRET"}
    set_environment(GOOGLE_CLIENT_SECRET="secret", PROVIDERS=CORP.replace("corp", "google"))
    assert faults().keys() == {"PROVIDERS"}


def test_production_demands_https_of_providers_and_applications(set_environment: Set) -> None:
    local = CORP.replace("https://login.example.com", "http://127.0.0.1:4000")
    set_environment(PROVIDERS=local, PROVIDER_REDIRECT_URIS=f"http://127.0.0.1/,{SIGNED_IN}")
    read_settings()
    set_environment(**PRODUCTION, PROVIDER_REDIRECT_URIS="http://app.example.com/")
    assert faults().keys() == {"PROVIDERS", "PROVIDER_REDIRECT_URIS"}


@pytest.fixture
def authority(set_environment: Set, tmp_path: Path) -> None:
    """Of clients' certificates, and what belongs to it."""
    for name in ("TLS_CERT_FILE", "TLS_KEY_FILE", "TLS_CLIENT_CA_FILE"):
        (tmp_path / name).touch()
        set_environment(**{name: str(tmp_path / name)})


@pytest.mark.usefixtures("authority")
def test_certificates_of_services_are_known_by_their_uri(set_environment: Set) -> None:
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
def test_certificates_that_are_mapped_wrongly_are_refused(set_environment: Set, identities: str) -> None:
    set_environment(SERVICE_IDENTITIES=identities)
    assert faults().keys() == {"SERVICE_IDENTITIES"}


def test_certificates_of_services_need_an_authority(set_environment: Set) -> None:
    set_environment(SERVICE_IDENTITIES='{"spiffe://example.com/billing": "billing"}')
    assert faults().keys() == {"TLS_CLIENT_CA_FILE"}


@pytest.mark.parametrize("name", ["two words", "", "näme", "a" * 256])
def test_issuer_and_audience_are_names_that_any_verifier_can_compare(set_environment: Set, name: str) -> None:
    set_environment(SERVICE_ISSUER=name or " ", SERVICE_AUDIENCE=name or " ")
    assert faults().keys() == {"SERVICE_ISSUER", "SERVICE_AUDIENCE"}


def test_env_example_lists_exactly_the_settings_with_their_defaults() -> None:
    listed = dict(re.findall(r"^#([A-Z_]+)=(.*)$", (ROOT / ".env.example").read_text(), flags=re.MULTILINE))
    assert list(listed) != []
    assert set(listed) == {name.upper() for name in Settings.model_fields}
    given = {name.lower(): value for name, value in listed.items() if value}
    assert Settings(**given) == Settings()


def test_env_example_holds_no_secret() -> None:
    lines = (ROOT / ".env.example").read_text().splitlines()
    assert [line for line in lines if not line.startswith("#") and line] == []
    assert {"#SECRET_KEY=", "#DATABASE_URL="} <= set(lines)
