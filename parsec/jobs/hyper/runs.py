"""The runs of a joint search, each resumed from a journal of its own.

A run lies in a folder under `searches`. Strategies that ask and are told are played as everywhere (`parsec.run.play`);
BULK&CUT writes a line for each network, after its weights, which its children begin with. A run that was killed
trains what was under way again, and nothing else.
"""

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from parsec.evaluate.contract import Pause
from parsec.evaluate.training import child_file
from parsec.files import writing
from parsec.hyper.bulk_and_cut import Member, Search, train_next
from parsec.hyper.evaluator import hyper_evaluator
from parsec.hyper.network import Variables
from parsec.hyper.space import HyperParameters
from parsec.jobs.hyper.problem import Problem
from parsec.keys import fold
from parsec.run.journal import JOURNAL, Journal
from parsec.run.ledger import Ledger, Rule
from parsec.run.lines import numbers, plain, read_lines
from parsec.run.play import play
from parsec.run.workdir import append
from parsec.search.contract import Strategy
from parsec.train.inherit import load_child, save_child

# Weights of the networks of a run of BULK&CUT, while it goes on.
CHILDREN = "children"
# Called after each network with the epochs that its run has spent.
Watch = Callable[[int], None]


class Network(NamedTuple):
    """A network that a run trained.

    Attributes:
      hyper: its hyper-parameters.
      epochs: that the run spent on it.
      lived: epochs that its weights were trained for, those that it inherited among them.
      scores: the objectives, higher is better, and its test accuracy, float64 [M + 1]; NaN where it diverged.
    """

    hyper: HyperParameters
    epochs: int
    lived: int
    scores: np.ndarray


def play_strategy(
    problem: Problem, name: str, strategy: Strategy, chooses: bool, seed: int, folder: Path, watch: Watch, pause: Pause
) -> list[Network]:
    """Returns the networks of one run of a strategy in the order in which they were trained.

    Args:
      problem: what is searched.
      name: the strategy's.
      strategy: told scaled scores.
      chooses: whether it chooses how long to train.
      seed: of the run.
      folder: of the run; made where it is missing.
      watch: called after each network.
      pause: called before each epoch; may raise.

    Raises:
      UserError: the journal is damaged or another run's, or cannot be written.
    """
    epochs = problem.domain.fidelities if chooses else (problem.longest,)
    rule, length = Rule(problem.total // problem.longest, "unique", epochs), len(problem.domain.sizes)
    evaluator = hyper_evaluator(problem.space, problem.task, problem.goals, epochs, seed)
    ledger = Ledger(rule, problem.domain, None, len(evaluator.objectives), name)
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)

    def seen(scores: np.ndarray) -> None:
        del scores
        watch(int(np.sum(np.asarray(rule.costs(ledger.finished().architectures)))))

    key = fold(jax.random.key(seed), "strategy")
    play(strategy, evaluator, ledger, key, journal=Journal(folder), watch=seen, pause=pause)
    rows, scores = ledger.finished()
    costs = np.asarray(rule.costs(rows)).tolist()
    return [
        Network(problem.space.decode(row[:length]), cost, cost, told)
        for row, cost, told in zip(rows, costs, scores, strict=True)
    ]


def play_bulk_and_cut(problem: Problem, seed: int, folder: Path, watch: Watch, pause: Pause) -> list[Network]:
    """Returns the networks of one run of BULK&CUT; see `play_strategy`."""
    search = Search(problem.space, problem.domain, problem.task, problem.goals, problem.longest, problem.total, seed)
    path, weights = folder / JOURNAL, folder / CHILDREN
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    members = read_lines(path, _parse, "a network of a journal")
    for end in range(1, len(members) + 1):
        watch(sum(member.epochs for member in members[:end]))

    def variables_of(number: int) -> Variables:
        return load_child(child_file(weights, number))

    while (trained := train_next(search, members, variables_of, pause)) is not None:
        member, variables = trained
        # Before the line is written, so that whoever reads it finds them.
        save_child(child_file(weights, len(members)), variables)
        append(path, json.dumps(_describe(member)) + "\n")
        members.append(member)
        watch(sum(each.epochs for each in members))
    # A run that is over has no more children.
    with writing(weights):
        shutil.rmtree(weights, ignore_errors=True)
    found: list[Network] = []
    for member in members:
        inherited = found[member.parent].lived if member.parent >= 0 else 0
        found.append(Network(member.hyper, member.epochs, inherited + member.epochs, member.scores))
    return found


def _describe(member: Member) -> dict[str, Any]:
    return {**member._asdict(), "hyper": asdict(member.hyper), "scores": plain(member.scores)}


def _parse(line: Mapping[str, Any]) -> Member:
    given: dict[str, Any] = {
        name: tuple(each) if isinstance(each, list) else each for name, each in line["hyper"].items()
    }
    hyper, scores = HyperParameters(**given), numbers(line["scores"])
    return Member(str(line["stage"]), int(line["parent"]), hyper, int(line["epochs"]), scores)
