"""The client on a real broker; a small writer of verdicts stands in for the chain."""

from __future__ import annotations

import asyncio
import re
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import orjson
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from veilstream.client import AsyncClient, Client, content_of
from veilstream.client.kafka import describe
from veilstream.contracts.catalogue import (
    AUDIT,
    COMMAND_RESULTS,
    COMMANDS,
    PUBLIC_KEYS,
    REQUESTS,
    SCHEMAS,
    VERDICTS,
)
from veilstream.contracts.codec import MARKER, Codec, own_schemas
from veilstream.contracts.errors import ClientError
from veilstream.contracts.identity import Origin, verdict_id
from veilstream.contracts.records import (
    AuditEvent,
    Command,
    CommandResult,
    Content,
    PublicKey,
    Request,
    Sealed,
    Verdict,
)
from veilstream.contracts.sealing import HPKE, hpke_public_key, hpke_unseal
from veilstream.contracts.verdict_json import verdict_to_json
from veilstream.topics.apply import apply_topics

PRIVATE = bytes(range(32))
CODEC = Codec()


@pytest.fixture(scope="module")
def bootstrap(kafka: str) -> str:
    """The shared broker with the topics of the catalogue."""
    apply_topics(kafka)
    return kafka


@pytest.fixture
def tenant() -> str:
    """A tenant of this test alone."""
    return f"t-{uuid.uuid4().hex[:12]}"


class Chain:
    """Stands in for the agents: reads what is asked, answers in transactions, as each test says."""

    def __init__(self, bootstrap: str, cluster: str, consumer: AIOKafkaConsumer, producer: AIOKafkaProducer) -> None:
        self.bootstrap = bootstrap
        self.cluster = cluster
        self.consumer = consumer
        self.producer = producer

    async def asked(self, tenant: str) -> tuple[Request, Origin, int]:
        """The next request of the tenant, its origin and broker time."""
        async for record in self.consumer:
            request = CODEC.decode(Request, record.value)
            if request.tenant == tenant:
                origin = Origin(self.cluster, record.topic, record.partition, record.offset)
                return request, origin, record.timestamp
        raise AssertionError("unreachable")

    async def write(self, *records: tuple[str, bytes | None, bytes], abort: bool = False) -> None:
        """One transaction, committed or aborted; a broker answers before readers are told, and they are told on return."""
        await self.producer.begin_transaction()
        ends: dict[TopicPartition, int] = {}
        for topic, key, value in records:
            written = await self.producer.send_and_wait(topic, value, key=key)
            ends[TopicPartition(topic, written.partition)] = written.offset + 1
        await (self.producer.abort_transaction() if abort else self.producer.commit_transaction())
        async with asyncio.timeout(60):
            while any(end <= ends[tp] for tp, end in (await self.consumer.end_offsets(list(ends))).items()):
                await asyncio.sleep(0.002)


def verdict(tenant: str, origin: Origin, received_ms: int, decision: str = "allow", revision: int = 0) -> Verdict:
    """A verdict as the chain writes it."""
    return Verdict(
        verdict_id(tenant, origin, revision), tenant, origin, received_ms, decision, 0.5, revision=revision,
        content=Content(text="safe"),
    )  # fmt: skip


@asynccontextmanager
async def chain_of(bootstrap: str) -> AsyncIterator[Chain]:
    """Reads from now on."""
    options = {"bootstrap_servers": bootstrap}
    cluster = await describe(options, [REQUESTS])
    consumer = AIOKafkaConsumer(**options, isolation_level="read_committed", fetch_max_wait_ms=50)
    producer = AIOKafkaProducer(**options, transactional_id=f"test-{uuid.uuid4().hex}", acks="all")
    await consumer.start()
    await producer.start()
    try:
        consumer.assign(cluster.of(REQUESTS))
        for partition, end in (await consumer.end_offsets(cluster.of(REQUESTS))).items():
            consumer.seek(partition, end)
        yield Chain(bootstrap, cluster.id, consumer, producer)
    finally:
        await producer.stop()
        await consumer.stop()


async def test_a_sealed_text_gets_the_verdict_of_its_origin(bootstrap: str, tenant: str) -> None:
    """Sealed by default to the key on veil.public-keys, it opens to natural JSON; the verdict is matched by origin alone."""
    async with chain_of(bootstrap) as chain, AsyncClient(bootstrap) as client:
        public = PublicKey(tenant, f"{tenant}/1", HPKE, hpke_public_key(PRIVATE))
        await chain.write((PUBLIC_KEYS, tenant.encode(), CODEC.encode(public)))
        check = asyncio.create_task(
            client.check("tell Ana Müller", tenant=tenant, conversation="c1", mode="strict", request_id="same for all")
        )
        request, origin, received_ms = await chain.asked(tenant)
        assert isinstance(request.payload, Sealed) and request.payload.key_id == f"{tenant}/1"
        inside = {"text": "tell Ana Müller", "conversation": "c1", "mode": "strict"}
        assert orjson.loads(hpke_unseal(PRIVATE, request.payload, tenant)) == inside
        assert request == Request(tenant, request.payload, request_id="same for all")
        other = replace(verdict(tenant, replace(origin, offset=origin.offset + 1000), received_ms, "block"))
        right = verdict(tenant, origin, received_ms, "review")
        await chain.write((VERDICTS, None, CODEC.encode(other)), (VERDICTS, None, CODEC.encode(right)))
        assert await check == right


@pytest.mark.parametrize(
    ("content", "opened"),
    [
        ({"messages": [{"role": "user", "content": "hi"}]}, {"messages": [{"role": "user", "content": "hi"}]}),
        ({"document": {"a": [1, "x"]}, "text_fields": ["a"]}, {"document": {"a": [1, "x"]}, "text_fields": ["a"]}),
        ({"document": ["x"]}, {"document": ["x"]}),
    ],
    ids=["messages", "document with fields", "whole document"],
)
async def test_other_contents_are_sealed_as_natural_json(
    bootstrap: str, tenant: str, content: dict[str, object], opened: dict[str, object]
) -> None:
    """What is sealed is exactly one of text, messages, document."""
    async with chain_of(bootstrap) as chain, AsyncClient(bootstrap) as client:
        public = PublicKey(tenant, f"{tenant}/1", HPKE, hpke_public_key(PRIVATE))
        await chain.write((PUBLIC_KEYS, tenant.encode(), CODEC.encode(public)))
        [origin] = await client.produce([Request(tenant, content_of(**content))])  # type: ignore[arg-type]
        request, seen, _ = await chain.asked(tenant)
        assert seen == origin
        assert isinstance(request.payload, Sealed)
        assert orjson.loads(hpke_unseal(PRIVATE, request.payload, tenant)) == opened


async def test_an_aborted_transaction_is_not_seen(bootstrap: str, tenant: str) -> None:
    """A verdict of an aborted transaction is no verdict: the check waits for the committed one."""
    async with chain_of(bootstrap) as chain, AsyncClient(bootstrap) as client:
        check = asyncio.create_task(client.check("x", tenant=tenant, seal=False))
        _, origin, received_ms = await chain.asked(tenant)
        await chain.write((VERDICTS, None, CODEC.encode(verdict(tenant, origin, received_ms, "allow"))), abort=True)
        await chain.write((VERDICTS, None, CODEC.encode(verdict(tenant, origin, received_ms, "block"))))
        assert (await check).decision == "block"
        seen = [v.decision async for v in client.verdicts(tenant=tenant)]
        assert seen == ["block"]


async def test_fifty_checks_at_once_share_one_reader(bootstrap: str, tenant: str) -> None:
    """Answered in reverse order, in Avro and JSON in turn, each check gets the verdict of its own record."""
    texts = [f"text {number}" for number in range(50)]
    async with chain_of(bootstrap) as chain, AsyncClient(bootstrap) as client:
        checks = {text: asyncio.create_task(client.check(text, tenant=tenant, seal=False)) for text in texts}
        asked = [await chain.asked(tenant) for _ in texts]
        values = []
        for number, (request, origin, received_ms) in enumerate(reversed(asked)):
            assert isinstance(request.payload, Content)
            answer = replace(verdict(tenant, origin, received_ms), request_id=request.payload.text)
            values.append(CODEC.encode(answer) if number % 2 else verdict_to_json(answer))
        await chain.write(*((VERDICTS, None, value) for value in values))
        for text, check in checks.items():
            assert (await check).request_id == text


async def test_no_verdict_in_time_says_what_to_do(bootstrap: str, tenant: str) -> None:
    """The deadline's error names the origin, the 32 s of a dead worker, and `veil status`; never the text."""
    async with AsyncClient(bootstrap) as client:
        await client.produce([Request(tenant, Content(text="x"))], seal=False)  # connections are open from here on
        for timeout_s in (1.5, 20.0):  # a busy machine may need longer to get as far as the acknowledgement
            with pytest.raises(ClientError) as caught:
                await client.check("Ana Müller", tenant=tenant, seal=False, timeout_s=timeout_s)
            assert caught.value.reason_code == "deadline"
            assert "Ana" not in str(caught.value)
            if "did not acknowledge" not in str(caught.value):
                break
        assert re.search(
            rf"no verdict for veil\.requests/\d/\d+ within {timeout_s:g} s.*32 s.*veil status", str(caught.value)
        )


async def test_a_tenant_without_key_is_refused_before_anything_is_sent(bootstrap: str, tenant: str) -> None:
    """Sealing needs the tenant's public key; without one nothing leaves the client."""
    async with chain_of(bootstrap) as chain, AsyncClient(bootstrap) as client:
        with pytest.raises(ClientError, match=f"veil tenant create {tenant}") as caught:
            await client.check("x", tenant=tenant)
        assert caught.value.reason_code == "unknown_tenant"
        [origin] = await client.produce([Request(tenant, Content(text="sent later"))], seal=False)
        assert (await chain.asked(tenant))[1] == origin


async def test_produce_keeps_the_order_of_a_conversation(bootstrap: str, tenant: str) -> None:
    """More requests than may be in flight: one origin each, in order, and one partition for the conversation."""
    requests = [Request(tenant, Content(text=str(n)), conversation="c") for n in range(1200)]
    async with chain_of(bootstrap) as chain, AsyncClient(bootstrap) as client:
        origins = await client.produce(iter(requests), seal=False)
        assert len({origin.partition for origin in origins}) == 1
        assert [origin.offset for origin in origins] == sorted({origin.offset for origin in origins})
        read = [await chain.asked(tenant) for _ in requests]
        assert [request for request, _, _ in read] == requests
        assert [origin for _, origin, _ in read] == origins


async def test_a_record_above_the_limit_is_refused_in_words(bootstrap: str, tenant: str) -> None:
    """More than the public topic takes: an error that says so; the client goes on."""
    async with AsyncClient(bootstrap) as client:
        with pytest.raises(ClientError, match="larger than the 2097152 bytes") as caught:
            await client.produce([Request(tenant, Content(text="x" * (2 << 20)))], seal=False)
        assert caught.value.reason_code == "record_too_large"
        assert len(await client.produce([Request(tenant, Content(text="x"))], seal=False)) == 1


async def test_a_schema_unknown_at_first_is_learned_from_its_topic(bootstrap: str, tenant: str) -> None:
    """A writer newer than the client: its schema is read from veil.schemas when its first record comes."""
    schema = orjson.loads(own_schemas()["veil.Verdict"].text)
    schema["fields"].append({"name": f"later_{uuid.uuid4().hex}", "type": "string", "default": ""})
    from veilstream.contracts.codec import named_schema

    newer = named_schema(schema)
    async with chain_of(bootstrap) as chain, AsyncClient(bootstrap) as client:
        check = asyncio.create_task(client.check("x", tenant=tenant, seal=False))
        _, origin, received_ms = await chain.asked(tenant)
        wanted = verdict(tenant, origin, received_ms)
        value = MARKER + bytes.fromhex(newer.fingerprint) + CODEC.encode(wanted)[10:] + b"\x00"  # the field, empty
        await chain.write((SCHEMAS, newer.fingerprint.encode(), orjson.dumps(schema)), (VERDICTS, None, value))
        assert await check == wanted


async def test_verdicts_by_time_and_by_group(bootstrap: str, tenant: str) -> None:
    """Without `since` and follow: all there is. With `since`: from then on. A group goes on where it left off."""
    async with chain_of(bootstrap) as chain, AsyncClient(bootstrap) as client:
        first, second = (verdict(tenant, Origin(chain.cluster, REQUESTS, 0, n), 1) for n in (10**9, 10**9 + 1))
        await chain.write((VERDICTS, b"one lane", CODEC.encode(first)))
        await asyncio.to_thread(_until_after, datetime.now(UTC))
        between = datetime.now(UTC)
        await asyncio.to_thread(_until_after, between)
        await chain.write((VERDICTS, b"one lane", CODEC.encode(second)))
        assert [v async for v in client.verdicts(tenant=tenant)] == [first, second]
        assert [v async for v in client.verdicts(tenant=tenant, since=between)] == [second]
        assert [v async for v in client.verdicts(tenant=tenant, since=between + timedelta(hours=1))] == []
        follower = client.verdicts(follow=True, tenant=tenant, since=between)
        assert await anext(follower) == second
        third = replace(first, id="third")
        await chain.write((VERDICTS, b"one lane", CODEC.encode(third)))
        assert await anext(follower) == third
        with pytest.raises(ClientError, match="leave out `since`"):
            await anext(client.verdicts(follow=True, group="veil-clients-test", since=between))


async def test_a_group_goes_on_where_it_left_off(bootstrap: str, tenant: str) -> None:
    """What was handed out before the next batch was asked for is not handed out again; the last batch may be."""
    group = f"veil-clients-{tenant}"
    async with chain_of(bootstrap) as chain, AsyncClient(bootstrap) as client:
        first, second = (verdict(tenant, Origin(chain.cluster, REQUESTS, 0, n), 1) for n in (10**9, 10**9 + 1))
        await chain.write((VERDICTS, b"one lane", CODEC.encode(first)))
        former = client.verdicts(follow=True, tenant=tenant, group=group)
        assert await anext(former) == first
        await chain.write((VERDICTS, b"one lane", CODEC.encode(second)))
        assert await anext(former) == second
        await former.aclose()  # type: ignore[attr-defined]
        assert await anext(client.verdicts(follow=True, tenant=tenant, group=group)) == second


def _until_after(moment: datetime) -> None:
    """The clocks of broker and test are one, counted in milliseconds: wait for the next but one."""
    while datetime.now(UTC) < moment + timedelta(milliseconds=2):
        pass


async def test_audit_is_replayed_by_window_and_tenant(bootstrap: str, tenant: str) -> None:
    """Events the broker received in [since, until), of one tenant; those before, after and of others are left out."""
    events = [AuditEvent(f"e{n}", tenant, 0, "actor_1", "verdict", "r", "allow") for n in range(3)]
    async with chain_of(bootstrap) as chain, AsyncClient(bootstrap) as client:
        moments = []
        for event in events:
            await chain.write(
                (AUDIT, tenant.encode(), CODEC.encode(event)),
                (AUDIT, b"other", CODEC.encode(replace(event, tenant="other"))),
            )
            moments.append(datetime.now(UTC))
            await asyncio.to_thread(_until_after, moments[-1])
        since, until = moments[0] + timedelta(milliseconds=1), moments[1] + timedelta(milliseconds=1)
        assert [e async for e in client.replay_audit(since, until, tenant=tenant)] == [events[1]]
        assert [e async for e in client.replay_audit(since, tenant=tenant)] == events[1:]
        with pytest.raises(ClientError, match="`until` must lie after"):
            await anext(client.replay_audit(until, since))


async def test_a_command_gets_the_result_of_its_id(bootstrap: str, tenant: str) -> None:
    """Results of other commands are passed over; a refusal is raised with its code; no answer says so."""
    async with chain_of(bootstrap) as chain, AsyncClient(bootstrap) as client:
        cluster = await describe(client.options, [COMMANDS])
        chain.consumer.assign(cluster.of(COMMANDS))
        for partition, end in (await chain.consumer.end_offsets(cluster.of(COMMANDS))).items():
            chain.consumer.seek(partition, end)

        async def answer(status: str, code: str | None) -> Command:
            command = CODEC.decode(Command, (await chain.consumer.getone()).value)
            result = CommandResult(command.id, command.kind, status, tenant, code, "because", '{"a": 1}')
            other = replace(result, command="another", status="done")
            await chain.write(*((COMMAND_RESULTS, r.command.encode(), CODEC.encode(r)) for r in (other, result)))
            return command

        asked = asyncio.create_task(client.command("tenant.show", {"x": 1}, tenant=tenant, actor="me"))
        command = await answer("done", None)
        assert (command.kind, command.tenant, command.actor, command.body) == ("tenant.show", tenant, "me", '{"x":1}')
        assert (await asked).body == '{"a": 1}'
        asked = asyncio.create_task(client.command("tenant.show", tenant=tenant))
        await answer("refused", "unknown_tenant")
        with pytest.raises(ClientError, match=r"tenant\.show was refused: because") as caught:
            await asked
        assert caught.value.reason_code == "unknown_tenant"
        with pytest.raises(ClientError, match=r"no answer to tenant\.show within 1 s.*policy agent"):
            await client.command("tenant.show", tenant=tenant, timeout_s=1)


async def test_closing_the_client_ends_its_waiting_checks(bootstrap: str, tenant: str) -> None:
    """A check that waits when the client is closed gets an error, not silence."""
    client = AsyncClient(bootstrap)
    async with client, chain_of(bootstrap) as chain:
        check = asyncio.create_task(client.check("x", tenant=tenant, seal=False))
        await chain.asked(tenant)
    with pytest.raises(ClientError, match="client was closed"):
        await check
    with pytest.raises(ClientError, match="async with"):
        await client.check("x", tenant=tenant)


async def test_nobody_at_the_address() -> None:
    """No broker: one error that names the setting."""
    with pytest.raises(ClientError, match=r"no Kafka broker answers at 127\.0\.0\.1:1 \(VEIL_BOOTSTRAP\)"):
        await AsyncClient("127.0.0.1:1").__aenter__()


async def test_the_synchronous_client_does_the_same(bootstrap: str, tenant: str) -> None:
    """Client wraps AsyncClient: check, produce, iterators; closed it says so."""

    def use() -> tuple[Verdict, list[Verdict], list[Origin]]:
        with Client(bootstrap) as client:
            answer = client.check("x", tenant=tenant, seal=False)
            seen = list(client.verdicts(tenant=tenant))
            return answer, seen, client.produce([Request(tenant, Content(text="y"))], seal=False)

    async with chain_of(bootstrap) as chain:
        used = asyncio.create_task(asyncio.to_thread(use))
        _, origin, received_ms = await chain.asked(tenant)
        right = verdict(tenant, origin, received_ms)
        await chain.write((VERDICTS, None, CODEC.encode(right)))
        answer, seen, origins = await used
        assert (answer, seen, len(origins)) == (right, [right], 1)
    with pytest.raises(ClientError, match="with Client"):
        Client(bootstrap).check("x", tenant=tenant)
