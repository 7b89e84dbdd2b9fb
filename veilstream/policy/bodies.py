"""What a command's body may hold, by kind, and the JSON in which answers tell of state."""

from __future__ import annotations

import base64
import re
from typing import Annotated, Any, Self

from pydantic import AfterValidator, Field, model_validator

from veilstream.contracts.records import ActiveFrom, PolicyVersion
from veilstream.policy.document import PolicyId, VersionText
from veilstream.policy.edge import Strict, form, read_json
from veilstream.policy.tenant_bodies import OFFSET_MAX, PublicKeyText

PARTITION_MAX = (1 << 31) - 1  # what Kafka's protocol has for them
_LETTER_ID = re.compile(r"[0-9a-f]{64}")


def _letter_id(value: str) -> str:
    if not _LETTER_ID.fullmatch(value):
        raise form("the letter's id: 64 hex digits")
    return value


def _document(value: Any) -> dict[str, Any] | str:
    if not isinstance(value, dict | str):
        raise form("the policy as an object, or as the text of its YAML or JSON file")
    return value


class Nothing(Strict):
    """A body without fields: what the command is about stands in its envelope."""


class PolicySet(Strict):
    """A new version: the document as an object, or as the text of a YAML or JSON file."""

    document: Annotated[Any, AfterValidator(_document)]
    activate: bool = False


class Named(Strict):
    """A version by its name."""

    policy: PolicyId
    version: VersionText


class PolicyActivate(Named):
    """The version to put in force; with `replaces`, only if that one is in force now."""

    replaces: Named | None = None


class PolicyShow(Strict):
    """A version by its name; empty: what is active for the command's tenant."""

    policy: PolicyId | None = None
    version: VersionText | None = None

    @model_validator(mode="after")
    def _both(self) -> Self:
        if (self.policy is None) != (self.version is None):
            raise form("a body with both policy and version, or neither")
        return self


class CachePurge(Strict):
    """Of which policy the kept answers are given no more; null: of all."""

    policy: PolicyId | None = None


class LetterPlace(Strict):
    """A dead letter by its place on veil.dead-letters; its id guards against another one that stands there."""

    partition: Annotated[int, Field(ge=0, le=PARTITION_MAX)]
    offset: Annotated[int, Field(ge=0, le=OFFSET_MAX)]
    id: Annotated[str, AfterValidator(_letter_id)]


class LetterShow(LetterPlace):
    """The letter to be shown, and the X25519 public key its content is sealed to: nobody else reads it on the results topic."""

    reply_key: PublicKeyText

    @property
    def reply_key_bytes(self) -> bytes:
        """The key of who asks."""
        return base64.b64decode(self.reply_key)


def active_json(active: ActiveFrom) -> dict[str, Any]:
    """A version and since when it is in force."""
    return {
        "policy": active.policy, "version": active.version, "digest": active.digest, "from_ms": active.from_ms,
    }  # fmt: skip


def version_json(row: PolicyVersion, *, document: bool) -> dict[str, Any]:
    """A policy version, with its document or without."""
    told: dict[str, Any] = {
        "policy": row.policy, "version": row.version, "digest": row.digest, "status": row.status,
        "author": row.author, "created_ms": row.created_ms,
    }  # fmt: skip
    if document:
        told["document"] = read_json(row.document, what="the stored policy", code="invalid_policy")
    return told
