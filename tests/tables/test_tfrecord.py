"""The official file's format, on files written here from its description."""

import base64
import json
import struct

import numpy as np
import pytest

from parsec.errors import UserError
from parsec.tables.tfrecord import masked_crc32c, parse_metrics, parse_record, read_records


def varint(value: int) -> bytes:
    out = b""
    while value > 0x7F:
        out += bytes([value & 0x7F | 0x80])
        value >>= 7
    return out + bytes([value])


def metrics(evaluations: list[tuple[float, ...]], parameters: int, path: str = "model.ckpt") -> bytes:
    """A serialized ModelMetrics, checkpoint paths and total time included."""
    data = b""
    for numbers in evaluations:
        inner = b"".join(varint(at << 3 | 1) + struct.pack("<d", number) for at, number in enumerate(numbers, 1))
        inner += varint(6 << 3 | 2) + varint(len(path)) + path.encode()
        data += varint(1 << 3 | 2) + varint(len(inner)) + inner
    return data + varint(2 << 3) + varint(parameters) + varint(3 << 3 | 1) + struct.pack("<d", 12.5)


def crc32c(data: bytes) -> int:
    """The masked checksum, a bit at a time."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def framed(records: list[bytes]) -> bytes:
    out = b""
    for data in records:
        head = struct.pack("<Q", len(data))
        out += head + struct.pack("<I", crc32c(head)) + data + struct.pack("<I", crc32c(data))
    return out


def official(module_hash: str, epochs: int, adjacency: str, operations: str, raw: bytes) -> bytes:
    return json.dumps([module_hash, epochs, adjacency, operations, base64.b64encode(raw).decode()]).encode()


EXAMPLE = official(
    "ab" * 16,
    108,
    "011001000",
    "input,maxpool3x3,output",
    metrics([(0, 1, 0.1, 0.1, 0.1), (54, 600, 0.9, 0.8, 0.7), (108, 1200, 1.0, 0.91, 0.9)], 8555530),
)


def test_known_checksum():
    # The check value of CRC-32C: "123456789" gives 0xE3069283 before masking.
    masked = int(masked_crc32c([b"123456789"])[0])
    unmasked = (masked - 0xA282EAD8) & 0xFFFFFFFF
    assert (unmasked >> 17 | unmasked << 15) & 0xFFFFFFFF == 0xE3069283


def test_checksums_of_records_of_unequal_length():
    random = np.random.default_rng(0)
    records = [random.bytes(int(n)) for n in (5, 0, 300, 17, 17, 1)]
    assert masked_crc32c(records).tolist() == [crc32c(record) for record in records]


def test_reads_what_was_written(tmp_path):
    path = tmp_path / "nasbench_only108.tfrecord"
    path.write_bytes(framed([EXAMPLE] * 5))
    found = list(read_records(path))
    assert len(found) == 5
    record = found[0]
    assert (record.module_hash, record.epochs, record.parameters) == ("ab" * 16, 108, 8555530)
    assert (record.adjacency, record.operations) == ("011001000", "input,maxpool3x3,output")
    assert [e.epoch for e in record.evaluations] == [0, 54, 108]
    assert record.evaluations[-1] == (108, 1200, 1.0, 0.91, 0.9)


def test_unknown_fields_of_the_protocol_buffer_are_skipped():
    extra = varint(9 << 3 | 5) + b"\0\0\0\0" + varint(10 << 3 | 2) + varint(3) + b"abc" + varint(11 << 3) + varint(300)
    evaluations, parameters = parse_metrics(extra + metrics([(1, 2, 3, 4, 5)], 7) + extra)
    assert (evaluations, parameters) == (((1, 2, 3, 4, 5),), 7)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "holds no record"),
        (b"name,accuracy\n" + b"a,0.9\n" * 99, "checksum of a record's length"),
        (framed([EXAMPLE, EXAMPLE])[:-5], "ends within a record after 1 records"),
        (framed([EXAMPLE]) + b"\0\0", "ends within a record"),
        (framed([EXAMPLE])[:40] + b"?" + framed([EXAMPLE])[41:], "checksum of a record does not hold"),
        (framed([b"not json"]), "not JSON"),
        (framed([b'{"a": 1}']), "module hash"),
        (framed([official("x", 1, "", "", b"")]), "no evaluation"),
        (framed([official("x", 1, "", "", metrics([(1, 2, 3, 4, 5)], 7)[:-3])]), "end early"),
    ],
)
def test_a_damaged_or_foreign_file_is_told_in_one_line(tmp_path, data, message):
    path = tmp_path / "nasbench_only108.tfrecord"
    path.write_bytes(data)
    with pytest.raises(UserError, match=message) as error:
        list(read_records(path))
    text = str(error.value)
    assert "\n" not in text
    assert "nasbench_only108.tfrecord" in text
    assert f"size {len(data)} bytes, sha256 " in text
    assert path.read_bytes() == data


def test_a_missing_file_is_told(tmp_path):
    with pytest.raises(UserError, match=r"cannot open .*none\.tfrecord"):
        list(read_records(tmp_path / "none.tfrecord"))


def test_metrics_that_are_not_base64_are_told():
    with pytest.raises(ValueError, match="base64"):
        parse_record(json.dumps(["x", 1, "01", "a", "?!"]).encode())
