"""Checkpoints: what is saved comes back, and whatever happens to the files, a good step is found or nothing is lost."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from parsec.errors import UserError
from parsec.run.checkpoint import Checkpoints


def state(seed: int) -> dict[str, Any]:
    weights = {"kernel": jax.random.normal(jax.random.key(seed), (16, 8)), "bias": jnp.full((8,), seed, jnp.bfloat16)}
    return {
        "weights": weights,
        "optimizer": optax.adam(0.1).init(weights),
        "key": jax.random.key(seed),
        "keys": jax.random.split(jax.random.key(seed + 1), 3),
        "visits": np.arange(5, dtype=np.int64) + seed,
        "empty": np.zeros((0, 4), np.float32),
        "mask": np.array([True, False]),
        "count": seed,
        "rate": 0.5,
    }


def same(a: Any, b: Any) -> bool:
    def plain(leaf: Any) -> np.ndarray:
        key = isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
        return np.asarray(jax.random.key_data(leaf) if key else leaf)

    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    equal = all(type(x) is type(y) and plain(x).tobytes() == plain(y).tobytes() for x, y in pairs)
    return equal and jax.tree.structure(a) == jax.tree.structure(b)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with checkpoints 10 and 20; copy it before damaging anything."""
    folder = tmp_path_factory.mktemp("saved")
    with Checkpoints(folder) as checkpoints:
        for step in (10, 20):
            checkpoints.save(step, state(step), {"step": step})
    return folder


def test_every_kind_of_leaf_comes_back_bit_for_bit(saved: Path):
    with Checkpoints(saved) as checkpoints:
        found = checkpoints.restore_latest(state(0))
    assert found is not None
    assert (found.step, found.host, found.notes) == (20, {"step": 20}, ())
    assert same(found.tree, state(20))
    assert not same(found.tree, state(10))
    assert jax.random.key_impl(found.tree["key"]) == jax.random.key_impl(jax.random.key(0))


def test_an_empty_directory_holds_nothing_and_old_steps_are_removed(tmp_path: Path):
    with Checkpoints(tmp_path / "a") as checkpoints:
        assert checkpoints.restore_latest({}) is None
        for step in range(4):
            checkpoints.save(step, {}, step)
        checkpoints.save(3, {}, "not written: the step is there")
        found = checkpoints.restore_latest({})
    assert found is not None
    assert (found.step, found.host, found.tree) == (3, 3, {})
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == ["2", "3"]


def test_host_side_arrays_may_have_grown_but_device_arrays_may_not(tmp_path: Path):
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, {"tree": np.arange(9), "w": jnp.ones(3)})
        found = checkpoints.restore_latest({"tree": np.arange(0), "w": jnp.zeros(3)})
        assert found is not None
        assert (found.tree["tree"] == np.arange(9)).all()
        with pytest.raises(UserError, match=r"w is float32 \[3\], this run needs float32 \[4\]"):
            checkpoints.restore_latest({"tree": np.arange(0), "w": jnp.zeros(4)})


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


# Orbax gives up on a damaged file while its reads are still under way, and they complain when they end.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("damage", ["flip", "cut", "remove"])
def test_any_damaged_file_leads_back_to_the_last_good_step(saved: Path, tmp_path: Path, damage: str):
    """Whichever file of the latest step is damaged, the state found is exactly one that was saved."""
    fallen = 0
    names = files(saved / "20")
    for index, name in enumerate(names):
        folder = tmp_path / str(index)
        shutil.copytree(saved, folder)
        file = folder / "20" / name
        content = bytearray(file.read_bytes())
        if damage == "remove":
            file.unlink()
        elif damage == "flip" and content:
            content[len(content) // 2] ^= 0xFF
            file.write_bytes(content)
        else:
            file.write_bytes(content[: len(content) // 2])
        with Checkpoints(folder) as checkpoints:
            found = checkpoints.restore_latest(state(0))
            assert found is not None
            assert same(found.tree, state(found.step)), name
            assert found.host == {"step": found.step}, name
            if found.step == 10:
                fallen += 1
                assert len(found.notes) == 1
                assert "checkpoint 20 is unreadable" in found.notes[0]
                assert "\n" not in found.notes[0]
                if fallen == 1:
                    # The step can be saved again, and the damaged one was kept for whoever wants to look.
                    checkpoints.save(20, state(20), {"step": 20})
                    again = checkpoints.restore_latest(state(0))
                    assert again is not None
                    assert (again.step, again.notes) == (20, ())
                    assert (folder / "unreadable-20").is_dir()
            else:
                assert found.notes == ()
    # The rest are markers, statistics and Orbax's second copies.
    assert fallen >= 3


def test_checkpoints_of_something_else_are_refused_and_left_alone(saved: Path, tmp_path: Path):
    shutil.copytree(saved, tmp_path / "foreign")
    before = files(tmp_path / "foreign")
    with Checkpoints(tmp_path / "foreign") as checkpoints, pytest.raises(UserError, match="another state") as refused:
        checkpoints.restore_latest({"other": jnp.ones(3)})
    assert "\n" not in str(refused.value)
    assert files(tmp_path / "foreign") == before


def test_folders_that_are_no_checkpoints_are_passed_over(saved: Path, tmp_path: Path):
    folder = tmp_path / "mixed"
    shutil.copytree(saved, folder)
    (folder / "30").mkdir()
    (folder / "notes").mkdir()
    (folder / "40.orbax-checkpoint-tmp").mkdir()
    with Checkpoints(folder) as checkpoints:
        found = checkpoints.restore_latest(state(0))
    assert found is not None
    assert found.step == 20


def test_what_cannot_be_saved_is_refused_before_anything_is_written(tmp_path: Path):
    with Checkpoints(tmp_path) as checkpoints:
        with pytest.raises(TypeError, match="name is a str"):
            checkpoints.save(1, {"name": "text"})
        with pytest.raises(TypeError, match="JSON"):
            checkpoints.save(1, {}, {"bad": object()})
        assert checkpoints.restore_latest({}) is None


def test_a_directory_that_cannot_be_written_is_one_line(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write"):
        Checkpoints(tmp_path / "file" / "below")


SAVER = """
import os, random, resource, signal, sys, time, warnings
import numpy as np
from parsec.errors import UserError
from parsec.run.checkpoint import Checkpoints

warnings.filterwarnings("ignore", "os.fork", RuntimeWarning)
folder, draw = sys.argv[1], random.Random(0)

def state(step):
    return {"a": np.full((512, 512), step, np.float32), "b": {"c": np.full(1000, step, np.int64)}}

def save_until_killed(announce):
    with Checkpoints(folder) as checkpoints:
        found = checkpoints.restore_latest(state(0))
        step = 0 if found is None else found.step
        if found is not None:
            assert (found.tree["a"] == step).all() and (found.tree["b"]["c"] == step).all() and found.notes == ()
        announce(step)
        while True:
            step += 1
            checkpoints.save(step, state(step))
            announce(step)

# Forked from one process, because importing takes longer than all the rest.
reached = 0
for _ in range(6):
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        try:
            save_until_killed(lambda step: os.write(writer, f"{step}\\n".encode()))
        finally:
            os._exit(1)
    os.close(writer)
    with os.fdopen(reader) as lines:
        first = int(lines.readline())
        assert first >= reached, "a step announced as saved was lost"
        reached = int(lines.readline())
        time.sleep(draw.uniform(0, 0.2))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        reached = int((lines.read().split() or [reached])[-1])

# A file may not grow beyond 64 bytes from here on: what a full disk does, but for one process only.
with Checkpoints(folder) as checkpoints:
    step = checkpoints.restore_latest(state(0)).step
    assert step >= reached
    resource.setrlimit(resource.RLIMIT_FSIZE, (64, 64))
    noise = np.random.default_rng(0).normal(size=(512, 512)).astype(np.float32)
    try:
        checkpoints.save(step + 1, {"a": noise, "b": {"c": np.arange(1000)}})
    except UserError as error:
        print(step, error, flush=True)
    else:
        sys.exit("the save did not fail")
"""


def test_kill_at_any_moment_and_a_full_disk_leave_a_checkpoint_to_go_on_from(tmp_path: Path):
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-W", "error", "-c", SAVER, str(tmp_path / "run")]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    (line,) = done.stdout.splitlines()
    step, _, message = line.partition(" ")
    assert message.startswith(f"cannot write checkpoint {int(step) + 1} in")
    with Checkpoints(tmp_path / "run") as checkpoints:
        found = checkpoints.restore_latest(
            {"a": np.zeros((512, 512), np.float32), "b": {"c": np.zeros(1000, np.int64)}}
        )
    assert found is not None
    assert found.step == int(step) >= 6
    assert (found.tree["a"] == found.step).all()
