"""The one exception tree, and whose fault a failure is.

Every message says what is wrong and what to do, and never holds text of a record. A reason code is the stable
name of a failure: it goes into verdicts, dead letters, metrics and docs, so it is never renamed.
"""

from __future__ import annotations

from enum import StrEnum
from typing import ClassVar


class Fault(StrEnum):
    """Whose fault a failure is; it decides what the runtime does (docs/design.md, Delivery)."""

    RECORD = "record"
    """Undecodable, too large, refused: a refusing verdict or a dead letter; the next record goes on."""
    TENANT = "tenant"
    """Its key or policy cannot be had: fail closed with a reason; never holds up other tenants."""
    WORLD = "world"
    """Broker, key service, Postgres: abort, pause the partition, back off; nothing is skipped."""
    US = "us"
    """A bug: the batch is done again record by record; the one that raises fails closed."""
    ERASED = "erased"
    """The key was destroyed on purpose: terminal, counted."""


class VeilError(Exception):
    """Root of every error Veilstream raises on purpose.

    `code` is the stable reason code, `fault` whose fault it is. The message must hold no text and no PII value.
    """

    code: ClassVar[str] = "internal_error"
    fault: ClassVar[Fault] = Fault.US

    def __init__(self, message: str, *, code: str | None = None) -> None:
        super().__init__(message)
        self.reason_code = code or type(self).code


class RecordError(VeilError):
    """The record itself is at fault: it is refused, its neighbours go on."""

    code = "invalid_record"
    fault = Fault.RECORD


class TenantError(VeilError):
    """Something of one tenant cannot be had: only that tenant's records fail closed."""

    code = "tenant_unavailable"
    fault = Fault.TENANT


class WorldError(VeilError):
    """A service we need is away: the partition is held and tried again, nothing is skipped."""

    code = "service_unavailable"
    fault = Fault.WORLD


class ErasedError(VeilError):
    """The key that sealed this was destroyed: the content is gone for good."""

    code = "erased"
    fault = Fault.ERASED


class ConfigError(VeilError):
    """A setting or a file is wrong: the process says which, where it is written, and what to edit, and ends."""

    code = "bad_configuration"


class StackError(VeilError):
    """A part of the embedded stack did not start, or ended and would not come back."""

    code = "stack_failed"


class ClientError(VeilError):
    """A client call could not be answered (deadline, refused command, unknown tenant)."""

    code = "client_error"
