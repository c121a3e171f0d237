"""The pages of a gateway: the API reference in a browser, health, and the keys of service tokens."""

import json
import shutil
import subprocess
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.conftest import temporary_database
from tests.gateway.conftest import GatewayProcess, Start, gateways, url
from tests.npm import installed

FOLDER = Path(__file__).parents[1] / "browser"
EMAIL, PASSWORD = "ada@example.com", "a sentence that only I know"
DOCUMENT = json.loads((files("accord") / "openapi.json").read_text())


@pytest.fixture(scope="module")
def pages(postgres: str, template: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx2.Client]:
    """Calls a gateway in which Ada has an account."""
    folder = tmp_path_factory.mktemp("pages")
    with (
        temporary_database(postgres, template=template) as dsn,
        gateways(folder) as start,
        client_of(start(DATABASE_URL=url(dsn), SERVER="accord")) as client,
    ):
        sign_up(client)
        yield client


def client_of(gateway: GatewayProcess) -> httpx2.Client:
    return httpx2.Client(base_url=f"http://{gateway.address}", trust_env=False, timeout=30)


def sign_up(client: httpx2.Client) -> None:
    account = {"email": EMAIL, "password": PASSWORD, "displayName": "Ada"}
    assert client.post("/v1/accounts", json=account).status_code == 200


def sign_in(client: httpx2.Client) -> dict[str, str]:
    answer = client.post("/v1/sessions", json={"email": EMAIL, "password": PASSWORD}).json()
    return {"authorization": f"Bearer {answer['sessionToken']}"}


def visit(client: httpx2.Client, folder: Path, *, sign_in_first: bool = False) -> Any:
    """What a person sees who opens /docs, signs in and tries a call."""
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("Chromium is not installed")
    node = installed(FOLDER)
    options = {
        "chromium": chromium,
        "url": str(client.base_url).rstrip("/"),
        "email": EMAIL,
        "password": PASSWORD,
        "folder": str(folder),
        "signInFirst": sign_in_first,
    }
    done = subprocess.run([node, "docs_page.js", json.dumps(options)], cwd=FOLDER, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.slow
def test_page_shows_every_operation_and_makes_a_call(pages: httpx2.Client, tmp_path: Path) -> None:
    seen = visit(pages, tmp_path)
    assert seen["problems"] == []  # no error in the console, and nothing that the content security policy refused
    operations = sum(len(path) for path in DOCUMENT["paths"].values())
    assert seen["beforeSignIn"] == seen["operations"] == operations
    assert seen["response"]["status"] == "200"
    assert '"title": "Example"' in seen["response"]["text"]
    assert "password is wrong" in seen["refusal"]
    assert (tmp_path / "page.png").stat().st_size > 20_000
    tasks = pages.get("/v1/tasks", headers=sign_in(pages)).json()["tasks"]
    assert "Example" in [task["title"] for task in tasks]


@pytest.mark.slow
def test_page_asks_to_sign_in_where_reflection_requires_it_and_takes_the_cookie(
    database_url: str, start: Start, tmp_path: Path
) -> None:
    settings = {"REFLECTION": "signed-in", "SESSION_COOKIES": True}
    with client_of(start(DATABASE_URL=database_url, SERVER="accord", **settings)) as client:
        sign_up(client)
        seen = visit(client, tmp_path, sign_in_first=True)
        assert "Sign in" in seen["beforeSignIn"]
        assert seen["operations"] > 80
        assert seen["afterReload"] == EMAIL


def test_document_is_the_one_of_the_contract(pages: httpx2.Client) -> None:
    response = pages.get("/openapi.json")
    assert response.json() == DOCUMENT
    assert response.headers["content-encoding"] == "gzip"
    assert pages.get("/openapi.json", headers={"if-none-match": response.headers["etag"]}).status_code == 304


def test_document_requires_a_session_where_reflection_does(database_url: str, start: Start) -> None:
    with client_of(start(DATABASE_URL=database_url, SERVER="accord", REFLECTION="signed-in")) as client:
        sign_up(client)
        refused = client.get("/openapi.json")
        assert refused.status_code == 401
        assert refused.json()["details"][0]["reason"] == "CREDENTIAL_MISSING"
        assert client.get("/openapi.json", headers=sign_in(client)).json() == DOCUMENT


def test_reference_is_not_served_where_reflection_is_off(database_url: str, start: Start) -> None:
    with client_of(start(DATABASE_URL=database_url, SERVER="accord", REFLECTION="off")) as client:
        for path in ("/", "/openapi.json", "/docs", "/docs/docs.js", "/docs/swagger-ui-bundle.js"):
            assert client.get(path).status_code == 404
        assert client.get("/healthz").status_code == 200


def test_root_leads_to_the_reference(pages: httpx2.Client) -> None:
    response = pages.get("/", follow_redirects=True)
    assert (response.status_code, response.url.path) == (200, "/docs")


def test_content_security_policy_permits_scripts_of_this_origin_only(pages: httpx2.Client) -> None:
    page = pages.get("/docs")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    policy = page.headers["content-security-policy"]
    directives = dict(directive.strip().split(" ", 1) for directive in policy.split(";"))
    assert directives["default-src"] == "'none'"
    assert directives["script-src"] == directives["style-src"] == directives["connect-src"] == "'self'"
    assert directives["frame-ancestors"] == "'none'"
    assert "unsafe" not in policy


def test_health_is_public_and_not_counted(pages: httpx2.Client) -> None:
    assert pages.get("/healthz").json() == {"status": "alive"}
    assert pages.get("/readyz").json() == {"status": "serving"}


def test_keys_are_those_of_get_jwks(pages: httpx2.Client) -> None:
    keys = pages.get("/.well-known/jwks.json")
    assert keys.json()["keys"] == pages.get("/v1/jwks").json()["keys"]
    assert keys.headers["cache-control"] == "public, max-age=86400"


def test_discovery_names_the_issuer_and_its_keys(pages: httpx2.Client) -> None:
    discovered = pages.get("/.well-known/openid-configuration").json()
    assert discovered["issuer"] == "accord"
    assert httpx2.get(discovered["jwks_uri"], trust_env=False).json()["keys"]
    refused = pages.get("/.well-known/openid-configuration", headers={"host": "a b"})
    assert refused.status_code == 400
