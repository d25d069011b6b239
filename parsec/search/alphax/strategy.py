"""AlphaX: Monte Carlo tree search over decisions, with a Meta-DNN for most of its rollouts.

Wang, Zhao, Jinnai, Tian and Fonseca 2020, https://arxiv.org/abs/1903.11059. One proposal walks the tree by UCT to a
node with edges to expand, expands one, and completes it to an architecture that is evaluated. What is backed up is half
that architecture's value and half the mean of k further completions that only the Meta-DNN answers. The backup has two
phases: `ask` backs up the prediction at once, so that the tree moves on while evaluations are under way, and `tell`
swaps the true value in without counting a second visit.

Where this differs from the paper by default (`preset="paper"` undoes the first four):
- Values are quantiles among the scores so far, so that one exploration constant fits every space and metric.
- Selection looks ahead: the value of an edge is half what was backed up through it and half the best prediction among
  a few new completions below it.
- The evaluated completion is the best predicted of those few.
- An edge that was never visited competes with its node's mean value instead of always going first.
- Predictions are used only while the Meta-DNN beats a constant on held-out architectures; until then a rollout is the
  evaluated one alone, and the first phase backs up the parent's mean.
- Illegal actions are masked, statistics live on edges, and no architecture is proposed twice: subtrees that were
  proposed completely are closed. Once nothing is left, the best architecture is proposed again.

The state is numpy arrays. `ask` and `tell` copy what they change, so that an older state stays valid.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from parsec.cells.domain import ArrayLike, Domain
from parsec.search.alphax import tree as trees
from parsec.search.alphax.lookahead import Draw, Drawn, best_below, remembered_draws
from parsec.search.alphax.meta_dnn import MetaDNN, Training, new_meta_dnn, predict, train
from parsec.search.alphax.records import DONE, FAILED, PENDING, Records, add, no_records, rows_of, rows_of_hashes
from parsec.search.alphax.rollouts import sample_completions, unseen_completions
from parsec.search.alphax.settings import Settings
from parsec.search.alphax.values import VALUES, Values
from parsec.search.contract import Info, Strategy

# Random completions tried before the subtree is searched for one that is new.
_TRIES = 4
# Prefixes whose legal actions are remembered.
_REMEMBERED_PREFIXES = 200_000


class State(NamedTuple):
    """The state of a run.

    Attributes:
      tree: prefixes and the statistics of their edges.
      records: every architecture proposed.
      meta: the Meta-DNN.
      scale: float64 [n], the sorted scores that values are measured against.
      key: uint32 [2], key data from which every training draws.
    """

    tree: trees.Tree
    records: Records
    meta: MetaDNN
    scale: np.ndarray
    key: np.ndarray


class _Problem(NamedTuple):
    """What a domain and the settings amount to; closed over by the three functions."""

    settings: Settings
    values: Values
    training: Training
    features: Callable[[ArrayLike], ArrayLike]
    options: trees.Options
    length: int
    draw: Draw


def make(domain: Domain, settings: Settings = Settings()) -> Strategy:
    """Returns AlphaX for a domain."""

    @lru_cache(maxsize=_REMEMBERED_PREFIXES)
    def options(prefix: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(np.flatnonzero(domain.legal(prefix)).tolist())

    length = len(domain.sizes)
    training = Training((settings.width, settings.width), settings.members, settings.steps)
    count = max(settings.candidates, settings.rollouts)
    problem = _Problem(
        settings=settings,
        values=VALUES[settings.values],
        training=training,
        features=domain.features,
        options=options,
        length=length,
        draw=remembered_draws(options, domain.features, training, length, count),
    )

    def init(key: jax.Array) -> State:
        weights, trainings = jax.random.split(key)
        return State(
            tree=trees.new_tree(length, max(domain.sizes), options),
            records=no_records(problem.length),
            meta=new_meta_dnn(weights, domain.features, length, training),
            scale=np.zeros(0, np.float64),
            key=np.asarray(jax.random.key_data(trainings)),
        )

    def ask(key: jax.Array, state: State) -> tuple[np.ndarray, State]:
        rng = np.random.default_rng(np.asarray(jax.random.key_data(key)))
        state = state._replace(tree=trees.Tree(*map(np.array, state.tree)))
        proposed = []
        for _ in range(settings.batch):
            architecture, state = _propose(problem, rng, state)
            proposed.append(architecture)
        return np.stack(proposed), state

    def tell(state: State, architectures: ArrayLike, scores: ArrayLike) -> tuple[State, Info]:
        return _tell(problem, state, np.asarray(architectures, np.int32), np.asarray(scores, np.float64)[:, 0])

    return Strategy(init, ask, tell, jittable=False)


def _propose(problem: _Problem, rng: np.random.Generator, state: State) -> tuple[np.ndarray, State]:
    """Returns one architecture int32 [L] and the state after the first phase of its backup; writes into the tree."""
    settings, values, tree = problem.settings, problem.values, state.tree
    found = _completion(problem, rng, state)
    if found is None:
        return _best_known(state.records), state
    node, architecture, prediction = found
    action = int(architecture[tree.depth[node]])
    value, rollout = _node_mean(problem, state, node), np.nan
    tree, leaf = trees.expand(tree, node, action, problem.options)
    terminal = int(tree.depth[leaf]) == problem.length
    if terminal:
        trees.close(tree, node, action)
    if state.meta.trusted:
        if prediction is None:
            prediction = float(predict(state.meta, problem.features, architecture[None], problem.training).mean())
        value = float(values.of_predictions(state.scale, np.array([prediction]))[0])
        if settings.rollouts and not terminal:
            answers = problem.draw(state.meta, trees.prefix_of(tree, leaf), 0).predictions[: settings.rollouts]
            rollout = float(values.of_predictions(state.scale, answers).mean())
            value = settings.rollout_weight * value + (1.0 - settings.rollout_weight) * rollout
    trees.back_up(tree, leaf, value, 1)
    return architecture, state._replace(tree=tree, records=add(state.records, architecture, value, rollout, leaf))


def _completion(
    problem: _Problem, rng: np.random.Generator, state: State
) -> tuple[int, np.ndarray, float | None] | None:
    """Walks the tree and completes the edge it ends at; edges found to hold nothing new are closed, in place.

    Returns:
      The node, a new completion of an edge to expand, int32 [L], and its prediction where it was chosen by one; None
      once nothing is left.
    """
    tree, settings, length = state.tree, problem.settings, problem.length
    guided = state.meta.trusted and settings.candidates > 1

    def new(rows: np.ndarray) -> np.ndarray:
        return rows_of(state.records, rows) < 0

    def drawn_at(node: int) -> tuple[Drawn, np.ndarray]:
        drawn = problem.draw(state.meta, trees.prefix_of(tree, node), int(tree.visits[node].sum()))
        return drawn, rows_of_hashes(state.records, drawn.hashes) < 0

    def outlook(node: int, actions: np.ndarray) -> np.ndarray:
        best = best_below(*drawn_at(node), int(tree.depth[node]), actions)
        known = np.isfinite(best)
        best[known] = problem.values.of_predictions(state.scale, best[known])
        return best

    while tree.open[0].any():
        node, actions = trees.select(
            tree,
            rng,
            exploration=settings.exploration,
            bounds=problem.values.bounds(state.scale),
            first_play=settings.first_play,
            outlook=outlook if guided and settings.outlook_weight > 0 else None,
            outlook_weight=settings.outlook_weight,
            depth=settings.depth,
        )
        if guided:
            drawn, fresh = drawn_at(node)
            fresh = fresh & (drawn.rows[:, tree.depth[node], None] == actions).any(1)
            if fresh.any():
                at = int(np.where(fresh, drawn.predictions, -np.inf).argmax())
                return node, drawn.rows[at], float(drawn.predictions[at])
        prefix = trees.prefix_of(tree, node)
        tries = [(*prefix, int(action)) for action in rng.choice(actions, _TRIES)]
        rows = sample_completions(rng, problem.options, tries, length)
        rows = rows[new(rows)]
        if len(rows):
            return node, rows[0], None
        for action in rng.permutation(actions):
            rows = unseen_completions(problem.options, (*prefix, int(action)), length, lambda r: ~new(r), 1)
            if len(rows):
                return node, rows[0], None
            trees.close(tree, node, int(action))
    return None


def _node_mean(problem: _Problem, state: State, node: int) -> float:
    visits = int(state.tree.visits[node].sum())
    return float(state.tree.totals[node].sum()) / visits if visits else problem.values.middle(state.scale)


def _best_known(records: Records) -> np.ndarray:
    scores = np.where(records.status == DONE, records.scores, -np.inf)
    return records.architectures[int(scores.argmax())]


def _tell(problem: _Problem, state: State, architectures: np.ndarray, scores: np.ndarray) -> tuple[State, Info]:
    tree = state.tree._replace(visits=state.tree.visits.copy(), totals=state.tree.totals.copy())
    for architecture in architectures[rows_of(state.records, architectures) < 0]:
        # Told without being asked for: the Meta-DNN learns from it, the tree has no walk to credit.
        if rows_of(state.records, architecture[None])[0] < 0:
            state = state._replace(records=add(state.records, architecture, np.nan, np.nan, -1))
    old = state.records
    records = old._replace(scores=old.scores.copy(), values=old.values.copy(), status=old.status.copy())
    for row, score in zip(rows_of(records, architectures).tolist(), scores.tolist(), strict=True):
        if records.status[row] != PENDING:
            continue
        leaf = int(records.leaves[row])
        if not np.isfinite(score):
            records.status[row] = FAILED
            if leaf >= 0:
                trees.back_up(tree, leaf, -float(records.values[row]), -1)
            continue
        records.status[row] = DONE
        records.scores[row] = score
        if leaf >= 0:
            value = float(_value(problem, state.scale, records.scores[[row]], records.rollouts[[row]])[0])
            trees.back_up(tree, leaf, value - float(records.values[row]), 0)
            records.values[row] = value
    state = state._replace(tree=tree, records=records)
    done = records.status == DONE
    count = int(done.sum())
    settings = problem.settings
    due = count >= settings.first_training and count - int(state.meta.rows) >= max(
        settings.retrain_every, settings.retrain_growth * count
    )
    if count and (due or count < settings.first_training):
        state = _rescale(problem, state, done)
    if due:
        key = jax.random.fold_in(jax.random.wrap_key_data(jnp.asarray(state.key)), count)
        targets = problem.values.targets(state.scale, records.scores[done])
        # A row's fold is its place in the order of proposal, which never changes.
        folds = (np.flatnonzero(done) % settings.members).astype(np.int32)
        meta = train(key, state.meta, problem.features, records.architectures[done], targets, folds, problem.training)
        state = state._replace(meta=meta)
    return state, {
        "best": float(records.scores[done].max()) if count else float("nan"),
        "failed": int((~np.isfinite(scores)).sum()),
        "nodes": int(state.tree.size),
        "trusted": state.meta.trusted,
        "rank_correlation": float(state.meta.correlation),
        "gain_over_constant": float(state.meta.gain),
    }


def _rescale(problem: _Problem, state: State, done: np.ndarray) -> State:
    """Returns the state measured against all scores so far; writes into the records' values and the tree."""
    records = state.records
    scale = np.sort(records.scores[done])
    if problem.values.moves:
        records.values[done] = _value(problem, scale, records.scores[done], records.rollouts[done])
        counted = (records.status != FAILED) & (records.leaves >= 0)
        trees.rebuild(state.tree, records.leaves[counted], records.values[counted])
    return state._replace(scale=scale)


def _value(problem: _Problem, scale: np.ndarray, scores: np.ndarray, rollouts: np.ndarray) -> np.ndarray:
    own = problem.values.of_scores(scale, scores)
    weight = problem.settings.rollout_weight
    return np.where(np.isnan(rollouts), own, weight * own + (1.0 - weight) * np.nan_to_num(rollouts))
