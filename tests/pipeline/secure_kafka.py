"""A broker that lets nobody in without credentials: SASL_SSL, mTLS and SASL_PLAINTEXT, with Kafka's StandardAuthorizer.

Besides these it has the embedded broker's own PLAINTEXT listener, whose ANONYMOUS is the super user: the tests' own
readers, topics and access control entries go that way, so that they do not depend on what they test.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from confluent_kafka.admin import AdminClient, ScramCredentialInfo, ScramMechanism, UserScramCredentialUpsertion

from tests.certificates import make_authority
from veilstream.stack.kafka import KafkaServer, start_kafka
from veilstream.stack.ports import kept_port
from veilstream.topics.acls import Acl
from veilstream.topics.cluster import to_binding

USERS = (
    "admin", "worker", "nobody", "half", "veil-gate", "veil-policy", "veil-clients", "veil-operators",
)  # fmt: skip
KEY_PASSWORD = "of-the-key"


def password_of(user: str) -> str:
    """What the broker was told of this user."""
    return f"{user}'s=own,password"


@dataclass(frozen=True)
class SecureKafka:
    """The running broker; each listener by its address."""

    server: KafkaServer
    folder: Path
    plain: str
    """PLAINTEXT; the super user."""
    secure: str
    """SASL_SSL."""
    mutual: str
    """SSL with a client's certificate."""
    clear: str
    """SASL_PLAINTEXT."""
    expired: str
    """SASL_SSL with a certificate that is over."""
    elsewhere: str
    """SASL_SSL; what clients are sent to is a name that is not in its certificate."""

    def sasl_ssl(self, user: str, mechanism: str = "SCRAM-SHA-512") -> dict[str, str]:
        """A process's environment: that user, by password over TLS."""
        return {
            "VEIL_BOOTSTRAP": self.secure,
            "VEIL_SECURITY_PROTOCOL": "SASL_SSL",
            "VEIL_SSL_CAFILE": str(self.folder / "own-ca.pem"),
            "VEIL_SASL_MECHANISM": mechanism,
            "VEIL_SASL_USERNAME": user,
            "VEIL_SASL_PASSWORD": password_of(user),
        }

    def mtls(self, user: str) -> dict[str, str]:
        """A process's environment: that user, by certificate."""
        return {
            "VEIL_BOOTSTRAP": self.mutual,
            "VEIL_SECURITY_PROTOCOL": "SSL",
            "VEIL_SSL_CAFILE": str(self.folder / "own-ca.pem"),
            "VEIL_SSL_CERTFILE": str(self.folder / f"{user}.crt"),
            "VEIL_SSL_KEYFILE": str(self.folder / f"{user}.key"),
            "VEIL_SSL_KEY_PASSWORD": KEY_PASSWORD,
        }

    def sasl_plaintext(self, user: str) -> dict[str, str]:
        """A process's environment: that user, by SCRAM, not encrypted."""
        names = self.sasl_ssl(user, "SCRAM-SHA-256")
        del names["VEIL_SSL_CAFILE"]
        return names | {"VEIL_BOOTSTRAP": self.clear, "VEIL_SECURITY_PROTOCOL": "SASL_PLAINTEXT"}

    def allow(self, acls: Iterable[Acl]) -> None:
        """Make access control entries."""
        admin = AdminClient({"bootstrap.servers": self.plain})
        for future in admin.create_acls([to_binding(acl) for acl in acls]).values():
            future.result(timeout=15)


def start_secure_kafka(folder: Path) -> SecureKafka:
    """Make certificates, start the broker, give every user a password for each mechanism."""
    folder.mkdir(parents=True, exist_ok=True)
    own, other = make_authority(folder, "own"), make_authority(folder, "other")
    own.issue("broker", address="127.0.0.1")
    own.issue("late", address="127.0.0.1", days=-1)
    own.issue("worker", password=KEY_PASSWORD)
    other.issue("stranger", password=KEY_PASSWORD)
    data = folder / "kafka"
    data.mkdir()
    names = ("CLIENT", "CONTROLLER", "SECURE", "MUTUAL", "CLEAR", "LATE", "ELSEWHERE")
    kept = {"CLIENT": "kafka", "CONTROLLER": "kafka_controller"}
    at = {name: f"127.0.0.1:{kept_port(data, kept.get(name, name))}" for name in names}
    server = start_kafka(data, properties=_properties(folder, at))
    admin = AdminClient({"bootstrap.servers": at["CLIENT"]})
    for mechanism in (ScramMechanism.SCRAM_SHA_256, ScramMechanism.SCRAM_SHA_512):
        proof = ScramCredentialInfo(mechanism, 4096)
        credentials = [UserScramCredentialUpsertion(user, proof, password_of(user).encode()) for user in USERS]
        for future in admin.alter_user_scram_credentials(credentials).values():
            future.result(timeout=15)
        clear = {"bootstrap.servers": at["CLEAR"], "security.protocol": "SASL_PLAINTEXT"}
        last = {"sasl.username": USERS[-1], "sasl.password": password_of(USERS[-1])}
        name = {ScramMechanism.SCRAM_SHA_256: "SCRAM-SHA-256", ScramMechanism.SCRAM_SHA_512: "SCRAM-SHA-512"}[mechanism]
        AdminClient(clear | last | {"sasl.mechanism": name}).list_topics(
            timeout=30
        )  # it answers before it lets them in
    addresses = [at[name] for name in names if name != "CONTROLLER"]
    return SecureKafka(server, folder, *addresses)


def _properties(folder: Path, at: dict[str, str]) -> dict[str, str]:
    plain = " ".join(f'user_{user}="{password_of(user)}"' for user in USERS)
    scram = "org.apache.kafka.common.security.scram.ScramLoginModule required;"
    advertised = {name: address for name, address in at.items() if name != "CONTROLLER"}
    advertised["ELSEWHERE"] = at["ELSEWHERE"].replace("127.0.0.1", "localhost")
    protocols = {
        "SECURE": "SASL_SSL",
        "MUTUAL": "SSL",
        "CLEAR": "SASL_PLAINTEXT",
        "LATE": "SASL_SSL",
        "ELSEWHERE": "SASL_SSL",
    }
    found = {
        "listeners": ",".join(f"{name}://{address}" for name, address in at.items()),
        "advertised.listeners": ",".join(f"{name}://{address}" for name, address in advertised.items()),
        "listener.security.protocol.map": ",".join(f"{name}:{protocols.get(name, 'PLAINTEXT')}" for name in at),
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "super.users": "User:ANONYMOUS;User:admin",
        "listener.name.secure.plain.sasl.jaas.config": "org.apache.kafka.common.security.plain.PlainLoginModule required "
        f"{plain};",
        "listener.name.mutual.ssl.client.auth": "required",
        "listener.name.mutual.ssl.truststore.type": "PEM",
        "listener.name.mutual.ssl.truststore.location": str(folder / "own-ca.pem"),
        "listener.name.mutual.ssl.principal.mapping.rules": "RULE:^CN=([^,]*).*$/$1/",
    }
    for name in ("secure", "clear", "late", "elsewhere"):
        mechanisms = ["SCRAM-SHA-256", "SCRAM-SHA-512"]
        found |= {f"listener.name.{name}.{one.lower()}.sasl.jaas.config": scram for one in mechanisms}
        enabled = [*mechanisms, "PLAIN"] if name == "secure" else mechanisms
        found[f"listener.name.{name}.sasl.enabled.mechanisms"] = ",".join(enabled)
    for name, file in (("secure", "broker"), ("mutual", "broker"), ("late", "late"), ("elsewhere", "broker")):
        found[f"listener.name.{name}.ssl.keystore.type"] = "PEM"
        found[f"listener.name.{name}.ssl.keystore.location"] = str(folder / f"{file}.pem")
    return found
