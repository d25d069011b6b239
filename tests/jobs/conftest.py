"""What jobs of one test share, so that each of them is traced and compiled once."""

from typing import Any

import pytest

from parsec.jobs.search import problem


@pytest.fixture
def one_program(monkeypatch: pytest.MonkeyPatch) -> None:
    """Searches on shared weights have the first one's step: they may differ in seed, and in nothing it is made of."""
    make, made = problem.make_program, []

    def make_once(*given: Any) -> Any:
        if not made:
            made.append(make(*given))
        return made[0]

    monkeypatch.setattr(problem, "make_program", make_once)
