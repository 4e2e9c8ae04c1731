"""Requests that were scored together are waited for again, but not for longer than asked, and never without need."""

import threading

import numpy as np
import pytest

from tfdetect.server.batcher import Batcher

FOREVER = 60.0


class Doubler:
    """A function of a batcher that notes how many rows it was called with."""

    def __init__(self):
        self.rows = []

    def __call__(self, inputs):
        self.rows.append(len(inputs["x"]))
        return {"y": 2 * inputs["x"]}, {"y"}


@pytest.fixture
def doubler():
    return Doubler()


@pytest.fixture
def batcher(request):
    batcher = Batcher(wait=getattr(request, "param", FOREVER))
    yield batcher
    batcher.close()


def ask(batcher, doubler, *numbers, key="k"):
    return [batcher.submit(key, doubler, {"x": np.array([number])}) for number in numbers]


def ask_together(batcher, doubler, *numbers, key="k"):
    """Ask while the thread is busy, so that it answers all at once."""
    gate = threading.Event()
    busy = batcher.run(gate.wait)
    futures = ask(batcher, doubler, *numbers, key=key)
    gate.set()
    busy.result(FOREVER)
    return answers(futures)


def answers(futures):
    return [future.result(FOREVER)["y"].item() for future in futures]


def test_requests_that_were_scored_together_are_scored_together_again(batcher, doubler):
    assert ask_together(batcher, doubler, 1, 2, 3) == [2, 4, 6]
    first = ask(batcher, doubler, 4, 5)
    assert not threading.Event().wait(0.1) and not any(future.done() for future in first)
    assert answers([*first, *ask(batcher, doubler, 6)]) == [8, 10, 12] and doubler.rows == [3, 3]


def test_a_single_client_never_waits(batcher, doubler):
    assert [answers(ask(batcher, doubler, number)) for number in (1, 2, 3)] == [[2], [4], [6]]


def test_nobody_waits_for_the_requests_of_another_model(batcher, doubler):
    ask_together(batcher, doubler, 1, 2, 3)
    assert answers(ask(batcher, doubler, 4, key="other")) == [8]
    assert answers(ask(batcher, doubler, 5)) == [10]


def test_a_request_of_another_model_ends_the_wait(batcher, doubler):
    ask_together(batcher, doubler, 1, 2, 3)
    assert answers([*ask(batcher, doubler, 4), *ask(batcher, doubler, 5, key="other")]) == [8, 10]


@pytest.mark.parametrize("batcher", [0.05], indirect=True)
def test_a_wait_ends_after_its_time_and_is_not_repeated(batcher, doubler):
    ask_together(batcher, doubler, 1, 2, 3)
    assert answers(ask(batcher, doubler, 4)) == [8] and doubler.rows == [3, 1]


def test_closing_answers_what_waits(doubler):
    batcher = Batcher(wait=FOREVER)
    ask_together(batcher, doubler, 1, 2, 3)
    waiting = ask(batcher, doubler, 4)
    batcher.close()
    assert waiting[0].done() and answers(waiting) == [8]
