import dataclasses

import jax
import numpy as np
import pytest

from parsec.cells.domain import product_domain
from parsec.errors import UserError
from parsec.search.lanas.encoding import HalfSpace, linear_margin, make_encoding
from parsec.search.lanas.sampling import draw_anywhere, draw_with_fallback, make_sampler

DOMAIN = product_domain((3, 4, 2, 3))
ENCODING = make_encoding(DOMAIN, interactions=False)
POOL = np.asarray(DOMAIN.pool)
OPEN = dataclasses.replace(DOMAIN, pool=None)


def _half(option: int, positive: bool = True) -> HalfSpace:
    """The half-space of architectures that have one option, a column of the one-hot features, or have it not."""
    weights = np.zeros(12, np.float32)
    weights[option] = 1.0
    return HalfSpace(linear_margin(ENCODING, weights, -0.5), positive)


# First choice is option 0, second is not option 1 (column 4): 1 * 3 * 2 * 3 = 18 of the 72 architectures.
REGION = (_half(0), _half(4, positive=False))
INSIDE = POOL[(POOL[:, 0] == 0) & (POOL[:, 1] != 1)]


def _draws(name: str, n: int, known: np.ndarray, taken: set[bytes], ranking=None, budget: int = 512):
    sampler = make_sampler(
        DOMAIN if name == "pool" else OPEN, ENCODING, name, candidates=24 if ranking is None else 64, budget=budget
    )
    rng = np.random.default_rng(0)
    return [sampler(rng, REGION, known, taken, ranking) for _ in range(n)]


@pytest.mark.parametrize("name", ["pool", "rejection", "walk"])
def test_what_is_drawn_is_in_the_region_not_taken_and_spread_over_it(name):
    taken = {row.tobytes() for row in INSIDE[:6]}
    drawn = _draws(name, 120, INSIDE[:6], taken, budget=256)
    counts = {row.tobytes(): 0 for row in INSIDE[6:]}
    for row in drawn:
        assert row is not None
        counts[row.tobytes()] += 1
    # 12 cells, 10 expected in each: chi-square with 11 degrees of freedom is below 35 but once in 4,000.
    assert sum((count - 10) ** 2 / 10 for count in counts.values()) < 35


@pytest.mark.parametrize("name", ["pool", "rejection", "walk"])
def test_a_ranking_picks_the_best_untaken_member(name):
    weights = 2.0 ** np.arange(12, dtype=np.float32)
    ranking = linear_margin(ENCODING, weights, 0.0)
    order = INSIDE[np.argsort(-ranking.of(ENCODING.encode(INSIDE)), kind="stable")]
    taken = {order[0].tobytes(), INSIDE[0].tobytes()}
    (drawn,) = _draws(name, 1, INSIDE[:1], taken, ranking, budget=4096)
    np.testing.assert_array_equal(drawn, order[1])


@pytest.mark.parametrize("name", ["pool", "rejection", "walk"])
def test_an_exhausted_region_yields_nothing(name):
    assert _draws(name, 1, INSIDE[:3], {row.tobytes() for row in INSIDE}) == [None]


def test_the_walk_needs_a_known_member_and_auto_needs_rejection_to_fail_first():
    outside = POOL[POOL[:, 0] == 1][:4]
    assert _draws("walk", 1, outside, set()) == [None]
    assert _draws("auto", 1, outside, set())[0] is not None
    # One member in 3^12: rejection has no hope, the walk crosses from the member next to it.
    large = dataclasses.replace(product_domain((3,) * 12, largest_pool=0))
    encoding = make_encoding(large, interactions=False)
    weights = np.zeros(36, np.float32)
    weights[::3] = 1.0
    region = (HalfSpace(linear_margin(encoding, weights, -10.5), True),)
    known = np.zeros((1, 12), np.int32)
    rejection = make_sampler(large, encoding, "rejection", candidates=8, budget=1024)
    assert rejection(np.random.default_rng(0), region, known, {known[0].tobytes()}, None) is None
    auto = make_sampler(large, encoding, "auto", candidates=8, budget=1024)
    drawn = auto(np.random.default_rng(0), region, known, {known[0].tobytes()}, None)
    assert drawn is not None and (drawn != 0).sum() == 1


def test_the_walk_runs_where_moves_are_made_on_the_host():
    host = dataclasses.replace(OPEN, jittable=False)
    sampler = make_sampler(host, ENCODING, "walk", candidates=4, budget=32)
    drawn = sampler(np.random.default_rng(0), REGION, INSIDE[:1], {INSIDE[0].tobytes()}, None)
    assert drawn is not None and drawn[0] == 0 and drawn[1] != 1


def test_the_pool_remembers_by_content_not_by_position():
    sampler = make_sampler(DOMAIN, ENCODING, "pool", candidates=1, budget=1)
    rng = np.random.default_rng(0)
    for option in range(3):
        for _ in range(2):
            drawn = sampler(rng, (_half(option),), POOL[:0], set(), None)
            assert drawn is not None and drawn[0] == option


def test_fallback_drops_the_deepest_half_then_tries_the_others_then_everything():
    sampler = make_sampler(DOMAIN, ENCODING, "pool", candidates=1, budget=1)
    rng = np.random.default_rng(0)
    # The last region is empty: no architecture has two options of one choice.
    regions = [REGION, (_half(1),), (_half(0), _half(1))]
    taken: set[bytes] = set()
    first_choice = []
    for _ in range(len(POOL)):
        drawn = draw_with_fallback(rng, regions, sampler, DOMAIN, POOL[:0], taken, None)
        assert drawn.tobytes() not in taken
        taken.add(drawn.tobytes())
        first_choice.append(tuple(drawn[:2]))
    assert all(first == 0 and second != 1 for first, second in first_choice[:18])
    assert all(first == 0 and second == 1 for first, second in first_choice[18:24])
    assert all(first == 1 for first, _ in first_choice[24:48])
    assert all(first == 2 for first, _ in first_choice[48:])
    again = draw_with_fallback(rng, regions, sampler, DOMAIN, POOL[:0], taken, None)
    assert again.tobytes() in taken


def test_without_a_pool_everything_in_reach_is_still_found():
    rng = np.random.default_rng(0)
    known, taken = POOL[:0], set()
    for _ in range(len(POOL)):
        drawn = draw_anywhere(rng, OPEN, known, taken)
        assert drawn.tobytes() not in taken
        taken.add(drawn.tobytes())
        known = np.concatenate([known, drawn[None]])
    assert draw_anywhere(rng, OPEN, known, taken).tobytes() in taken


def test_neighbours_are_the_last_resort_where_uniform_draws_only_repeat():
    stuck = dataclasses.replace(OPEN, sample=lambda key, n: jax.numpy.zeros((n, 4), jax.numpy.int32))
    zero = np.zeros((1, 4), np.int32)
    drawn = draw_anywhere(np.random.default_rng(0), stuck, zero, {zero[0].tobytes()})
    assert (drawn != 0).sum() == 1


def test_unknown_or_impossible_samplers_are_refused():
    with pytest.raises(UserError, match="did you mean 'walk'"):
        make_sampler(OPEN, ENCODING, "walks", candidates=1, budget=1)
    with pytest.raises(UserError, match="needs a space small enough"):
        make_sampler(OPEN, ENCODING, "pool", candidates=1, budget=1)
