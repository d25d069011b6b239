"""NAS-Bench-101's official file, read without TensorFlow.

The file is a sequence of TFRecords: the length of the data, its masked CRC-32C, the data, the data's masked CRC-32C.
Each holds a JSON list `[module hash, epochs, adjacency, operations, metrics]`, the last a base64 protocol buffer
`ModelMetrics {repeated EvaluationData evaluation_data = 1; int32 trainable_parameters = 2; double total_time = 3}`
with `EvaluationData {double current_epoch = 1, training_time = 2, train_accuracy = 3, validation_accuracy = 4,
test_accuracy = 5; string checkpoint_path = 6}`. The benchmark trained every cell three times, one record each (Ying
et al., ICML 2019, arXiv 1902.09635).
"""

import base64
import binascii
import json
import struct
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from parsec.errors import UserError
from parsec.files import file_digest

# CRC-32C (Castagnoli), bits reflected; and what TFRecord adds after turning a checksum by fifteen bits.
_POLYNOMIAL = 0x82F63B78
_MASK = 0xA282EAD8
_RECORDS_PER_CHECK = 4096
# A record of the benchmark is some hundreds of bytes; a length beyond this is a damaged or foreign file.
_LONGEST = 1 << 20


class Evaluation(NamedTuple):
    """A network at one moment of its training: epochs, seconds and accuracies as fractions."""

    epoch: float
    seconds: float
    train: float
    valid: float
    test: float


class Record(NamedTuple):
    """One training of one cell.

    Attributes:
      module_hash: the benchmark's name of the cell.
      epochs: how long it was trained in all.
      adjacency: n x n digits 0 and 1, row by row.
      operations: n names separated by commas, `input` first and `output` last.
      evaluations: in order of time; the last is the trained network.
      parameters: trainable.
    """

    module_hash: str
    epochs: int
    adjacency: str
    operations: str
    evaluations: tuple[Evaluation, ...]
    parameters: int


def read_records(path: Path) -> Iterator[Record]:
    """Yields the records of an official file in order.

    Raises:
      UserError: if there is no such file, or it is truncated, damaged or of another format; the message has the
        file's name, size and SHA-256.
    """
    try:
        file = path.open("rb")
    except OSError as error:
        raise UserError(f"cannot open {path}: {error.strerror or error}") from error
    count = 0
    with file:
        try:
            for data in _framed(file):
                yield parse_record(data)
                count += 1
            if not count:
                raise ValueError("it holds no record")
        except (ValueError, OSError) as error:
            size, digest = path.stat().st_size, file_digest(path)
            raise UserError(
                f"{path} is no intact NAS-Bench-101 file: {error} after {count} records; "
                f"size {size} bytes, sha256 {digest}"
            ) from error


def parse_record(data: bytes) -> Record:
    """Returns the record in the data of one TFRecord; raises `ValueError` saying what does not fit."""
    try:
        fields = json.loads(data)
    except ValueError:
        raise ValueError("a record is not JSON") from None
    if not isinstance(fields, list) or len(fields) != 5 or [type(f) for f in fields] != [str, int, str, str, str]:
        raise ValueError("a record is not [module hash, epochs, adjacency, operations, metrics]")
    module_hash, epochs, adjacency, operations, metrics = fields
    try:
        evaluations, parameters = parse_metrics(base64.b64decode(metrics, validate=True))
    except binascii.Error:
        raise ValueError("the metrics of a record are not base64") from None
    if not evaluations:
        raise ValueError("a record has no evaluation")
    return Record(module_hash, epochs, adjacency, operations, evaluations, parameters)


def parse_metrics(data: bytes) -> tuple[tuple[Evaluation, ...], int]:
    """Returns the evaluations and trainable parameters of serialized `ModelMetrics`; raises `ValueError` if not one."""
    evaluations, parameters = [], 0
    for field, value in _fields(data):
        if field == 1 and isinstance(value, bytes):
            numbers = [0.0] * 5
            for inner, number in _fields(value):
                if 1 <= inner <= 5 and isinstance(number, float):
                    numbers[inner - 1] = number
            evaluations.append(Evaluation(*numbers))
        elif field == 2 and isinstance(value, int):
            parameters = value
    return tuple(evaluations), parameters


def masked_crc32c(records: list[bytes]) -> np.ndarray:
    """Returns the masked CRC-32C of each record, uint32 [B]; all records advance together, a byte at a time."""
    lengths = np.array([len(record) for record in records])
    order = np.argsort(-lengths, kind="stable")
    padded = np.zeros((len(records), int(lengths.max(initial=0))), np.uint8)
    for at, index in enumerate(order):
        padded[at, : lengths[index]] = np.frombuffer(records[index], np.uint8)
    # Longest first, so that at every byte the records still going are the first ones.
    going = len(records) - np.searchsorted(lengths[order][::-1], np.arange(padded.shape[1]), "right")
    table = _crc_table()
    state = np.full(len(records), 0xFFFFFFFF, np.uint32)
    for at, active in enumerate(going):
        now = state[:active]
        state[:active] = table[(now ^ padded[:active, at]) & 0xFF] ^ (now >> 8)
    sums = np.empty(len(records), np.uint32)
    sums[order] = ~state
    return ((sums >> 15) | (sums << 17)) + np.uint32(_MASK)


def _framed(file: BinaryIO) -> Iterator[bytes]:
    """Yields the data of each TFRecord once its checksums hold."""
    while True:
        heads, head_sums, records, sums = [], [], [], []
        truncated = False
        while len(records) < _RECORDS_PER_CHECK:
            head = file.read(12)
            if not head:
                break
            (length,) = struct.unpack("<Q", head[:8]) if len(head) == 12 else (0,)
            if len(head) == 12 and length > _LONGEST:
                if _differing([head[:8]], [struct.unpack("<I", head[8:])[0]]) is not None:
                    raise ValueError("the checksum of a record's length does not hold")
                raise ValueError(f"a record claims {length} bytes")
            data = file.read(length)
            tail = file.read(4)
            if len(head) < 12 or len(data) < length or len(tail) < 4:
                truncated = True
                break
            heads.append(head[:8])
            head_sums.append(struct.unpack("<I", head[8:])[0])
            records.append(data)
            sums.append(struct.unpack("<I", tail)[0])
        if records:
            bad_head, bad_data = _differing(heads, head_sums), _differing(records, sums)
            good = min(at for at in (bad_head, bad_data, len(records)) if at is not None)
            yield from records[:good]
            if good < len(records):
                raise ValueError("the checksum of a record does not hold")
        if truncated:
            raise ValueError("it ends within a record")
        if len(records) < _RECORDS_PER_CHECK:
            return


def _differing(records: list[bytes], expected: list[int]) -> int | None:
    wrong = np.flatnonzero(masked_crc32c(records) != np.array(expected, np.uint32))
    return int(wrong[0]) if wrong.size else None


@lru_cache(maxsize=1)
def _crc_table() -> np.ndarray:
    table = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = np.where(table & 1, (table >> 1) ^ np.uint32(_POLYNOMIAL), table >> 1).astype(np.uint32)
    return table


def _fields(data: bytes) -> Iterator[tuple[int, int | float | bytes]]:
    """Yields field numbers and values of a protocol buffer: whole numbers, doubles, or bytes still to be read."""
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        kind = tag & 7
        if kind == 0:
            value, at = _varint(data, at)
        elif kind == 1:
            value, at = data[at : at + 8], at + 8
            if len(value) < 8:
                raise ValueError("the metrics of a record end early")
            (value,) = struct.unpack("<d", value)
        elif kind == 2:
            length, at = _varint(data, at)
            value, at = data[at : at + length], at + length
            if len(value) < length:
                raise ValueError("the metrics of a record end early")
        elif kind == 5:
            value, at = data[at : at + 4], at + 4
        else:
            raise ValueError("the metrics of a record are not a protocol buffer of the benchmark")
        yield tag >> 3, value


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if at >= len(data) or shift > 63:
            raise ValueError("the metrics of a record end early")
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at += 1
        if byte < 0x80:
            return value, at
        shift += 7
