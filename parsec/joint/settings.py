"""The options of joint searches, in groups that several of them share.

Defaults are PARSEC's published constants where they are known (Casale, Gordon, Fusi 2019, arXiv 1902.05116).
"""

from dataclasses import dataclass

from parsec.config import option


@dataclass(frozen=True)
class SamplerSettings:
    """How many children estimate a step."""

    budget: str = option("fixed", "fixed K, or adaptive to the prior's entropy", choices=("fixed", "adaptive"))
    num_children: int = option(16, "K of fixed, and the largest K of adaptive", minimum=2)
    stratified: bool = option(False, "whether the children of a step cover each choice evenly")
    children_per_nat: float = option(0.25, "lambda of adaptive: K = max(2, ceil(lambda * entropy))", minimum=0)
    groups: int = option(
        1,
        "that config.devices form, each of which runs its share of a step's children; divides both",
        minimum=1,
        affects_results=False,
    )


@dataclass(frozen=True)
class LikelihoodSettings:
    """How a child's log-likelihood becomes its weight."""

    reduction: str = option("sum", "of log p over the batch", choices=("sum", "mean", "tempered"))
    temperature: float = option(8.0, "that tempered divides the sum by", minimum=1e-6)
    ess_floor: float = option(
        0.0, "share of the children that tempered keeps the effective sample size above", minimum=0, maximum=1
    )
    child_weights: str = option(
        "train",
        "what weights the children in the weights' gradient: their likelihood on the training batch, on the validation "
        "batch, or nothing",
        choices=("train", "valid", "uniform"),
    )


@dataclass(frozen=True)
class PriorSettings:
    """How the prior learns."""

    update: str = option("adam", "adam on the logits, or the natural-gradient step", choices=("adam", "natural"))
    learning_rate: float = option(0.01, "of adam, or the step size of natural", minimum=0)
    b1: float = option(0.9, "decay of adam's first moment", minimum=0, maximum=1)
    warmup: float = option(
        0.0,
        "share of the steps in which the prior rests, uniform or as carried over, and all its children weigh the same",
        minimum=0,
        maximum=1,
    )
    initial: str = option("", "a finished run's directory, or its prior.json, whose prior this search starts from")
    sharpness: float = option(
        1.0, "factor on the log-probabilities of the initial prior; below 1 opens it up again", minimum=0
    )
    mixture: float = option(
        0.0,
        "share of the uniform distribution that is mixed into the initial prior, so that no option is out of reach",
        minimum=0,
        maximum=1,
    )
    trust_radius: float | None = option(
        None,
        "strength of the trust term towards the initial prior, -KL(prior || initial) / trust_radius: 0 keeps that "
        "fixed, 1 lets adam move a logit by about 1, inf (none) learns freely",
        minimum=0,
    )


@dataclass(frozen=True)
class JointSettings:
    """Everything a joint search is told."""

    sampler: SamplerSettings = option(SamplerSettings(), "")
    likelihood: LikelihoodSettings = option(LikelihoodSettings(), "")
    prior: PriorSettings = option(PriorSettings(), "")
