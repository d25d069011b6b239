"""The benchmark of transfer: what its priors are told, where a search from them begins, and what a saving is."""

import jax
import numpy as np
import pytest

from benchmarks.transfer import STARTS, Start, learn_prior, savings, search, text
from parsec.evaluate.table import table_evaluator
from parsec.keys import fold
from parsec.tables.table import make_table, table_domain

ROWS = np.stack(np.unravel_index(np.arange(64), (4, 4, 4)), 1)
# An architecture is as good as its options' numbers add up to.
TABLE = make_table("toy", np.array([4, 4, 4]), ROWS, {"score": ROWS.sum(1).astype(float)})
DOMAIN, EVALUATOR = table_domain(TABLE), table_evaluator(TABLE, ("score",))
KEYS = jax.random.split(fold(jax.random.key(0), "test"), 8)


@pytest.mark.parametrize(
    ("name", "told", "best"),
    [("parsec", "learnt", 3), ("parsec", "wrong", 0), ("parsec_replay", "wrong", 0), ("additive", "wrong", 0)],
)
def test_a_prior_is_learnt_from_the_scores_or_their_negatives(name: str, told: str, best: int):
    logits = learn_prior(name, KEYS, EVALUATOR, DOMAIN, told, {"parsec": 60, "parsec_replay": 12}.get(name, 4))
    assert (logits.argmax(-1) == best).mean() > 0.9


def test_shuffled_scores_teach_nothing_about_which_options_are_good():
    modes = learn_prior("parsec", KEYS, EVALUATOR, DOMAIN, "shuffled", 60).argmax(-1)
    assert 0.5 < modes.mean() < 2.5


def test_a_search_begins_at_its_prior_and_stays_there_where_the_trust_radius_is_zero():
    logits = np.zeros((8, 3, 4), np.float32)
    logits[..., 2] = 20
    first = search("parsec", KEYS, EVALUATOR, DOMAIN, logits, Start("learnt"), 16)[:, 0]
    assert (ROWS[first] == 2).all()
    held = search("parsec", KEYS, EVALUATOR, DOMAIN, logits, Start("learnt", 0.0, 0.0), 16)
    assert (held[:, 1:] == -1).all()
    mixed = search("parsec", KEYS, EVALUATOR, DOMAIN, logits, Start("learnt", 1.0), 16)
    assert (mixed >= 0).all()


def test_a_saving_is_the_queries_to_the_fresh_level_over_the_fresh_ones():
    fresh = np.linspace(0.005, 1, 200)
    curves = {"fresh": fresh, "twice as fast": np.minimum(2 * fresh, 1), "never": np.zeros(200)}
    found = savings(curves, "fresh", (50, 100, 200, 400))
    assert found["fresh"] == {"50": 1.0, "100": 1.0, "200": 1.0}
    assert found["twice as fast"] == {"50": 0.5, "100": 0.5, "200": 0.5}
    assert found["never"] == {"50": None, "100": None, "200": None}
    row = {"test": {"50": 1.5}, "deviation": 0.25, "saving": {"50": None}}
    assert text({"x": row}).splitlines()[-1] == "| x | 1.50 | 0.25 | never |"


def test_the_starts_are_told_apart_and_the_first_has_no_prior():
    assert len({str(start) for start in STARTS}) == len(STARTS) and str(STARTS[0]) == "no prior"
