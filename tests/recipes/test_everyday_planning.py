"""Plans of scenes say truly what is heard when, and tell nothing of what could be anything."""

import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest


sys.path.insert(0, str(Path(__file__).parents[2] / "recipes"))

from everyday_bank import Recording
from everyday_planning import PATCH, Plan, Planner


RATE = 16_000
ROWS = 16  # of a window of 2.56 s
KINDS = {  # kind, tags, voice
    "dog": ((0, 1), False),
    "man": ((2,), True),
    "rain": ((3,), False),
    "siren": ((4, 5), False),
    "silence": ((6,), False),
    "": (None, True),
}


@pytest.fixture(scope="module")
def recordings() -> list[Recording]:
    """Three recordings of each kind, of 0.3 to 4 s."""
    found: list[Recording] = []
    for number in range(18):
        kind = list(KINDS)[number % len(KINDS)]
        first = found[-1].first + found[-1].length if found else 0
        found.append(Recording(kind, *KINDS[kind], first, int((0.3 + 0.22 * number) * RATE)))
    return found


@pytest.fixture(scope="module")
def plans(recordings: list[Recording]) -> list[Plan]:
    planner = Planner(recordings, tags=7, batch=30, samples=ROWS * PATCH)
    return [planner.plan(np.random.default_rng(seed)) for seed in range(10)]


def recording_of(base: int, recordings: list[Recording]) -> Recording:
    return next(one for one in recordings if one.first <= base < one.first + one.length)


def events_in(plan: Plan, window: int) -> list[int]:
    """The numbers of the events of a window that are heard."""
    return np.flatnonzero((plan.events.window == window) & (plan.events.gain > 0)).tolist()


def heard_in(plan: Plan, span: np.ndarray) -> list[int]:
    """The numbers of the events heard in the middle of a span, which rounding to rows does not reach."""
    window, first, end = span
    middle = (first + end) / 2 * PATCH
    return [one for one in events_in(plan, window) if plan.events.start[one] <= middle < plan.events.end[one]]


def test_events_and_spans_lie_in_their_window_and_recording(plans: list[Plan], recordings: list[Recording]) -> None:
    for plan in plans:
        assert len(plan.lengths) == 30 and set(plan.events.window) == set(range(30))
        assert ((plan.lengths >= 0.4 * RATE) & (plan.lengths <= ROWS * PATCH)).all()
        assert (plan.lengths < RATE).any()  # as some files are, too
        assert (plan.events.start >= 0).all() and (plan.events.length > 0).all()
        assert len(plan.events.gain) % 32 == 0 and plan.events.curve.shape == (len(plan.events.gain), 10)
        for event in np.flatnonzero(plan.events.gain):
            assert plan.events.end[event] <= plan.lengths[plan.events.window[event]]
            recording = recording_of(plan.events.base[event], recordings)
            assert plan.events.base[event] + plan.events.used[event] <= recording.first + recording.length
            assert plan.events.period[event] >= plan.events.used[event]
        window, first, end = plan.spans.T
        assert ((first >= 0) & (first < end) & (end <= -(-plan.lengths[window] // PATCH))).all()


def test_labels_are_those_of_what_is_heard(plans: list[Plan], recordings: list[Recording]) -> None:
    several = 0
    for plan in plans:
        for span, labels, known in zip(plan.spans, plan.labels, plan.known, strict=True):
            expected: set[int] = set()
            heard = heard_in(plan, span)
            for event in heard:
                if plan.events.gain[event] > 10 ** (-14 / 20):
                    expected |= set(recording_of(plan.events.base[event], recordings).tags or ())
            assert heard and set(np.flatnonzero(labels)) <= expected
            assert not known or set(np.flatnonzero(labels)) == expected
            several += known and len(heard) > 1
    assert several > 30


def test_what_could_be_anything_is_not_labelled(plans: list[Plan], recordings: list[Recording]) -> None:
    seen = dict.fromkeys(("backwards", "shifted", "unknown"), 0)
    for plan in plans:
        for span, labels, known in zip(plan.spans, plan.labels, plan.known, strict=True):
            heard = heard_in(plan, span)
            for event in heard:
                recording = recording_of(plan.events.base[event], recordings)
                reasons = {
                    "backwards": plan.events.backwards[event],
                    "shifted": abs(np.log2(plan.events.speed[event])) > (0.06 if recording.voice else 0.3),
                    "unknown": recording.tags is None,
                }
                for reason in (name for name, is_so in reasons.items() if is_so):
                    seen[reason] += 1
                    assert not known and (len(heard) > 1 or not labels.any())
    assert min(seen.values()) > 10


def test_silence_is_alone_and_nothing_is_added(plans: list[Plan], recordings: list[Recording]) -> None:
    found = 0
    for plan in plans:
        for event in np.flatnonzero(plan.events.silent):
            assert events_in(plan, plan.events.window[event]) == [event] and plan.events.echo[event] == 0
            assert recording_of(plan.events.base[event], recordings).kind == "silence"
            found += 1
    assert found > 10


def test_no_kind_is_in_a_scene_twice(recordings: list[Recording]) -> None:
    planner, rng = Planner(recordings, tags=7, batch=1, samples=ROWS * PATCH), np.random.default_rng(0)
    draws = [[one.kind for one in planner.draw_recordings(3, rng) if one.kind] for _ in range(100)]
    assert all(len(kinds) == len(set(kinds)) for kinds in draws) and max(map(len, draws)) == 3


def test_in_turn_is_one_after_another(recordings: list[Recording]) -> None:
    planner, rng = Planner(recordings, tags=7, batch=1, samples=ROWS * PATCH), np.random.default_rng(0)
    for _ in range(50):
        heard = planner.place(0, recordings[:3], at_once=False, longest=ROWS * PATCH, rng=rng)
        assert all(after.event.start >= before.event.end for before, after in pairwise(heard))


def test_one_seed_gives_one_plan(recordings: list[Recording]) -> None:
    planner = Planner(recordings, tags=7, batch=5, samples=ROWS * PATCH)
    first, again, other = (planner.plan(np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert all(np.array_equal(*pair) for pair in zip(first.events, again.events, strict=True))
    assert not np.array_equal(first.peaks, other.peaks)
