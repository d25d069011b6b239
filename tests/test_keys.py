"""Keys by purpose: no name meets another, nor a counter."""

import re
import zlib
from pathlib import Path

import jax
import numpy as np
import pytest

import parsec
from parsec.keys import fold

# The checksum of the last name is 793, a counter's size.
NAMES = ("init", "ask", "batches", "children", "weights", "samples", "", "awzym")
SOURCES = sorted(Path(str(parsec.__path__[0])).rglob("*.py"))


def data(keys: jax.Array) -> set[tuple[int, ...]]:
    rows = np.asarray(jax.random.key_data(keys))
    return set(map(tuple, rows.reshape(-1, rows.shape[-1]).tolist()))


@pytest.mark.parametrize("kind", ["threefry2x32", "rbg"])
def test_a_named_key_meets_neither_another_name_nor_a_split_nor_a_counter(kind: str) -> None:
    base = jax.random.key(3, impl=kind)
    named = [fold(base, name) for name in NAMES]
    apart = set().union(*map(data, named))
    assert len(apart) == len(NAMES)
    counters = jax.vmap(lambda at: jax.random.fold_in(base, at))(np.arange(4096, dtype=np.uint32))
    for others in (base, counters, *(jax.random.split(base, n) for n in (1, 2, 3, 4096))):
        assert not apart & data(others)


def test_a_name_gives_the_same_key_in_every_version(key: jax.Array) -> None:
    assert np.asarray(jax.random.key_data(fold(key, "batches"))).tolist() == [3428372451, 3549622411]
    assert data(jax.jit(lambda k: fold(k, "batches"))(key)) == data(fold(key, "batches"))


def test_no_two_names_in_the_package_have_one_number() -> None:
    names = {name for path in SOURCES for name in re.findall(r'\bfold\(\w[^"\n]*, "([^"]+)"\)', path.read_text())}
    numbers = {zlib.crc32(name.encode()) | 2**31 for name in names}
    assert len(numbers) == len(names)
