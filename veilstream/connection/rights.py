"""Whether this process's principal may do what its agent needs, asked before it joins anything.

Without it a missing right shows late or never: Kafka's client asks for ever for a topic or a group it may not see, and a
changelog that may not be read looks like an empty one.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any, Literal

from aiokafka.errors import GroupAuthorizationFailedError, TopicAuthorizationFailedError
from confluent_kafka import KafkaException, TopicCollection
from confluent_kafka.admin import AclOperation, AdminClient

from veilstream.connection.denied import denied
from veilstream.contracts.errors import ConfigError, WorldError

TIMEOUT_S = 15.0
Right = Literal["read", "write", "describe"]


def missing_rights(
    options: Mapping[str, Any], *, group: str, reads: Collection[str], writes: Collection[str]
) -> ConfigError | None:
    """The first right that is missing; None where all are there or the broker does not tell. Blocks.

    `options` are librdkafka's. A topic that does not exist is not this function's subject. What a step writes is not known
    before it writes it: there the broker's refusal ends the process with the same error (runtime/ending.py).
    """
    admin = AdminClient(dict(options))
    lacking = [*_on_topics(admin, reads, AclOperation.READ), *_on_topics(admin, writes, AclOperation.WRITE)]
    if lacking:
        return denied(TopicAuthorizationFailedError(), f"here {', '.join(lacking)}")
    if not _on_group(admin, group):
        return denied(GroupAuthorizationFailedError(), f"here {group}")
    return None


def _on_topics(admin: Any, names: Collection[str], operation: Any) -> Iterator[str]:
    if not names:
        return
    collection = TopicCollection(sorted(names))
    described = admin.describe_topics(collection, include_authorized_operations=True, request_timeout=TIMEOUT_S)
    for name, future in described.items():
        allowed = _allowed(future, "TOPIC_AUTHORIZATION_FAILED")
        if allowed is not None and operation not in allowed:
            yield f"{operation.name.capitalize()} on {name}"


def usable_topics(options: Mapping[str, Any], names: Collection[str], right: Right) -> frozenset[str]:
    """Those of the topics that are there, and that this principal has the right to, as far as the broker tells. Blocks.

    Raises WorldError: no answer.
    """
    if not names:
        return frozenset()
    admin = AdminClient(dict(options))  # kept: its futures fail once it is collected
    described = admin.describe_topics(
        TopicCollection(sorted(names)), include_authorized_operations=True, request_timeout=TIMEOUT_S
    )
    return frozenset(name for name, future in described.items() if _usable(future, AclOperation[right.upper()]))


def _usable(future: Any, operation: Any) -> bool:
    try:
        allowed = future.result(timeout=2 * TIMEOUT_S).authorized_operations
    except KafkaException as exc:
        name = exc.args[0].name()
        if name in ("UNKNOWN_TOPIC_OR_PART", "TOPIC_AUTHORIZATION_FAILED"):
            return False
        raise WorldError(f"the brokers do not tell of topics ({name}): look at them") from None
    return allowed is None or operation in allowed


def _on_group(admin: Any, group: str) -> bool:
    described = admin.describe_consumer_groups([group], include_authorized_operations=True, request_timeout=TIMEOUT_S)
    allowed = _allowed(described[group], "GROUP_AUTHORIZATION_FAILED")
    return allowed is None or AclOperation.READ in allowed


def _allowed(future: Any, refused: str) -> Collection[Any] | None:
    """What the broker says is allowed; None: it does not say."""
    try:
        found: Collection[Any] | None = future.result(timeout=2 * TIMEOUT_S).authorized_operations
    except KafkaException as exc:
        return () if exc.args[0].name() == refused else None
    return found
