"""Stages add up over threads and processes, each without the stages inside it, and cost nothing unless they are measured."""

import threading
import time

import pytest

from tfdetect import stages
from tfdetect.data import worker_processes
from tfdetect.data.worker_pool import map_unordered


def sleep(seconds):
    """Sleep in a stage inside another one."""
    with stages.stage("outer"):
        time.sleep(seconds)
        with stages.stage("inner"):
            time.sleep(2 * seconds)


def test_nothing_is_measured_by_default():
    sleep(0.0)
    assert not stages.active() and stages.take() == {}


def test_a_stage_does_not_contain_the_stages_inside_it():
    start = time.perf_counter()
    with stages.measuring():
        sleep(0.1)
        found = stages.take()
    assert found["outer"] >= 0.1 and found["inner"] >= 0.2 and sum(found.values()) <= time.perf_counter() - start


def test_threads_add_up():
    with stages.measuring():
        threads = [threading.Thread(target=sleep, args=(0.1,)) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert stages.take()["outer"] >= 0.3


def test_worker_processes_report_their_stages(monkeypatch):
    """Also where some that were started before, and do not measure, wait for the next call."""
    monkeypatch.setattr(worker_processes, "_idle", [])
    assert list(map_unordered([0.0], sleep, workers=2)) and len(worker_processes._idle) == 1
    with stages.measuring():
        assert len(list(stages.waiting(map_unordered([0.1] * 3, sleep, workers=2)))) == 3
        found = stages.take()
    worker_processes.end_idle_processes()
    assert found["outer"] >= 0.3 and found["inner"] >= 0.6 and found["wait"] > 0.3


def test_a_stage_that_fails_ends():
    with stages.measuring():
        with pytest.raises(ValueError), stages.stage("failed"):
            raise ValueError
        sleep(0.0)
        assert set(stages.take()) == {"failed", "outer", "inner"}
