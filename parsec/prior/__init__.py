"""The categorical prior over architectures, importance weights, and the empirical-Bayes update."""

from parsec.prior.categorical import entropy, log_probability, mode, probabilities, sample, sample_stratified
from parsec.prior.importance import effective_sample_size, importance_weights, reduce_likelihood
from parsec.prior.update import (
    PriorState,
    PriorUpdate,
    adam_update,
    adaptive_count,
    natural_update,
    trust_initial,
)

__all__ = [
    "PriorState",
    "PriorUpdate",
    "adam_update",
    "adaptive_count",
    "effective_sample_size",
    "entropy",
    "importance_weights",
    "log_probability",
    "mode",
    "natural_update",
    "probabilities",
    "reduce_likelihood",
    "sample",
    "sample_stratified",
    "trust_initial",
]
