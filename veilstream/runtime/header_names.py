"""Records whose header names are not UTF-8: read leniently, so that one producer cannot stop a partition.

Kafka takes any bytes as a header's name; aiokafka decodes them strictly while it iterates over a fetched batch, which raises out
of the fetch, loses the batch's other records, and raises again after every restart. Here such a batch is read once more by
aiokafka's Python reader with undecodable bytes replaced; names like that are dropped by whoever looks for known ones.

Tied to the exact version of aiokafka, like faust_consumer.py; importing this module puts it in force. In WORKAROUNDS it is
`header_name`.
"""

from __future__ import annotations

from typing import Any, Final

from aiokafka.consumer import fetcher
from aiokafka.errors import CorruptRecordException
from aiokafka.record.default_records import _DefaultRecordBatchPy, _DefaultRecordPy
from aiokafka.record.memory_records import MemoryRecords, _MemoryRecordsPy
from aiokafka.record.util import decode_varint

WORKAROUNDS: Final = {
    "header_name": (
        "aiokafka.consumer.fetcher:PartitionRecords.__next__",
        "aiokafka.consumer.fetcher:PartitionRecords._unpack_records",
        "aiokafka.record.default_records:_DefaultRecordBatchPy._read_msg",
        "aiokafka.record.memory_records:_MemoryRecordsPy.next_batch",
    ),
}
"""Short name of the workaround, and the functions whose inside it relies on (tests/unit/test_faust_versions.py pins them)."""


class KeptRecords:
    """A fetched set of batches with its bytes, so that it can be read again."""

    def __init__(self, raw: bytes) -> None:
        self.raw = raw
        records = MemoryRecords(raw)
        self.has_next, self.next_batch, self.size_in_bytes = records.has_next, records.next_batch, records.size_in_bytes


class LenientBatch(_DefaultRecordBatchPy):
    """A batch (message format v2) that replaces what is not UTF-8 in a header's name."""

    _pos: int

    def _read_msg(self, *_options: Any) -> Any:
        """One record, as `_DefaultRecordBatchPy._read_msg` reads it but for the header names."""
        buffer: Any = self._buffer
        pos: int = self._pos
        length, pos = decode_varint(buffer, pos)
        start = pos
        _, pos = decode_varint(buffer, pos)  # attributes
        timestamp_delta, pos = decode_varint(buffer, pos)
        offset_delta, pos = decode_varint(buffer, pos)
        key, pos = _field(buffer, pos)
        value, pos = _field(buffer, pos)
        count, pos = decode_varint(buffer, pos)
        headers = []
        for _ in range(count):
            name, pos = _field(buffer, pos)
            held, pos = _field(buffer, pos)
            headers.append(((name or b"").decode("utf-8", "replace"), held))
        if count < 0 or pos - start != length:
            raise CorruptRecordException("a record's length does not fit its fields")
        self._pos = pos
        appended = self.timestamp_type == self.LOG_APPEND_TIME
        timestamp = self.max_timestamp if appended else self.first_timestamp + timestamp_delta
        return _DefaultRecordPy(self.base_offset + offset_delta, timestamp, self.timestamp_type, key, value, headers)


class LenientRecords(_MemoryRecordsPy):
    """A fetched set of batches, read leniently."""

    def next_batch(self, *arguments: Any, **options: Any) -> Any:
        """The next batch; older formats than v2 have no headers."""
        raw = self._next_slice
        batch = super().next_batch(*arguments, **options)
        return LenientBatch(raw) if batch is not None and raw[self.MAGIC_OFFSET] >= 2 else batch


class LenientPartitionRecords(fetcher.PartitionRecords):
    """Begins again with the lenient reader when a name does not decode; what was given out already is passed over."""

    _records: Any
    _aborted_transactions: list[Any]
    _aborted_producers: set[Any]
    _records_iterator: Any

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._aborted_at_first = list(self._aborted_transactions)

    def __next__(self) -> Any:
        try:
            return super().__next__()
        except UnicodeDecodeError:
            if isinstance(self._records, LenientRecords):
                raise
            resume_at = self.next_fetch_offset  # skipped batches set it back on the way
            self._records = LenientRecords(self._records.raw)
            self._aborted_transactions, self._aborted_producers = list(self._aborted_at_first), set()
            self._records_iterator = self._unpack_records()
            while (record := super().__next__()).offset < resume_at:
                pass
            return record


def _field(buffer: Any, pos: int) -> tuple[bytes | None, int]:
    length, pos = decode_varint(buffer, pos)
    return (None, pos) if length < 0 else (bytes(buffer[pos : pos + length]), pos + length)


fetcher.MemoryRecords = KeptRecords
fetcher.PartitionRecords = LenientPartitionRecords
