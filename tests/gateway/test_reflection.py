"""Server reflection, as grpcurl and buf curl use it."""

import subprocess
import sysconfig
from base64 import b64encode
from pathlib import Path

import grpc
import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from grpc_reflection.v1alpha.reflection_pb2 import ServerReflectionRequest, ServerReflectionResponse

from accord_db.engine.database import Database
from accord_postgres import EmbeddedPostgres
from accord_rpc.contract import contract_services
from tests.factories import signed_in_person
from tests.gateway.conftest import GatewayProcess, Start

VERSIONS = ("grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection")
BUF = Path(sysconfig.get_path("scripts"), "buf")


def reflect(
    channel: grpc.Channel,
    request: ServerReflectionRequest,
    version: str = VERSIONS[0],
    metadata: tuple[tuple[str, str], ...] = (),
) -> ServerReflectionResponse:
    call: grpc.StreamStreamMultiCallable[ServerReflectionRequest, ServerReflectionResponse] = channel.stream_stream(
        f"/{version}/ServerReflectionInfo",
        request_serializer=ServerReflectionRequest.SerializeToString,
        response_deserializer=ServerReflectionResponse.FromString,
    )
    return next(iter(call(iter([request]), metadata=metadata, timeout=10)))


def services(response: ServerReflectionResponse) -> set[str]:
    return {service.name for service in response.list_services_response.service}


@pytest.mark.parametrize("version", VERSIONS)
def test_both_versions_list_and_describe_every_service(gateway: GatewayProcess, version: str) -> None:
    with grpc.insecure_channel(gateway.address) as channel:
        listed = services(reflect(channel, ServerReflectionRequest(list_services=""), version))
        assert listed == {
            *(service.full_name for service in contract_services()),
            "grpc.health.v1.Health",
            *VERSIONS,
        }
        for service in listed:
            response = reflect(channel, ServerReflectionRequest(file_containing_symbol=service), version)
            files = map(FileDescriptorProto.FromString, response.file_descriptor_response.file_descriptor_proto)
            assert service in {f"{file.package}.{described.name}" for file in files for described in file.service}


def test_buf_curl_lists_the_methods(gateway: GatewayProcess) -> None:
    done = subprocess.run(
        [BUF, "curl", "--protocol", "grpc", "--http2-prior-knowledge", "--list-methods", f"http://{gateway.address}"],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=gateway.folder,
    )
    assert "accord.tasks.v1.TaskService/CreateTask" in done.stdout.splitlines(), done.stderr


async def test_reflection_for_signed_in_callers_requires_a_session(
    start: Start, database_url: str, database: Database
) -> None:
    person = await signed_in_person(database)
    with grpc.insecure_channel(start(DATABASE_URL=database_url, REFLECTION="signed-in").address) as channel:
        request = ServerReflectionRequest(list_services="")
        with pytest.raises(grpc.RpcError) as error:
            reflect(channel, request)
        assert error.value.code() == grpc.StatusCode.UNAUTHENTICATED
        assert "accord.tasks.v1.TaskService" in services(reflect(channel, request, metadata=person.headers))


def test_production_has_no_reflection(start: Start, separate_postgres: EmbeddedPostgres) -> None:
    key = "0123456789abcdef-0123456789abcdef"
    gateway = start(
        ACCORD_ENV="production",
        DATABASE_URL=separate_postgres.dsn,
        SECRET_KEY=key,
        ENCRYPTION_KEYS=f"1:{b64encode(bytes(range(32))).decode()}",
        SMTP_URL="smtps://smtp.example.com",
        MAIL_FROM="accounts@example.com",
        APP_URL="https://app.example.com",
        MIGRATE_ON_START="true",
        WORKERS=1,
    )
    with grpc.insecure_channel(gateway.address) as channel, pytest.raises(grpc.RpcError) as error:
        reflect(channel, ServerReflectionRequest(list_services=""))
    assert error.value.code() == grpc.StatusCode.UNIMPLEMENTED
