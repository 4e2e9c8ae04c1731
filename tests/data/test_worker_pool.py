"""The pool: a crash, a hang or a memory bomb costs one item; an error of the work ends it; the input may be endless."""

import itertools
import os
import subprocess
import sys
import time

import pytest

from tfdetect import machine
from tfdetect.data import deadline
from tfdetect.data.worker_pool import WorkerFailure, map_unordered


def double(number):
    if number % 10 == 3:
        os.abort()
    if number % 20 == 7:
        time.sleep(1000)
    if number % 20 == 9:
        raise MemoryError
    return 2 * number


def fail_at_five(number):
    if number == 5:
        raise OSError("the disk is full")
    return number


def crash(_):
    os._exit(1)


def test_every_item_comes_out_once_whatever_became_of_it():
    found = dict(map_unordered(range(40), double, 2, 1.0))
    assert sorted(found) == list(range(40))
    reasons = {number: result.reason for number, result in found.items() if isinstance(result, WorkerFailure)}
    assert reasons == {
        **dict.fromkeys((3, 13, 23, 33), "its decoder crashed"),
        **dict.fromkeys((7, 27), "it took longer than 1 seconds and what its length adds (--data.timeout)"),
        **dict.fromkeys((9, 29), "it needs more memory than there is"),
    }
    assert all(found[number] == 2 * number for number in found if number not in reasons)


def test_a_pool_whose_every_process_dies_still_ends():
    assert dict(map_unordered(range(12), crash, 3)) == {number: WorkerFailure("its decoder crashed") for number in range(12)}


def test_an_error_of_the_work_ends_it():
    with pytest.raises(OSError, match="the disk is full"):
        list(map_unordered(range(10), fail_at_five, 1))


def test_items_are_taken_as_they_are_needed():
    taken = itertools.count()
    found = map_unordered(taken, fail_at_five, 1)
    assert next(found)[0] < 5 and next(taken) < 10
    found.close()


def test_without_items_no_process_starts(monkeypatch):
    monkeypatch.setattr("tfdetect.data.worker_pool.ProcessPool.schedule", None)
    assert list(map_unordered([], double)) == []


def allowed(item):
    """Sleep longer than the base, with what the item's length adds to it."""
    length, pause = item
    deadline.extend(size=length * deadline.BYTES_PER_SECOND)
    time.sleep(pause)
    return length


def test_a_long_file_gets_more_time_and_a_hang_still_ends():
    found = dict(map_unordered([(3, 1.0), (0, 1.0), (1, 100.0)], allowed, 3, 0.5))
    assert found[3, 1.0] == 3
    assert "it took longer than 0.5 seconds" in found[0, 1.0].reason and found[1, 100.0] == found[0, 1.0]


def test_no_length_adds_more_than_hours(monkeypatch):
    times = []
    monkeypatch.setattr(deadline.signal, "getitimer", lambda which: (times[-1], 0) if times else (60.0, 0))
    monkeypatch.setattr(deadline.signal, "setitimer", lambda which, seconds: times.append(seconds))
    deadline.extend(pixels=1e15)
    deadline.extend(pixels=1e15)
    assert times == [deadline.MAX_SECONDS, deadline.MAX_SECONDS]


def test_processes_keep_to_the_cores_that_are_granted(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {1, 2, 5, 7}, raising=False)
    monkeypatch.setattr(machine, "OWN", tmp_path / "own")
    monkeypatch.setattr(machine, "CGROUPS", tmp_path)
    assert machine.available_cores() == 4
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "own").write_text("0::/a/b\n")
    for group, text, count in (("a/b", "max 100000", 4), ("a", "250000 100000", 3), (".", "50000 100000", 1)):
        (tmp_path / group / "cpu.max").write_text(text)
        assert machine.available_cores() == count


def test_an_interrupt_while_processes_start_is_the_parents_alone(tmp_path):
    script = tmp_path / "script.py"
    script.write_text("import os, signal, threading, time\n"
                      "from tfdetect.data.worker_pool import results\n"
                      "if __name__ == '__main__':\n"
                      "    threading.Timer(0.15, os.killpg, (0, signal.SIGINT)).start()\n"
                      "    try:\n"
                      "        list(results(range(8), time.sleep, 2))\n"
                      "    except KeyboardInterrupt:\n"
                      "        print('interrupted')\n")  # fmt: skip
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, start_new_session=True, timeout=60)
    assert done.stdout == "interrupted\n" and "Traceback" not in done.stderr, done.stderr
