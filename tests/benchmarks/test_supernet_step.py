"""The benchmark runs whole on a tiny network, and its arithmetic is right."""

import json

import jax
import pytest

from benchmarks.supernet_step import Timing, main, ratios, summarise, take_turns
from parsec.errors import UserError


@pytest.fixture
def compile_cache():
    """Switches the persistent compile cache, which the benchmark does without, on again."""
    yield
    jax.config.update("jax_enable_compilation_cache", True)


@pytest.mark.slow
def test_quick_run_compiles_one_program_for_all_children(tmp_path, compile_cache):
    path = tmp_path / "step.json"
    main(["--quick", f"--out={path}"])
    report = json.loads(path.read_text())
    results = report["results"]["float32"]
    assert results["compilations_of_50_children"] == 1
    memory = results["temporary_bytes"]
    # Beyond the children's own indices and likelihoods, a third child costs nothing.
    assert 0 < memory["weighted_3"] <= memory["weighted_2"] + 4096
    steps = results["step_seconds"]
    assert {"supernet", "static", "static_lax"} <= set(steps)
    assert all(step["wall"] > 0 for step in steps.values())
    assert results["supernet_ratio"]["static"]["wall"] > 0
    assert report["machine"]["versions"]["jax"] == jax.__version__


def test_contestants_take_turns_and_the_first_round_is_not_timed():
    order: list[str] = []
    steps = [{name: lambda name=f"{name}{child}": order.append(name) for name in "ab"} for child in range(2)]
    timings = take_turns(steps, 2)
    assert order == ["a0", "b0", "a1", "b1"] * 3
    assert [set(child) for child in timings] == [{"a", "b"}] * 2


def test_ratios_compare_each_child_with_itself():
    timings = [
        {"supernet": Timing(1.0, 2.0), "static": Timing(2.0, 8.0)},
        {"supernet": Timing(10.0, 30.0), "static": Timing(10.0, 60.0)},
        {"supernet": Timing(50.0, 50.0)},
    ]
    assert ratios(timings) == {"static": {"wall": 0.75, "cpu": 0.375}}
    assert summarise(timings)["supernet"] == {"wall": 10.0, "cpu": 30.0}
    assert summarise(timings)["static"] == {"wall": 6.0, "cpu": 34.0}


def test_an_unknown_space_names_the_nearest():
    with pytest.raises(UserError, match="did you mean 'darts'"):
        main(["--space=dart"])
