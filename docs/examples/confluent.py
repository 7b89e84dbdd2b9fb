"""Any Kafka client: a plain JSON record with confluent-kafka, and its verdict, matched by origin.

VEIL_BOOTSTRAP=host:port python docs/examples/confluent.py
"""

import os
import time

from confluent_kafka import Consumer, Message, Producer, TopicPartition

from veilstream.contracts.codec import Codec
from veilstream.contracts.records import Verdict

bootstrap = os.environ["VEIL_BOOTSTRAP"]
consumer = Consumer(
    {"bootstrap.servers": bootstrap, "group.id": f"example-{time.time_ns()}", "isolation.level": "read_committed"}
)
partitions = [
    TopicPartition("veil.verdicts", n) for n in consumer.list_topics("veil.verdicts").topics["veil.verdicts"].partitions
]
for partition in partitions:  # note the verdict topic's ends before anything is sent
    partition.offset = consumer.get_watermark_offsets(partition)[1]
consumer.assign(partitions)

acknowledged: list[Message] = []
producer = Producer({"bootstrap.servers": bootstrap})
producer.produce(
    "veil.requests",
    b'{"tenant": "demo", "text": "Write to ada@example.com"}',
    on_delivery=lambda _, message: acknowledged.append(message),
)
producer.flush()

codec, deadline = Codec(), time.monotonic() + 60
while time.monotonic() < deadline:
    message = consumer.poll(1.0)
    if message is None or message.error():
        continue
    verdict = codec.decode(Verdict, message.value())
    if (verdict.origin.partition, verdict.origin.offset) == (acknowledged[0].partition(), acknowledged[0].offset()):
        print(verdict.decision, verdict.content)
        break
else:
    raise SystemExit("no verdict within 60 s: look at `veil status`")
consumer.close()
