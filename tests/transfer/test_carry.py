"""A prior carried by names: probabilities stay, what is new gets its share, nothing in common is refused."""

import json
from pathlib import Path

import numpy as np
import pytest

from parsec import prior as priors
from parsec.cells import get_space
from parsec.cells.space import CellLayout, Choice, Space
from parsec.errors import UserError
from parsec.transfer.prior import carry_logits, named_logits, open_prior, read_prior

SPACE = get_space("nasbench201")


def space_of(**choices: str) -> Space:
    """A space of which only the names matter."""
    made = tuple(Choice(name, tuple(options.split())) for name, options in choices.items())
    return Space("small", made, (), {"cell": CellLayout(1, 1, ())}, lambda **_: None)


@pytest.fixture
def logits() -> np.ndarray:
    return np.random.default_rng(0).normal(0, 3, SPACE.mask.shape).astype(np.float32)


def test_to_its_own_space_a_prior_keeps_its_probabilities(logits: np.ndarray):
    stored = json.loads(json.dumps(named_logits(SPACE, logits)))
    assert stored["space"] == "nasbench201"
    carried = carry_logits(stored["logits"], SPACE)
    np.testing.assert_allclose(
        priors.probabilities(carried.logits, SPACE.mask), priors.probabilities(logits, SPACE.mask), atol=1e-6
    )
    assert carried.logits.dtype == np.float32
    assert carried.notes == ()


def test_a_ragged_space_keeps_its_probabilities_too():
    space = get_space("darts")
    logits = np.random.default_rng(1).normal(0, 2, space.mask.shape).astype(np.float32)
    carried = carry_logits(named_logits(space, logits)["logits"], space)
    np.testing.assert_allclose(
        priors.probabilities(carried.logits, space.mask), priors.probabilities(logits, space.mask), atol=1e-6
    )
    assert (carried.logits[~space.mask] == 0).all()


def test_sharpness_tempers_the_prior(logits: np.ndarray):
    stored = named_logits(SPACE, logits)["logits"]
    sizes = [float(priors.entropy(carry_logits(stored, SPACE, s).logits, SPACE.mask)) for s in (2.0, 1.0, 0.5, 0.0)]
    assert sizes == sorted(sizes)
    assert sizes[-1] == pytest.approx(6 * np.log(5), rel=1e-5)


def test_a_mixture_opens_the_prior_towards_uniform(logits: np.ndarray):
    stored = named_logits(SPACE, logits)["logits"]
    before = np.asarray(priors.probabilities(logits, SPACE.mask))
    for mixture in (0.0, 0.25, 1.0):
        carried = carry_logits(stored, SPACE, mixture=mixture)
        expected = (1 - mixture) * before + mixture / 5
        np.testing.assert_allclose(priors.probabilities(carried.logits, SPACE.mask), expected, atol=1e-6)
    # The tempered prior is what is mixed, and a ragged choice has its own uniform distribution.
    mask = np.array([[True, True, False], [True, True, True]])
    ragged = np.array([[3.0, -3, 9], [0, 0, 30]], np.float32)
    opened = priors.probabilities(open_prior(ragged, mask, 0.5, 0.3), mask)
    tempered = np.asarray(priors.probabilities(0.5 * ragged, mask))
    np.testing.assert_allclose(opened, 0.7 * tempered + 0.3 * mask / [[2], [3]], atol=1e-6)
    assert open_prior(ragged, mask, 0.5, 0.3)[0, 2] == 0


def test_options_are_found_by_name_in_any_order_and_new_ones_get_an_equal_share():
    source = {"a": {"x": 0.0, "y": float(np.log(3))}, "b": {"x": 5.0, "y": 0.0}, "gone": {"x": 0.0}}
    target = space_of(a="y new x", b="p q", c="x y")
    carried = carry_logits(source, target)
    np.testing.assert_allclose(np.exp(carried.logits[0]), [2 / 3 * 3 / 4, 1 / 3, 2 / 3 / 4], rtol=1e-5)
    np.testing.assert_array_equal(carried.logits[1:], 0)
    said = " ".join(carried.notes)
    for word in ("b, c", "a=new", "gone"):
        assert word in said


def test_nothing_in_common_is_refused_in_one_line():
    with pytest.raises(UserError, match="none of the choices of nasbench201") as raised:
        carry_logits({"normal_2a_source": {"0": 0.0, "1": 1.0}}, SPACE)
    assert "normal_2a_source" in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_prior_is_read_from_its_file_or_its_run_and_first_relative_to_the_run(logits: np.ndarray, tmp_path: Path):
    run = tmp_path / "source"
    run.mkdir()
    (tmp_path / "target").mkdir()
    (run / "prior.json").write_text(json.dumps(named_logits(SPACE, logits)))
    for given in (run, run / "prior.json", "../source"):
        read = read_prior(given, tmp_path / "target")
        assert read["edge_0_1"]["none"] == logits[0, 0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "there is no prior"),
        ("{", "is not the prior"),
        ("[]", "is not the prior"),
        ("[" * 100_000, "is not the prior"),
        ('{"logits": {"a": {"x": 1' + "0" * 400 + "}}}", "is not the prior"),
        ('{"logits": {"a": {"x": "y"}}}', "is not the prior"),
        ('{"logits": {"a": {"x": NaN}}}', "no finite number"),
    ],
)
def test_a_missing_or_foreign_file_is_one_line(text: str | None, message: str, tmp_path: Path):
    path = tmp_path / "prior.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UserError, match=message) as raised:
        read_prior(path, tmp_path)
    assert str(path) in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("given", ["~nosuchuser/run", "n" * 300])
def test_a_prior_at_an_impossible_place_is_one_line(given: str, tmp_path: Path):
    with pytest.raises(UserError, match=r"nosuchuser|File name too long"):
        read_prior(given, tmp_path)
