"""The StableHLO program computes what the network does, for any batch, in a form for each platform."""

from pathlib import Path

import jax
import numpy as np
from jax import export
from tiny_network import random_images

from parsec.export.stablehlo import export_program, load_program
from parsec.jobs.train.export import PROGRAM
from parsec.train.model_file import load_model, logits


def test_the_program_gives_the_networks_probabilities_for_every_batch_size(exported: Path):
    program, model = load_program((exported / PROGRAM).read_bytes()), load_model(exported)
    for count in (5, 1):
        images = random_images(count)
        expected = np.asarray(jax.nn.softmax(logits(model, images)))
        assert expected.max() - expected.min() > 0.2
        np.testing.assert_allclose(program(images), expected, atol=1e-5)


def test_one_file_has_every_platform_and_its_own_form_of_windows(exported: Path):
    read = export.deserialize(bytearray((exported / PROGRAM).read_bytes()))
    assert read.platforms == ("cpu", "cuda", "tpu")
    assert [str(aval) for aval in read.in_avals] == ["uint8[b,8,8,3]"]
    assert [str(aval) for aval in read.out_avals] == ["float32[b,3]"]
    # The average pool is a sum of slices on a CPU, and a window elsewhere.
    text = read.mlir_module()
    assert "stablehlo.real_dynamic_slice" in text
    assert "stablehlo.reduce_window" in text


def test_equal_networks_give_equal_bytes_without_paths_of_this_machine(exported: Path):
    content = export_program(load_model(exported))
    assert content == (exported / PROGRAM).read_bytes()
    assert b".py" not in content
