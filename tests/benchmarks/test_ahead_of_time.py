"""Compiling ahead of time: what is refused, the arithmetic of its bound, and every command that the page shows."""

import importlib.util
import math
import re
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from benchmarks import ahead_of_time
from benchmarks.ahead_of_time import CHIPS, INSTALL, JOBS, Work, bound, count_collectives, main, make_work, parse
from parsec.command.config_files import load_config
from parsec.devices import grid
from parsec.errors import UserError

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "scale.md"
COMMAND = re.compile(r"python -m benchmarks\.ahead_of_time((?: +--\S+)+)")


@pytest.fixture
def compile_cache():
    """Switches the persistent compile cache, which the benchmark does without, on again."""
    yield
    jax.config.update("jax_enable_compilation_cache", True)


@pytest.mark.parametrize("words", COMMAND.findall(PAGE.read_text()))
def test_every_command_of_the_page_is_one(words: str):
    options = parse(words.split())
    assert options.job in JOBS and options.topology.partition(":")[0] in CHIPS


def test_every_row_of_the_page_is_a_command_whose_chips_divide_its_batch():
    rows = re.findall(r"^\| `(\w+)` \| (v\w+:[\dx]+) \| (.*?) \|", PAGE.read_text(), re.MULTILINE)
    assert {job for job, _, _ in rows} == set(JOBS)
    for job, topology, more in rows:
        options = parse([f"--job={job}", f"--topology={topology}", *re.findall(r"`(--\S+)`", more)])
        chips = math.prod(map(int, topology.partition(":")[2].split("x")))
        assert chips % options.groups == 0 and options.batch % (chips // options.groups) == 0


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("--job=train --groups=4", "--groups=4 shares a search's children out among TPUs; leave it out here"),
        ("--groups=4 --platform=cuda", "--groups=4 shares a search's children out among TPUs; leave it out here"),
        ("--groups=3", "--groups=3 does not divide --children=16 evenly"),
        ("--groups=0", "--groups=0 does not divide --children=16 evenly"),
    ],
)
def test_only_a_search_has_children_to_share_out_evenly(words: str, says: str):
    assert parse(["--job=search", "--groups=4"]).groups == 4
    with pytest.raises(UserError, match=says):
        parse(words.split())


def test_a_job_has_its_own_size_and_the_command_may_change_it():
    options = parse(["--job=imagenet_train", "--batch=256"])
    assert (options.cells, options.channels, options.batch, options.image) == (14, 48, 256, 224)


@pytest.mark.parametrize("job", ["imagenet_search", "imagenet_train"])
def test_a_job_on_imagenet_has_the_size_of_its_config(job: str):
    config, size = load_config(job).config, JOBS[job]
    assert (size.cells, size.channels) == (config.network.cells, config.network.channels)
    assert (size.batch, size.image) == (config.data.batch_size, config.data.image_size)
    assert size.children == (config.sampler.num_children if job.endswith("search") else 0)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("--job=serch", "unknown job 'serch'.*did you mean 'search'"),
        ("--topology=v5:2x2", "unknown chip 'v5'; choose one of v4, v5e, v6e; did you mean 'v5e'"),
        ("--platform=rocm", "unknown platform 'rocm'; choose one of cuda, tpu"),
        ("--dtype=float16", "unknown dtype 'float16'"),
    ],
)
def test_what_is_not_known_is_told_in_a_line(words: str, says: str):
    with pytest.raises(UserError, match=says) as raised:
        parse([words])
    assert "\n" not in str(raised.value)


def test_without_libtpu_it_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(ahead_of_time.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=f"not installed: {INSTALL}$"):
        ahead_of_time.topology_mesh("v5e:2x2", 0)


def test_a_mistake_ends_in_one_line_and_two():
    command = [sys.executable, "-m", "benchmarks.ahead_of_time", "--job=x"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1 and "unknown job 'x'" in done.stderr


@pytest.mark.parametrize("groups", [1, 2])
def test_groups_of_chips_share_the_children_out(groups: int):
    sizes = ["--cells=3", "--channels=2", "--batch=4", "--image=16", "--children=2", f"--groups={groups}"]
    work = make_work(parse(["--job=search", *sizes]), grid(jax.devices()[:4], groups))
    program = str(work.program.trace(*work.arguments).jaxpr)
    assert ("shard_map" in program) == (groups > 1) and work.loops == 2 // groups


def test_the_bound_is_the_slower_of_operations_and_bytes():
    work = Work(None, (), 0, 197e9, loops=4)
    found = bound(work, 819e6, CHIPS["v5e"], chips=2, batch=64)
    # 2 x 197e9 operations on two chips of 197e12 a second; four times 819e6 bytes at 819e9.
    assert found["seconds_by_operations"] == pytest.approx(1e-3) and found["seconds_by_bytes"] == pytest.approx(4e-3)
    assert found["bound_by"] == "bytes" and found["images_per_second"] == pytest.approx(16_000)
    assert bound(work._replace(loops=0), 1.0, CHIPS["v5e"], 2, 64)["bound_by"] == "operations"


def test_collectives_are_counted_once_whether_begun_and_ended_or_not():
    text = (
        "  a = f32[4] all-reduce(b), x\n  c = (f32[4], f32[4]) all-reduce-start(d)\n  e = f32[4] all-reduce-done(c)\n"
    )
    text += "  %all-gather.1 = f32[8]{0} all-gather(a), dimensions={0}\n  f = f32[4] add(all-gather.1, a)\n"
    assert count_collectives(text) == {"all-reduce": 2, "all-gather": 1}


@pytest.mark.slow
def test_a_step_is_lowered_for_a_gpu_in_its_own_form(compile_cache):
    sizes = ["--cells=3", "--channels=2", "--batch=4", "--image=16", "--platform=cuda", "--job=train"]
    report = main(sizes)
    # A CPU's form has no convolutions of single channels; here each has its two gradients.
    assert report["stablehlo"]["convolutions"] > 40 and report["parameters"] > 0


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="libtpu is not installed")
def test_a_step_is_compiled_for_a_tpu(compile_cache):
    report = main(["--cells=3", "--channels=2", "--batch=8", "--image=16", "--job=train"])
    assert report["chips"] == 4 and report["collectives"]["all-reduce"] > 0
    assert report["bytes_per_chip"]["fits"] and report["step"]["images_per_second"] > 0
