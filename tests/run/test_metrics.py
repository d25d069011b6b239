"""metrics.jsonl: equal numbers give equal bytes, and resuming drops exactly what was not checkpointed."""

import json
import struct
import subprocess
import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from tensorboardX.proto.event_pb2 import Event

from parsec.run.metrics import MetricsFile, Sinks, TensorBoard, count_lines, format_line, read_metrics, truncate_after


def test_numbers_are_written_in_their_own_shortest_form():
    values = {
        "f32": np.float32(0.1),
        "jax": jnp.float32(0.1),
        "bf16": jnp.bfloat16(0.5),
        "f64": 0.1,
        "int": np.int64(7),
        "flag": np.bool_(True),
        "nan": float("nan"),
        "inf": jnp.float32(jnp.inf),
        "list": np.array([0.1, 0.2], np.float32),
        "text": "a",
        "none": None,
    }
    line = format_line(np.int32(3), values)
    assert line.endswith("\n")
    assert json.loads(line) == {
        "step": 3,
        "f32": 0.1,
        "jax": 0.1,
        "bf16": 0.5,
        "f64": 0.1,
        "int": 7,
        "flag": True,
        "nan": None,
        "inf": None,
        "list": [0.1, 0.2],
        "text": "a",
        "none": None,
    }


def test_float32_values_survive_the_text_bit_for_bit():
    values = np.random.default_rng(0).normal(size=1000).astype(np.float32) * np.float32(1e-3)
    back = np.array(json.loads(format_line(0, {"v": values}))["v"]).astype(np.float32)
    assert (back == values).all()


@pytest.mark.parametrize(
    "torn",
    ["", '{"step": 5, "lo', '{"step": 5, "loss": 1.0}', "\x00\x00\n", "[]\n", '{"step": "5"}\n', "[" * 100_000 + "\n"],
)
def test_truncate_after_leaves_what_an_uninterrupted_run_would_have_written(tmp_path: Path, torn: str):
    expected = "".join(format_line(step, {"loss": step / 3}) for step in range(1, 4))
    file = MetricsFile(tmp_path)
    for step in range(1, 5):
        file.write(step, {"loss": step / 3})
    with file.path.open("a") as more:
        more.write(torn)
    assert [line["step"] for line in read_metrics(tmp_path)] == [1, 2, 3, 4]
    truncate_after(tmp_path, 3)
    assert file.path.read_text() == expected
    truncate_after(tmp_path, 3)
    assert file.path.read_text() == expected
    truncate_after(tmp_path, 0)
    assert file.path.read_text() == ""


def test_bytes_that_are_no_text_are_damage_like_any_other(tmp_path: Path):
    whole = [format_line(step, {"loss": step / 3}).encode() for step in range(1, 5)]
    (tmp_path / "metrics.jsonl").write_bytes(whole[0] + b'{"step": 2, "loss": "\xff\xfe"}\n' + whole[2] + whole[3])
    assert [line["step"] for line in read_metrics(tmp_path)] == [1, 3, 4]
    assert [count_lines(tmp_path, step) for step in (0, 1, 2, 3, 9)] == [0, 1, 1, 2, 3]
    truncate_after(tmp_path, 3)
    assert (tmp_path / "metrics.jsonl").read_bytes() == whole[0] + whole[2]


def test_truncating_and_reading_a_run_without_metrics(tmp_path: Path):
    truncate_after(tmp_path, 3)
    assert read_metrics(tmp_path) == []
    assert not (tmp_path / "metrics.jsonl").exists()


def events(folder: Path) -> list[Event]:
    found = []
    for path in sorted(folder.iterdir()):
        data = path.read_bytes()
        while data:
            (length,) = struct.unpack("<Q", data[:8])
            found.append(Event.FromString(data[12 : 12 + length]))
            data = data[16 + length :]
    return found


def test_tensorboard_gets_the_finite_scalars(tmp_path: Path):
    with Sinks(MetricsFile(tmp_path), TensorBoard(tmp_path)) as sinks:
        sinks.write(1, {"loss": jnp.float32(2.0), "text": "a", "list": [1.0], "nan": float("nan")})
        sinks.write(2, {"loss": 1.0})
    scalars = [(e.step, v.tag, v.simple_value) for e in events(tmp_path / "tensorboard") for v in e.summary.value]
    assert scalars == [(1, "loss", 2.0), (2, "loss", 1.0)]
    assert len(read_metrics(tmp_path)) == 2


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs the device that is always full")
def test_events_on_a_full_disk_are_one_line_and_leave_nothing_to_complain_later(tmp_path: Path):
    code = (
        "import sys\nfrom pathlib import Path\nfrom tensorboardX import record_writer\n"
        "record_writer.open_file = lambda path: open('/dev/full', 'wb')\n"
        "from parsec.errors import UserError\nfrom parsec.run import metrics\n"
        "metrics._FLUSH_SECONDS = 0\n"
        "sink = metrics.TensorBoard(Path(sys.argv[1]))\n"
        "try:\n    sink.write(1, {'loss': 1.0})\nexcept UserError as error:\n    print(error)\nsink.close()\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.stdout.startswith(f"cannot write {tmp_path / 'tensorboard'}: No space left on device")
    assert (done.returncode, done.stderr) == (0, "")


def test_resumed_tensorboard_hides_the_steps_that_are_done_again(tmp_path: Path):
    TensorBoard(tmp_path, from_step=7).close()
    starts = [e.step for e in events(tmp_path / "tensorboard") if e.HasField("session_log")]
    assert starts == [8]
