"""An OpenID Connect provider on loopback. It conforms to the standard until a test replaces one of its steps."""

import base64
import hashlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, parse_qsl, urlsplit

from cryptography.hazmat.primitives import hashes, hmac, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from pydantic import SecretStr

from accord_gateway.setting_values import ProviderEntry

CLIENT_ID = "accord at the hostile provider"
CLIENT_SECRET = "a client secret of thirty-two bytes"
TRUSTED_AUDIENCES = ("project of the client",)
REDIRECT_URI = "https://app.example.com/signed-in"
Json = dict[str, Any]


def b64(data: bytes | str) -> str:
    data = data.encode() if isinstance(data, str) else data
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def unb64(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def number(value: int) -> str:
    return b64(value.to_bytes((value.bit_length() + 7) // 8))


class Signer:
    """A key pair that signs any data. The key is new unless one is given."""

    def __init__(self, kid: str = "rsa", bits: int = 2048, private: rsa.RSAPrivateKey | None = None) -> None:
        self.kid = kid
        self.private = private or rsa.generate_private_key(65537, bits)

    @property
    def jwk(self) -> Json:
        numbers = self.private.public_key().public_numbers()
        key = {"kty": "RSA", "n": number(numbers.n), "e": number(numbers.e)}
        return {**key, "kid": self.kid, "use": "sig", "alg": "RS256"}

    @property
    def pem(self) -> bytes:
        form = serialization.PublicFormat.SubjectPublicKeyInfo
        return self.private.public_key().public_bytes(serialization.Encoding.PEM, form)

    def sign(self, data: bytes) -> bytes:
        return self.private.sign(data, padding.PKCS1v15(), hashes.SHA256())


@cache
def key_of(owner: str) -> rsa.RSAPrivateKey:
    """The same key for all providers of a worker, because generating one takes 40 ms."""
    return rsa.generate_private_key(65537, 2048)


class CurveSigner:
    def __init__(self, kid: str = "curve") -> None:
        self.kid = kid
        self.private = ec.generate_private_key(ec.SECP256R1())

    @property
    def jwk(self) -> Json:
        point = self.private.public_key().public_numbers()
        x, y = (b64(coordinate.to_bytes(32)) for coordinate in (point.x, point.y))
        return {"kty": "EC", "crv": "P-256", "x": x, "y": y, "kid": self.kid, "use": "sig", "alg": "ES256"}

    def sign(self, data: bytes) -> bytes:
        r, s = decode_dss_signature(self.private.sign(data, ec.ECDSA(hashes.SHA256())))
        return r.to_bytes(32) + s.to_bytes(32)


def jws(header: Json, payload: bytes | str, sign: Callable[[bytes], bytes]) -> str:
    signed = f"{b64(json.dumps(header))}.{b64(payload)}"
    return f"{signed}.{b64(sign(signed.encode()))}"


def hmac_signer(key: bytes) -> Callable[[bytes], bytes]:
    def sign(data: bytes) -> bytes:
        mac = hmac.HMAC(key, hashes.SHA256())
        mac.update(data)
        return mac.finalize()

    return sign


@dataclass
class HttpResponse:
    """The response of an endpoint. A body that is not bytes is encoded as JSON."""

    body: object
    status: int = 200
    headers: dict[str, str] = field(default_factory=lambda: {"Content-Type": "application/json"})

    def bytes(self) -> bytes:
        return self.body if isinstance(self.body, bytes) else json.dumps(self.body).encode()


class Provider:
    """Each of its steps is an attribute that a mutation may replace."""

    def __init__(self) -> None:
        self.port = 0
        self.signer, self.unknown_key = Signer(private=key_of("provider")), Signer(private=key_of("unknown"))
        self.curve = CurveSigner()
        self.subject, self.email = "subject-1", "victim@example.com"
        self.authorizations: dict[str, Json] = {}
        self.requests: list[str] = []
        # The steps. The argument of each is the value that a conforming provider would return.
        self.metadata: Callable[[Json], HttpResponse] = HttpResponse
        self.keys: Callable[[Json], HttpResponse] = HttpResponse
        self.claims: Callable[[Json], Json | bytes] = lambda claims: claims
        self.sign: Callable[[bytes], str] = self.signed
        self.token_response: Callable[[Json], HttpResponse] = HttpResponse
        self.refresh_response: Callable[[Json], HttpResponse] = HttpResponse
        self.user_info: Callable[[Json], HttpResponse] = HttpResponse
        self.callback: Callable[[Json], Json] = lambda parameters: parameters

    @property
    def issuer(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def settings(self) -> ProviderEntry:
        """The settings of an installation that trusts this provider."""
        return ProviderEntry(
            issuer=self.issuer,
            client_id=CLIENT_ID,
            client_secret=SecretStr(CLIENT_SECRET),
            trusted_audiences=TRUSTED_AUDIENCES,
        )

    def signed(self, payload: bytes, **header: Any) -> str:
        return jws({"alg": "RS256", "kid": self.signer.kid, "typ": "JWT", **header}, payload, self.signer.sign)

    def sign_in(self, authorization_url: str) -> Json:
        """Signs the user in and returns the parameters of the redirect URI."""
        authorization = dict(parse_qsl(urlsplit(authorization_url).query))
        assert authorization["response_type"] == "code"
        assert authorization["code_challenge_method"] == "S256"
        code = f"code-{len(self.authorizations)}-of-the-provider"
        self.authorizations[code] = authorization
        return self.callback({"code": code, "state": authorization["state"], "issuer": self.issuer})

    def respond(self, path: str, form: dict[str, list[str]]) -> HttpResponse:
        self.requests.append(path)
        match path:
            case "/.well-known/openid-configuration":
                return self.metadata(self._metadata())
            case "/keys":
                return self.keys({"keys": [self.signer.jwk, self.curve.jwk]})
            case "/token":
                return self._tokens(form)
            case "/userinfo":
                return self.user_info({"sub": self.subject, "email": self.email, "email_verified": True})
        return HttpResponse({"error": "not_found"}, 404)

    def _metadata(self) -> Json:
        return {
            "issuer": self.issuer,
            "authorization_endpoint": f"{self.issuer}/authorize",
            "token_endpoint": f"{self.issuer}/token",
            "jwks_uri": f"{self.issuer}/keys",
            "userinfo_endpoint": f"{self.issuer}/userinfo",
            "response_types_supported": ["code"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["RS256", "ES256"],
            "code_challenge_methods_supported": ["S256"],
            "authorization_response_iss_parameter_supported": True,
        }

    def _tokens(self, form: dict[str, list[str]]) -> HttpResponse:
        if form["grant_type"] == ["refresh_token"]:
            return self.refresh_response({"access_token": "a newer one", "token_type": "Bearer", "expires_in": 300})
        authorization = self.authorizations.get(form["code"][0])
        if authorization is None:
            return HttpResponse({"error": "invalid_grant"}, 400)
        access_token = "an access token of the provider"
        claims = self.claims(self._claims(authorization, access_token))
        payload = claims if isinstance(claims, bytes) else json.dumps(claims).encode()
        tokens = {"access_token": access_token, "token_type": "Bearer", "expires_in": 300}
        return self.token_response({**tokens, "id_token": self.sign(payload)})

    def _claims(self, authorization: Json, access_token: str) -> Json:
        now = int(time.time())
        digest = hashlib.sha256(access_token.encode()).digest()
        return {
            "iss": self.issuer,
            "aud": CLIENT_ID,
            "sub": self.subject,
            "exp": now + 300,
            "iat": now,
            "nonce": authorization["nonce"],
            "at_hash": b64(digest[:16]),
            "email": self.email,
            "email_verified": True,
            "name": "A Victim",
        }


@contextmanager
def serving(provider: Provider) -> Iterator[Provider]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._write(provider.respond(urlsplit(self.path).path, {}))

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
            self._write(provider.respond(urlsplit(self.path).path, parse_qs(body)))

        def _write(self, response: HttpResponse) -> None:
            body = response.bytes()
            self.send_response(response.status)
            for name, value in {"Content-Length": str(len(body)), **response.headers}.items():
                self.send_header(name, value)
            self.end_headers()
            try:
                self.wfile.write(body)
            except OSError:
                self.close_connection = True  # the client refused a body of this size

        def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002 — its name there
            """Logs nothing: `requests` records the paths."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    provider.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield provider
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
