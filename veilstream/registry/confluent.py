"""HTTP client of a Confluent schema registry, or of anything that speaks its protocol.

What is whose fault: an id the registry says it does not have, or whose schema cannot be taken, is the record's. Everything
else (no answer, an error, an answer that is not a registry's, a refusal of our rights) is the world's: nothing is refused
because an address or a proxy is wrong. Messages name the registry by host and port and quote nothing of its answers.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any, Final, NoReturn

import aiohttp
import orjson
import stamina
from pydantic import SecretStr
from yarl import URL

from veilstream.contracts.errors import ConfigError, RecordError, WorldError
from veilstream.contracts.framing import REGISTRY_ID_MAX

CONTENT_TYPE: Final = "application/vnd.schemaregistry.v1+json"
SCHEMA_NOT_FOUND: Final = 40403
"""The protocol's own code: a 404 without it comes from a wrong path or a proxy, and says nothing about the id."""
ANSWER_BYTES_MAX: Final = 1 << 20
"""A schema of the largest size that is taken, with every character escaped, fits twice."""
ATTEMPTS: Final = 8


class _TryAgainError(WorldError):
    """No answer, or one that may be another the next time."""


class _TooLargeError(WorldError):
    """An object of JSON by its first byte, larger than any schema that is taken."""


class ConfluentRegistry:
    """One registry. `start` before the first question, `stop` after the last one."""

    def __init__(
        self, url: SecretStr, *, timeout_s: float = 5.0, patience_s: float = 10.0, first_wait_s: float = 0.1
    ) -> None:
        """`timeout_s` of one question; `patience_s` after which a failed one is not asked again. Raises ConfigError."""
        given = _parsed(url.get_secret_value())
        self._base = given.with_user(None)
        self._name = f"{given.host}:{given.port}"
        self._headers = {"Accept": CONTENT_TYPE} | _credentials(given)
        self._timeout = aiohttp.ClientTimeout(total=timeout_s)
        self._patience_s = patience_s
        self._first_wait_s = first_wait_s
        self._session: aiohttp.ClientSession | None = None

    async def start(self) -> None:
        """Ready to ask; the registry need not be there yet."""
        self._session = aiohttp.ClientSession(headers=self._headers, timeout=self._timeout)

    async def stop(self) -> None:
        """Close connections."""
        if self._session is not None:
            await self._session.close()

    async def schema_text(self, schema_id: int) -> str:
        """The Avro schema under an id. Raises RecordError (none, or none that can be taken), WorldError."""
        try:
            status, answer = await self._ask("GET", self._base / "schemas" / "ids" / str(schema_id))
        except _TooLargeError:  # whoever may register schemas must not be able to hold a partition
            raise RecordError(
                "the schema under the value's registry id is too large", code="unsupported_schema"
            ) from None
        if status == 404 and answer.get("error_code") == SCHEMA_NOT_FOUND:
            raise RecordError(
                "the schema registry has no schema under the value's id: register it first, with the registry that "
                "VEIL_SCHEMA_REGISTRY names",
                code="unknown_schema",
            )
        if status != 200:
            self._refused(status)
        text, kind = answer.get("schema"), answer.get("schemaType") or "AVRO"
        if not isinstance(text, str):
            raise self._no_registry("an answer without a schema")
        if kind != "AVRO":
            raise RecordError("the schema under the value's registry id is not Avro", code="unsupported_schema")
        if answer.get("references"):
            raise RecordError(
                "the schema under the value's registry id has references to other schemas, which are not followed: "
                "register it as one schema, as schemas/veil.Request.avsc is",
                code="unsupported_schema",
            )
        return text

    async def register(self, subject: str, schema_text: str) -> int:
        """The id of a schema under a subject; it is registered where it is not yet. Raises WorldError."""
        body = orjson.dumps({"schema": schema_text})
        status, answer = await self._ask("POST", self._base / "subjects" / subject / "versions", body)
        if status in (409, 422):
            raise WorldError(
                f"the schema registry at {self._name} does not take our schema under {subject} (HTTP {status}): see which "
                "schema stands there, and its compatibility rule",
                code="registry_unavailable",
            )
        if status != 200:
            self._refused(status)
        schema_id = answer.get("id")
        if type(schema_id) is not int or not 0 <= schema_id <= REGISTRY_ID_MAX:
            raise self._no_registry("an answer without an id")
        return schema_id

    async def _ask(self, method: str, url: URL, body: bytes | None = None) -> tuple[int, Mapping[str, Any]]:
        """Status and JSON object of the answer, asked again while that may help. Raises WorldError."""
        async for attempt in stamina.retry_context(
            on=_TryAgainError, attempts=ATTEMPTS, timeout=self._patience_s,
            wait_initial=self._first_wait_s, wait_max=5.0, wait_jitter=self._first_wait_s,
        ):  # fmt: skip
            with attempt:
                status, raw = await self._once(method, url, body)
        return status, self._object(status, raw)

    async def _once(self, method: str, url: URL, body: bytes | None) -> tuple[int, bytes]:
        if self._session is None:
            raise WorldError("the schema registry's client is not started", code="registry_unavailable")
        headers = {} if body is None else {"Content-Type": CONTENT_TYPE}
        try:  # a redirect is not followed: it might carry the password to another host
            async with self._session.request(
                method, url, data=body, headers=headers, allow_redirects=False
            ) as response:
                if response.status == 429 or response.status >= 500:
                    raise self._away(f"answers HTTP {response.status}")
                raw = bytearray()
                async for part in response.content.iter_any():
                    raw += part
                    if len(raw) > ANSWER_BYTES_MAX:
                        what = f"an answer of more than {ANSWER_BYTES_MAX:,} bytes"
                        raise self._no_registry(what, _TooLargeError if raw.startswith(b"{") else WorldError)
                return response.status, bytes(raw)
        except (aiohttp.ClientError, TimeoutError, OSError) as exc:  # their texts may hold the password
            raise self._away(f"cannot be reached ({type(exc).__name__})") from None

    def _object(self, status: int, raw: bytes) -> Mapping[str, Any]:
        """The JSON object; an error's body need not be one, as its status says enough."""
        try:  # not orjson: a registered schema may hold half of a UTF-16 pair, and then it alone is at fault
            answer = json.loads(raw.decode("utf-8", "replace"))
        except (ValueError, RecursionError):
            answer = None
        if isinstance(answer, dict):
            return answer
        if status == 200:
            raise self._no_registry("an answer that is no JSON object")
        return {}

    def _refused(self, status: int) -> NoReturn:
        what = "check user, password and rights in" if status in (401, 403) else "check the address in"
        raise WorldError(
            f"the schema registry at {self._name} answers HTTP {status}: {what} VEIL_SCHEMA_REGISTRY",
            code="registry_unavailable",
        )

    def _no_registry(self, what: str, error: type[WorldError] = WorldError) -> WorldError:
        return error(
            f"{self._name} gives {what}, so it is no schema registry, or something stands between: check "
            "VEIL_SCHEMA_REGISTRY",
            code="registry_unavailable",
        )

    def _away(self, what: str) -> _TryAgainError:
        return _TryAgainError(f"the schema registry at {self._name} {what}", code="registry_unavailable")


def _credentials(url: URL) -> dict[str, str]:
    if url.user is None:
        return {}
    pair = f"{url.user}:{url.password or ''}".encode()
    return {"Authorization": f"Basic {base64.b64encode(pair).decode()}"}


def _parsed(text: str) -> URL:
    try:
        url = URL(text)
        usable = url.scheme in ("http", "https") and bool(url.host) and not url.query_string and "," not in text
    except ValueError:
        usable = False
    if not usable:
        raise ConfigError("VEIL_SCHEMA_REGISTRY is not an address like http://host:8081: edit it, one address only")
    return url
