"""PARSEC with a sample budget that follows the prior's entropy: many children while undecided, two at the end.

K = max(2, ceil(lambda * H)) after FP-NAS (Yan et al., CVPR 2021, arXiv 2011.10949), with H in nats. The arrays keep the
shape of the largest K and unused rows are -1, so one compiled program serves every K.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np

from parsec import prior
from parsec.cells.domain import ArrayLike, Domain
from parsec.errors import UserError
from parsec.search.contract import Info, Strategy
from parsec.search.factorised import draw_valid
from parsec.search.parsec import ParsecState, check, initial, learn


def make(
    domain: Domain, *, children_per_nat: float = 1.0, learning_rate: float = 0.1, temperature: float = 0.5
) -> Strategy:
    """Returns PARSEC with K = max(2, ceil(children_per_nat * entropy)) children per ask.

    Args:
      domain: the search space; in one with invalid combinations the prior is conditioned on validity.
      children_per_nat: FP-NAS's lambda. It used 1/4 in spaces of about 50 nats, which is K = 13; a space of 6 choices
        has 10 nats, where 1/4 would leave three children to compare.
      learning_rate: of Adam on the logits.
      temperature: of the weights, in units of the children's recent mean absolute deviation; see
        `parsec.search.parsec`.

    Raises:
      UserError: if an option is out of range.
    """
    check("parsec_adaptive", learning_rate, temperature)
    if children_per_nat <= 0:
        raise UserError(f"option children_per_nat of parsec_adaptive is {children_per_nat}; it must be above 0")
    largest = max(2, math.ceil(children_per_nat * float(np.log(domain.sizes).sum())))
    draw = draw_valid(domain)

    def init(key: jax.Array) -> ParsecState:
        del key
        return initial(domain, learning_rate)

    def ask(key: jax.Array, state: ParsecState) -> tuple[jax.Array, ParsecState]:
        logits = state.prior.logits
        used = jnp.arange(largest) < prior.adaptive_count(logits, domain.mask, children_per_nat, largest)
        return jnp.where(used[:, None], draw(key, logits, largest), -1), state

    def tell(state: ParsecState, architectures: ArrayLike, scores: ArrayLike) -> tuple[ParsecState, Info]:
        state, info = learn(state, architectures, scores, domain.mask, learning_rate, temperature)
        return state, info | {"children": (jnp.asarray(architectures)[:, 0] >= 0).sum(dtype=jnp.int32)}

    return Strategy(init, ask, tell, domain.jittable)
