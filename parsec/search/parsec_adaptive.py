"""PARSEC with a sample budget that follows the prior's entropy: many children while undecided, two at the end.

K = max(2, ceil(lambda * H)) after FP-NAS (Yan et al., CVPR 2021, arXiv 2011.10949), with H in nats. The arrays keep the
shape of the largest K and unused rows are -1, so one compiled program serves every K.
"""

import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from parsec import prior
from parsec.cells.domain import ArrayLike, Domain
from parsec.config import option
from parsec.search.contract import Info, Strategy
from parsec.search.factorised import draw_valid
from parsec.search.parsec import ParsecState, initial, learn, make_update


@dataclass(frozen=True)
class Settings:
    """The options of adaptive PARSEC.

    FP-NAS's lambda is 1/4, in spaces of about 50 nats, which is K = 13. A space of 6 choices has 10 nats, where 1/4
    would leave three children to compare.
    """

    children_per_nat: float = option(
        1.0, "FP-NAS's lambda, children for each nat of entropy", minimum=1e-6, maximum=100
    )
    learning_rate: float = option(0.1, "of Adam on the logits", minimum=1e-9, maximum=1000)
    temperature: float = option(
        0.5, "T in units of the children's recent mean absolute deviation", minimum=1e-6, maximum=1e6
    )
    trust_radius: float | None = option(
        None, "strength of the trust term towards the initial prior: 0 keeps that fixed, inf (none) is free", minimum=0
    )


def make(domain: Domain, settings: Settings = Settings()) -> Strategy:
    """Returns PARSEC with K = max(2, ceil(children_per_nat * entropy)) children per ask; see `parsec.search.parsec`.

    In a domain with invalid combinations the prior is conditioned on validity.
    """
    children_per_nat = settings.children_per_nat
    largest = max(2, math.ceil(children_per_nat * float(np.log(domain.sizes).sum())))
    draw = draw_valid(domain)
    update = make_update(domain, settings.learning_rate, settings.trust_radius)

    def init(key: jax.Array) -> ParsecState:
        del key
        return initial(domain, update)

    def ask(key: jax.Array, state: ParsecState) -> tuple[jax.Array, ParsecState]:
        logits = state.prior.logits
        used = jnp.arange(largest) < prior.adaptive_count(logits, domain.mask, children_per_nat, largest)
        return jnp.where(used[:, None], draw(key, logits, largest), -1), state

    def tell(state: ParsecState, architectures: ArrayLike, scores: ArrayLike) -> tuple[ParsecState, Info]:
        state, info = learn(state, architectures, scores, domain.mask, update, settings.temperature)
        return state, info | {"children": (jnp.asarray(architectures)[:, 0] >= 0).sum(dtype=jnp.int32)}

    return Strategy(init, ask, tell, domain.jittable)
