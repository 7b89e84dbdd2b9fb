"""TLS, SASL and access control on a real broker: agents stay exact, and whoever is not let in is told what to mend."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import psutil
import pytest

from tests.pipeline.runtime_bench import Bench, Worker, assert_counts_run_through, numbered, opened_bench, until_idle
from tests.pipeline.secure_kafka import SecureKafka, start_secure_kafka
from veilstream.connection.options import aiokafka_options
from veilstream.connection.refusal import refusal
from veilstream.contracts.errors import ConfigError, VeilError
from veilstream.runtime.cluster import cluster_id
from veilstream.runtime.ending import EXIT_CONFIG
from veilstream.settings import Settings
from veilstream.topics.acls import Acl

Environment = dict[str, str]


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecureKafka]:
    """A broker of this module's own that lets nobody in without credentials."""
    broker = start_secure_kafka(tmp_path_factory.mktemp("secure"))
    yield broker
    broker.server.stop()


@pytest.fixture
async def bench(broker: SecureKafka, tmp_path: Path) -> AsyncIterator[Bench]:
    """Topics and workers of one test; the test itself reads and writes as the super user."""
    async with opened_bench(broker.plain, tmp_path) as bench:
        yield bench


def rights(bench: Bench, user: str) -> list[Acl]:
    """What the catalogue would give this agent: its topics, its group, its transactional ids."""
    who, name = f"User:{user}", f"rt-{bench.name}"
    on_topics = [
        Acl("topic", "literal", bench.topic(kind), who, operation)
        for kind, operations in (("in", ("read",)), ("out", ("write",)), ("table", ("read", "write")))
        for operation in (*operations, "describe")
    ]
    on_ids = [Acl("transactional_id", "prefixed", f"{name}-", who, operation) for operation in ("write", "describe")]
    return [*on_topics, *on_ids, Acl("group", "literal", name, who, "read")]


def peers(worker: Worker) -> set[str]:
    """Where the worker's TCP connections go."""
    found = psutil.Process(worker.pid).net_connections(kind="tcp")
    return {f"{one.raddr.ip}:{one.raddr.port}" for one in found if one.raddr and one.status == "ESTABLISHED"}


@pytest.mark.parametrize(
    "way",
    [
        "SCRAM-SHA-512",
        *(pytest.param(w, marks=pytest.mark.long) for w in ("mTLS", "SCRAM-SHA-256", "PLAIN", "SASL_PLAINTEXT")),
    ],
)
async def test_kill_9_in_mid_stream_by_every_way_in(bench: Bench, broker: SecureKafka, way: str) -> None:
    """Kill -9 twice: exact, with no right but the catalogue's, and no connection to another listener than the one named."""
    match way:
        case "mTLS":
            environment = broker.mtls("worker")
        case "SASL_PLAINTEXT":
            environment = broker.sasl_plaintext("worker")
        case _:
            environment = broker.sasl_ssl("worker", way)
    broker.allow(rights(bench, "worker"))
    settings = environment | {"TABLE": bench.topic("table"), "STEP_S": "0.001"}
    origins = await bench.fill(*numbered(600))
    for seen in (100, 350):
        worker = bench.start(**settings)
        await bench.tail.reaches(seen)
        assert peers(worker) == {environment["VEIL_BOOTSTRAP"]}
        worker.kill()
    bench.start(**settings)
    await bench.tail.reaches(600)
    await until_idle(bench)
    assert Counter(bench.tail.origins) == Counter(origins)
    assert_counts_run_through(bench, 30)
    assert await bench.table() == {b"key-%d" % key: b"30" for key in range(20)}


def way_in(broker: SecureKafka, name: str) -> Environment:
    """The environment of a process that is let in, or is not, by name."""
    good, mutual, clear = broker.sasl_ssl("worker"), broker.mtls("worker"), broker.sasl_plaintext("worker")
    here = good["VEIL_BOOTSTRAP"]
    only_tls = {name: value for name, value in good.items() if "SASL_" not in name}
    ways: dict[str, Environment] = {
        "good": good,
        "one of two servers is away": good | {"VEIL_BOOTSTRAP": f"127.0.0.1:1,{here}"},
        "the name is not checked": good
        | {"VEIL_BOOTSTRAP": here.replace("127.0.0.1", "localhost"), "VEIL_SSL_CHECK_HOSTNAME": "false"},
        "nobody there": good | {"VEIL_BOOTSTRAP": "127.0.0.1:1"},
        "wrong password": good | {"VEIL_SASL_PASSWORD": "guessed"},
        "wrong password, PLAIN": good | {"VEIL_SASL_PASSWORD": "guessed", "VEIL_SASL_MECHANISM": "PLAIN"},
        "unknown user": good | {"VEIL_SASL_USERNAME": "somebody"},
        "mechanism": clear | {"VEIL_SASL_MECHANISM": "PLAIN"},
        "other authority": good | {"VEIL_SSL_CAFILE": str(broker.folder / "other-ca.pem")},
        "the system's authorities": {name: value for name, value in good.items() if name != "VEIL_SSL_CAFILE"},
        "other name": good | {"VEIL_BOOTSTRAP": here.replace("127.0.0.1", "localhost")},
        "other name, advertised": good | {"VEIL_BOOTSTRAP": broker.elsewhere},
        "expired": good | {"VEIL_BOOTSTRAP": broker.expired},
        "plaintext to TLS": {"VEIL_BOOTSTRAP": here},
        "plaintext to mTLS": {"VEIL_BOOTSTRAP": broker.mutual},
        "TLS to plaintext": good | {"VEIL_BOOTSTRAP": broker.plain},
        "plaintext to SASL": {"VEIL_BOOTSTRAP": broker.clear},
        "TLS without SASL": only_tls | {"VEIL_SECURITY_PROTOCOL": "SSL"},
        "SASL to plaintext": clear | {"VEIL_BOOTSTRAP": broker.plain},
        "no certificate": {name: value for name, value in mutual.items() if "CERT" not in name and "KEY" not in name},
        "a stranger's certificate": broker.mtls("stranger"),
        "garbled": mutual | {"VEIL_SSL_KEY_PASSWORD": "guessed"},
    }
    return ways[name]


NAMED = [
    ("good", None),
    ("one of two servers is away", None),
    ("the name is not checked", None),
    ("nobody there", None),
    ("wrong password", ("refuses user 'worker'", "VEIL_SASL_PASSWORD")),
    ("wrong password, PLAIN", ("refuses user 'worker'", "VEIL_SASL_PASSWORD")),
    ("unknown user", ("refuses user 'somebody'", "VEIL_SASL_USERNAME")),
    ("mechanism", ("does not take SASL mechanism PLAIN", "VEIL_SASL_MECHANISM")),
    ("other authority", ("is not trusted", "VEIL_SSL_CAFILE")),
    ("the system's authorities", ("is not trusted", "VEIL_SSL_CAFILE")),
    ("other name", ("the certificate of localhost", "for another name", "VEIL_BOOTSTRAP")),
    ("other name, advertised", ("the certificate of localhost", "for another name", "advertised.listeners")),
    ("expired", ("not valid now", "renew it")),
    ("plaintext to TLS", ("speaks TLS", "VEIL_SECURITY_PROTOCOL is PLAINTEXT")),
    ("plaintext to mTLS", ("speaks TLS", "VEIL_SECURITY_PROTOCOL is PLAINTEXT")),
    ("TLS to plaintext", ("does not speak TLS", "VEIL_BOOTSTRAP")),
    ("plaintext to SASL", ("wants a user's name and password", "set it to SASL_PLAINTEXT")),
    ("TLS without SASL", ("wants a user's name and password", "set it to SASL_SSL")),
    ("SASL to plaintext", ("takes no SASL", "VEIL_SECURITY_PROTOCOL")),
    ("no certificate", ("refuses this client in the TLS handshake", "VEIL_SSL_CERTFILE")),
    ("a stranger's certificate", ("refuses this client in the TLS handshake", "VEIL_SSL_CERTFILE")),
]


@pytest.mark.parametrize(("name", "said"), NAMED, ids=[name for name, _ in NAMED])
async def test_why_a_broker_does_not_let_us_in_is_named(
    broker: SecureKafka, name: str, said: tuple[str, ...] | None
) -> None:
    """What a person must mend is told with what to edit; where nobody answers, or all is well, trying again is right."""
    refused = await refusal(aiokafka_options(settings_of(way_in(broker, name))))
    if said is None:
        assert refused is None
        return
    assert refused is not None
    assert all(part in str(refused) for part in said), str(refused)
    assert "guessed" not in str(refused)


def settings_of(environment: Environment) -> Settings:
    """Settings as a process with this environment has them."""
    return Settings(**{name.removeprefix("VEIL_").lower(): value for name, value in environment.items()})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("wrong password", "refuses user 'worker'"),
        ("other authority", "is not trusted"),
        ("other name", "for another name"),
        ("other name, advertised", "for another name"),
        ("plaintext to TLS", "speaks TLS"),
        ("no certificate", "refuses this client"),
        ("garbled", "VEIL_SSL_KEY_PASSWORD"),
    ],
)
async def test_an_agent_that_is_not_let_in_ends_for_its_operator(
    bench: Bench, broker: SecureKafka, name: str, said: str
) -> None:
    """Exit 78 with the reason in the log, not a loop of restarts; and no password in what it logged."""
    worker = bench.start(**way_in(broker, name))
    assert await worker.ended() == EXIT_CONFIG
    assert said in worker.events("runtime_exit")[0]["reason"]
    assert "guessed" not in worker.log.read_text()
    assert "own,password" not in worker.log.read_text()


def test_asking_for_the_cluster_does_not_wait_for_a_better_password(broker: SecureKafka) -> None:
    """An agent's first question is answered at once where trying again would be no use."""
    assert len(cluster_id(settings_of(broker.sasl_ssl("worker")))) == 22
    with pytest.raises(ConfigError, match="refuses user"):
        cluster_id(settings_of(way_in(broker, "wrong password")), timeout_s=30)
    with pytest.raises(VeilError, match="no Kafka broker answers"):
        cluster_id(settings_of(way_in(broker, "nobody there")), timeout_s=0)


@pytest.mark.parametrize(
    ("lacks", "said"),
    [
        (
            ("transactional_id", "write"),
            "Write and Describe on its TransactionalIds (TransactionalId rt-{}-*, prefixed)",
        ),
        (("transactional_id", "write", "describe"), "Write and Describe on its TransactionalIds"),
        (("group", "read"), "Read on its consumer group (here rt-{})"),
        (("in", "read", "describe"), "(here Read on rt-{}-in)"),
        (("in", "read"), "(here Read on rt-{}-in)"),
        (("out", "write"), "Write and Describe on those it writes"),
        (("table", "read"), "(here Read on rt-{}-table)"),
        (("table", "write"), "(here Write on rt-{}-table)"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, tuple) else None,
)
async def test_a_right_that_is_missing_is_named(
    bench: Bench, broker: SecureKafka, lacks: tuple[str, ...], said: str
) -> None:
    """Each right of the catalogue is needed: without it the agent ends with 78 and says which it is."""
    what, *operations = lacks
    left = [
        acl
        for acl in rights(bench, "half")
        if not (acl.operation in operations and (acl.resource == what or acl.name == bench.topic(what)))
    ]
    assert len(left) < len(rights(bench, "half"))
    broker.allow(left)
    await bench.fill(b"1")
    worker = bench.start(**broker.sasl_ssl("half"), TABLE=bench.topic("table"))
    await worker.ended()
    end = worker.events("runtime_exit")[0]
    assert end["code"] == EXIT_CONFIG, end
    assert said.format(bench.name) in end["reason"]
    assert bench.tail.values == []
