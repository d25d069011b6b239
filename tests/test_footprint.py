"""Memory judged before it is taken."""

from pathlib import Path

import pytest

from parsec import footprint
from parsec.errors import UserError
from parsec.footprint import free_memory, readable, require_memory


def test_what_fits_passes_and_what_does_not_is_told_with_its_parts_the_largest_first():
    require_memory({"images": 600, "weights": 400}, "buy more", free=1000)
    with pytest.raises(UserError) as refused:
        require_memory({"images": 5000, "weights": 3 * 2**40}, "choose fewer", free=2**31)
    message = str(refused.value)
    assert message == (
        "this needs 3.0 TiB of memory (weights 3.0 TiB, images 4.9 KiB), and 2.0 GiB are free; choose fewer"
    )


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 bytes"),
        (1023, "1023 bytes"),
        (1024, "1.0 KiB"),
        (3 * 2**29, "1.5 GiB"),
        (2**70, "1024.0 EiB"),
        (2**100, "2^100 bytes"),
        (10**4000, "2^13287 bytes"),
    ],
)
def test_sizes_are_told_in_the_unit_that_suits_them(size: int, text: str):
    assert readable(size) == text


def test_this_machine_says_what_is_free_and_a_group_what_it_leaves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    free = free_memory()
    assert free is not None
    assert 2**20 < free < 2**50
    for name, text in (
        ("limit", "5000"),
        ("used", "3000"),
        ("memory.stat", "anon 7\ninactive_file 400\nactive_file 50"),
    ):
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(footprint, "_GROUPS", ((tmp_path / "limit", tmp_path / "used"),))
    assert free_memory() == 2450
    (tmp_path / "limit").write_text("max")
    unlimited = free_memory()
    assert unlimited is not None
    assert unlimited > 2**20
