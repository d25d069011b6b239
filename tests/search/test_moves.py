"""One-decision changes, and valid draws from a factorised prior."""

import jax
import jax.numpy as jnp
import numpy as np

from parsec.cells.domain import Domain, one_change, product_domain
from parsec.search.contract import count_failed, proposed
from parsec.search.factorised import draw_valid, is_product
from parsec.search.moves import mutate_each
from parsec.tables.table import make_table, table_domain

SIZES = (3, 1, 4, 2)


def gaps() -> Domain:
    rows = np.stack(np.unravel_index(np.arange(24), SIZES), 1)
    rows = rows[rows[:, 0] != rows[:, 3]]
    return table_domain(make_table("gaps", np.array(SIZES), rows, {"score": np.arange(len(rows))}))


def test_one_change_finds_exactly_the_neighbours() -> None:
    domain = product_domain(SIZES)
    assert domain.pool is not None
    changed = jax.jit(one_change(SIZES))
    for architecture in domain.pool[::5]:
        expected = {tuple(row) for row in domain.neighbours(architecture).tolist()}
        found = [tuple(row) for row in np.asarray(changed(architecture)).tolist()]
        assert len(found) == len(expected) and set(found) == expected


def test_draws_follow_the_prior_conditioned_on_validity(key: jax.Array) -> None:
    domain = gaps()
    assert domain.pool is not None and not is_product(domain) and is_product(product_domain(SIZES))
    logits = jax.random.normal(key, domain.mask.shape)
    drawn = np.asarray(draw_valid(domain)(key, logits, 6000))
    assert np.asarray(domain.valid(drawn)).all()
    logp = np.asarray(jax.nn.log_softmax(jnp.where(domain.mask, logits, -jnp.inf)))
    mass = np.exp(logp[np.arange(len(SIZES)), domain.pool].sum(1))
    expected = mass / mass.sum()
    codes = {tuple(row): at for at, row in enumerate(domain.pool.tolist())}
    counts = np.bincount([codes[tuple(row)] for row in drawn.tolist()], minlength=len(expected))
    deviation = np.sqrt(expected * (1 - expected) / len(drawn))
    assert (np.abs(counts / len(drawn) - expected) < 5 * deviation + 1e-4).all()


def test_a_prior_without_valid_mass_still_draws_valid_architectures(key: jax.Array) -> None:
    domain = gaps()
    # All the mass lies on option 0 of both choices that must differ.
    logits = jnp.zeros(domain.mask.shape).at[:, 0].set(60.0)
    drawn = np.asarray(draw_valid(domain)(key, logits, 64))
    assert np.asarray(domain.valid(drawn)).all() and len(np.unique(drawn, axis=0)) > 4


def test_mutations_are_neighbours_on_jittable_and_host_domains(key: jax.Array) -> None:
    domain = gaps()
    for each in (domain, Domain(**{**vars(domain), "jittable": False})):
        parents = jnp.asarray(domain.sample(key, 20))
        children = np.asarray(mutate_each(each, key, parents))
        assert ((children != np.asarray(parents)).sum(1) == 1).all()
        assert np.asarray(domain.valid(children)).all()


def test_rows_of_minus_one_propose_nothing_and_do_not_fail() -> None:
    architectures = jnp.array([[0, 1], [-1, -1], [1, 0]])
    scores = jnp.array([[jnp.nan], [jnp.nan], [0.5]])
    assert proposed(architectures).tolist() == [True, False, True]
    assert int(count_failed(architectures, scores)) == 1
