"""Tries many cases of a target: counts those that come out right or are refused, and keeps those that go wrong."""

from __future__ import annotations

import contextlib
import signal
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import hypothesis
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st

from alphafuse.errors import AlphafuseError

Outcome = Literal["right", "refused"]

CASE_SECONDS = 30
"""Seconds after which a case counts as hanging."""
LONGEST_MESSAGE = 3500
"""Characters that an error may have at most: more is no message to a person."""
LONGEST_FAULT = 4000
"""Characters of a fault that are kept."""


@dataclass(frozen=True)
class Target:
    """Something that reads files of a kind, and how to tell whether it has read them right.

    Attributes:
        cases: strategy of the cases.
        check: tries one case, in a folder of its own; returns its outcome, or raises an error that is no
            `AlphafuseError`: a fault.
    """

    name: str
    cases: st.SearchStrategy[Any]
    check: Callable[[Any, Path], Outcome]


@dataclass
class Tally:
    """Counts of the outcomes of a target's cases, and its faults."""

    outcomes: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)


def explore(target: Target, seed: int, examples: int, folder: Path, tally: Tally) -> None:
    """Try cases that are drawn from a seed, and add what became of them; a fault is kept as its smallest case."""

    @hypothesis.seed(seed)
    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
        report_multiple_bugs=False,
    )
    @hypothesis.given(target.cases)
    def attempt(case: Any) -> None:
        tally.outcomes[_outcome(target, case, folder)] += 1

    try:
        attempt()
    except Exception as error:
        case = "\n".join(getattr(error, "__notes__", []))
        trace = "".join(traceback.format_tb(error.__traceback__)[-3:])
        tally.outcomes["fault"] += 1
        fault = f"{target.name}, seed {seed}: {type(error).__name__}: {error}\n{case}\n{trace}"
        tally.faults.append(fault[:LONGEST_FAULT])


def refusal(error: AlphafuseError, *named: str) -> Outcome:
    """Check that an error says what is wrong, in one of the given names' terms; returns "refused"."""
    message = str(error)
    assert len(message) <= LONGEST_MESSAGE, f"a message of {len(message)} characters: {message[:300]}"
    assert not named or any(name in message for name in named), f"the message names none of {named}: {message}"
    return "refused"


def _outcome(target: Target, case: Any, folder: Path) -> Outcome:
    with _limited(CASE_SECONDS):
        return target.check(case, folder)


@contextlib.contextmanager
def _limited(seconds: int) -> Iterator[None]:
    """Raise TimeoutError in the block when it takes too long."""

    def stop(*_: object) -> None:
        raise TimeoutError(f"no end within {seconds} seconds")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
