"""The registry's HTTP client: what it asks, and whose fault each answer is."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from pydantic import SecretStr

from tests.unit.registry_server import Handler, Server, answer, cut, hang, serving
from veilstream.contracts.errors import ConfigError, RecordError, VeilError, WorldError
from veilstream.registry.confluent import ANSWER_BYTES_MAX, ConfluentRegistry

AVRO = '{"type":"record","name":"X","fields":[]}'
NOT_FOUND = {"error_code": 40403, "message": "Schema 9 not found"}
PASSWORD = "s3cret"


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    async with serving() as one:
        yield one


async def test_it_speaks_the_protocol(server: Server) -> None:
    """Paths, content type, credentials and the body of a registration are those of the protocol."""
    server.schemas[9] = AVRO
    registry = server.registry(user=f"us%40er:{PASSWORD}@")
    await registry.start()
    assert await registry.schema_text(9) == AVRO
    assert await registry.register("veil.verdicts-value", AVRO) == 7
    await registry.stop()
    assert server.asked == ["GET /schemas/ids/9", "POST /subjects/veil.verdicts-value/versions"]
    assert server.headers[0]["Authorization"] == "Basic dXNAZXI6czNjcmV0"  # us@er:s3cret
    assert server.headers[1]["Content-Type"] == "application/vnd.schemaregistry.v1+json"
    assert server.bodies == [{"schema": AVRO}]


GET_CASES: dict[str, tuple[Handler, type[VeilError], str]] = {
    "unknown id": (answer(404, NOT_FOUND), RecordError, "unknown_schema"),
    "404 of a proxy": (answer(404, b"<html>not found</html>"), WorldError, "registry_unavailable"),
    "404 of another path": (
        answer(404, {"error_code": 404, "message": "HTTP 404"}),
        WorldError,
        "registry_unavailable",
    ),
    "500": (answer(500, {"error_code": 50001}), WorldError, "registry_unavailable"),
    "429": (answer(429, {}), WorldError, "registry_unavailable"),
    "wrong password": (answer(401, {"error_code": 401}), WorldError, "registry_unavailable"),
    "no right": (answer(403, {"error_code": 40301}), WorldError, "registry_unavailable"),
    "redirect": (answer(302, b""), WorldError, "registry_unavailable"),
    "hang": (hang, WorldError, "registry_unavailable"),
    "cut off": (cut, WorldError, "registry_unavailable"),
    "truncated JSON": (answer(200, b'{"schema": "{'), WorldError, "registry_unavailable"),
    "empty": (answer(200, b""), WorldError, "registry_unavailable"),
    "a list": (answer(200, [AVRO]), WorldError, "registry_unavailable"),
    "no schema": (answer(200, {"id": 9}), WorldError, "registry_unavailable"),
    "schema is an object": (answer(200, {"schema": {"type": "record"}}), WorldError, "registry_unavailable"),
    "huge page": (answer(200, b"<" * (ANSWER_BYTES_MAX + 1)), WorldError, "registry_unavailable"),
    "huge schema": (answer(200, {"schema": "x" * ANSWER_BYTES_MAX}), RecordError, "unsupported_schema"),
    "Protobuf": (answer(200, {"schema": "x", "schemaType": "PROTOBUF"}), RecordError, "unsupported_schema"),
    "references": (
        answer(200, {"schema": AVRO, "references": [{"name": "a", "subject": "b", "version": 1}]}),
        RecordError,
        "unsupported_schema",
    ),
}


@pytest.mark.parametrize(("handler", "error", "code"), GET_CASES.values(), ids=GET_CASES)
async def test_whose_fault_an_answer_is(
    server: Server, handler: Handler, error: type[VeilError], code: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Only what the registry says of the id itself is the record's; no message and no log holds the password."""
    server.always = handler
    registry = server.registry(user=f"user:{PASSWORD}@", timeout_s=0.1 if handler is hang else 30.0, patience_s=0.2)
    await registry.start()
    with pytest.raises(error) as caught:
        await registry.schema_text(9)
    await registry.stop()
    assert caught.value.reason_code == code
    assert PASSWORD not in f"{caught.value!r} {caught.value.__cause__!r} {caplog.text}"


NEAR_MISSES: dict[str, dict[str, object]] = {
    "Avro by name": {"schema": AVRO, "schemaType": "AVRO"},
    "no references": {"schema": AVRO, "references": []},
    "nulls": {"schema": AVRO, "schemaType": None, "references": None},
    "more than asked for": {"schema": AVRO, "maxId": 12, "ruleSet": {}},
}


@pytest.mark.parametrize("body", NEAR_MISSES.values(), ids=NEAR_MISSES)
async def test_what_is_taken(server: Server, body: dict[str, object]) -> None:
    """Answers of older and newer registries that say the same are taken."""
    server.always = answer(200, body)
    registry = server.registry()
    await registry.start()
    assert await registry.schema_text(9) == AVRO
    await registry.stop()


@pytest.mark.parametrize(
    "first", [answer(500, b""), answer(503, b""), answer(429, b""), cut], ids=["500", "503", "429", "cut"]
)
async def test_what_may_pass_is_asked_again(server: Server, first: Handler) -> None:
    """A registry that restarts costs time, not records."""
    server.schemas[9] = AVRO
    server.script.extend([first, first])
    registry = server.registry()
    await registry.start()
    assert await registry.schema_text(9) == AVRO
    await registry.stop()
    assert len(server.asked) == 3


@pytest.mark.parametrize("status", [400, 401, 403, 404])
async def test_what_will_not_pass_is_asked_once(server: Server, status: int) -> None:
    """A refusal stays one: asking again would only lock accounts."""
    server.always = answer(status, b"")
    registry = server.registry()
    await registry.start()
    with pytest.raises(WorldError):
        await registry.schema_text(9)
    await registry.stop()
    assert len(server.asked) == 1


POST_CASES: dict[str, Handler] = {
    "incompatible": answer(409, {"error_code": 409}),
    "invalid": answer(422, {"error_code": 42201}),
    "no right": answer(403, {"error_code": 40301}),
    "no such path": answer(404, {"error_code": 40403}),
    "500": answer(500, b""),
    "no id": answer(200, {}),
    "id is text": answer(200, {"id": "7"}),
    "id is true": answer(200, {"id": True}),
    "id too large": answer(200, {"id": 1 << 31}),
    "truncated": answer(200, b'{"id": 7'),
}


@pytest.mark.parametrize("handler", POST_CASES.values(), ids=POST_CASES)
async def test_a_failed_registration_is_the_worlds_fault(server: Server, handler: Handler) -> None:
    """No verdict is refused or lost because our schema could not be registered."""
    server.always = handler
    registry = server.registry(patience_s=0.1)
    await registry.start()
    with pytest.raises(WorldError) as caught:
        await registry.register("veil.verdicts-value", AVRO)
    await registry.stop()
    assert caught.value.reason_code == "registry_unavailable"


async def test_nobody_there() -> None:
    """A closed port is a registry that is away."""
    async with serving() as gone:
        registry = gone.registry(patience_s=0.1)
    await registry.start()
    with pytest.raises(WorldError, match="cannot be reached"):
        await registry.schema_text(9)
    await registry.stop()


@pytest.mark.parametrize(
    "url", ["registry:8081", "ftp://registry", "http://", "http://a:1,http://b:1", "http://a:99999999", ""]
)
def test_an_address_that_is_none_is_refused_at_start(url: str) -> None:
    """The message names the setting and not its value."""
    with pytest.raises(ConfigError, match="VEIL_SCHEMA_REGISTRY") as caught:
        ConfluentRegistry(SecretStr(url.replace("//", f"//user:{PASSWORD}@")))
    assert PASSWORD not in str(caught.value)
