"""What a principal lacks when the broker knows it but refuses what it asks: told with the right to give."""

from __future__ import annotations

from aiokafka.errors import (
    ClusterAuthorizationFailedError,
    GroupAuthorizationFailedError,
    TopicAuthorizationFailedError,
    TransactionalIdAuthorizationFailed,
)

from veilstream.connection.rules import PAGE
from veilstream.contracts.errors import ConfigError

_RIGHTS = {
    TopicAuthorizationFailedError: "Read and Describe on the topics it reads, Write and Describe on those it writes",
    GroupAuthorizationFailedError: "Read on its consumer group",
    TransactionalIdAuthorizationFailed: "Write and Describe on its TransactionalIds",
    ClusterAuthorizationFailedError: "a right on the cluster that the catalogue's principals do not need",
}


def denied(error: BaseException | None, about: str = "") -> ConfigError | None:
    """A broker's refusal as an error that names the missing right; None where `error` is something else.

    `about`: which topic, group or id it was asked for, where the caller knows.
    """
    for kind, right in _RIGHTS.items():
        if isinstance(error, kind):
            lacks = f"{right} ({about})" if about else right
            return ConfigError(
                f"the broker refuses this principal ({type(error).__name__}); it lacks {lacks}. `veil topics apply` gives every "
                f"agent User:veil-NAME what topics/catalogue.yaml says: run it, or look at VEIL_SASL_USERNAME ({PAGE})"
            )
    return None
