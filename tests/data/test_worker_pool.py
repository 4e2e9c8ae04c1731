"""The pool: a crash, hang or lack of memory fails one item; an exception of the work ends it; the input may be infinite."""

import itertools
import multiprocessing
import os
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures.process import BrokenProcessPool

import pytest

from tfdetect import machine
from tfdetect.data import deadline, worker_pool, worker_processes
from tfdetect.data.confinement import Beside, Confinement
from tfdetect.data.worker_pool import WorkerFailure, map_unordered


@pytest.fixture(autouse=True)
def own_processes(monkeypatch):
    """Take none that an application of an earlier test left waiting."""
    monkeypatch.setattr(worker_processes, "_idle", None)


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


def test_every_item_is_yielded_once_whatever_happens_to_it():
    results = dict(map_unordered(range(40), double, 2, 1.0))
    assert sorted(results) == list(range(40))
    reasons = {number: result.reason for number, result in results.items() if isinstance(result, WorkerFailure)}
    assert reasons == {
        **dict.fromkeys((3, 13, 23, 33), "the decoder crashed"),
        **dict.fromkeys((7, 27), "decoding took longer than 1 s plus the allowance for its length (--data.timeout)"),
        **dict.fromkeys((9, 29), "not enough memory to decode it"),
    }
    assert all(results[number] == 2 * number for number in results if number not in reasons)


def test_pool_ends_even_if_every_process_crashes():
    assert dict(map_unordered(range(12), crash, 3)) == {number: WorkerFailure("the decoder crashed") for number in range(12)}


def test_exception_of_the_work_ends_the_iteration():
    with pytest.raises(OSError, match="the disk is full"):
        list(map_unordered(range(10), fail_at_five, 1))


def test_threads_leave_the_main_module_alone(monkeypatch):
    """Each start of a process hides it for a moment."""
    main, starting, started = sys.modules["__main__"], threading.Event(), threading.Event()

    def start(process):
        starting.set()
        started.wait(0.1)

    monkeypatch.setattr(worker_processes.SpawnProcess, "start", start)
    first, second = (threading.Thread(target=worker_processes._WorkerProcess(target=crash).start) for _ in range(2))
    first.start()
    assert starting.wait(10)
    second.start()
    first.join()
    second.join()
    assert sys.modules["__main__"] is main


def test_a_daemon_works_in_its_own_process(monkeypatch, capsys):
    """A worker of multiprocessing.Pool must not start processes."""
    monkeypatch.setitem(multiprocessing.current_process()._config, "daemon", True)
    assert dict(map_unordered(range(3), fail_at_five, 1)) == {0: 0, 1: 1, 2: 2}
    assert "cannot be started (daemonic processes" in capsys.readouterr().err


def test_items_are_read_only_as_needed():
    items = itertools.count()
    results = map_unordered(items, fail_at_five, 1)
    assert next(results)[0] < 5 and next(items) < 10
    results.close()


def test_no_process_starts_without_items(monkeypatch):
    monkeypatch.setattr("tfdetect.data.worker_processes.ProcessPool.schedule", None)
    assert list(map_unordered([], double)) == []


def sleep_with_extension(item):
    """Extend the deadline by the item's length in seconds, then sleep."""
    length, pause = item
    deadline.extend(size=length * deadline.BYTES_PER_SECOND)
    time.sleep(pause)
    return length


def test_long_file_gets_more_time_and_a_hang_still_ends():
    results = dict(map_unordered([(3, 1.0), (0, 1.0), (1, 100.0)], sleep_with_extension, 3, 0.5))
    assert results[3, 1.0] == 3
    assert "decoding took longer than 0.5 s" in results[0, 1.0].reason and results[1, 100.0] == results[0, 1.0]


def test_extensions_are_capped(monkeypatch):
    times = []
    monkeypatch.setattr(deadline.signal, "getitimer", lambda which: (times[-1], 0) if times else (60.0, 0))
    monkeypatch.setattr(deadline.signal, "setitimer", lambda which, seconds: times.append(seconds))
    deadline.extend(pixels=1e15)
    deadline.extend(pixels=1e15)
    assert times == [deadline.MAX_SECONDS, deadline.MAX_SECONDS]


def test_cores_respect_affinity_and_cgroup_quota(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {1, 2, 5, 7}, raising=False)
    monkeypatch.setattr(machine, "CGROUP_FILE", tmp_path / "own")
    monkeypatch.setattr(machine, "CGROUP_ROOT", tmp_path)
    assert machine.available_cores() == 4
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "own").write_text("0::/a/b\n")
    for group, text, count in (("a/b", "max 100000", 4), ("a", "250000 100000", 3), (".", "50000 100000", 1)):
        (tmp_path / group / "cpu.max").write_text(text)
        assert machine.available_cores() == count


def test_interrupt_while_processes_start_reaches_only_the_parent(tmp_path):
    script = tmp_path / "script.py"
    script.write_text("import multiprocessing, os, signal, threading, time\n"
                      "from tfdetect.data.worker_pool import map_unordered\n"
                      "def interrupt():\n"
                      "    while len(multiprocessing.active_children()) < 2:\n"
                      "        time.sleep(0.001)\n"
                      "    os.killpg(0, signal.SIGINT)\n"
                      "if __name__ == '__main__':\n"
                      "    signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a shell ignores it in the background
                      "    try:\n"
                      "        threading.Thread(target=interrupt).start()\n"
                      "        list(map_unordered([1000] * 8, time.sleep, 2))\n"
                      "    except KeyboardInterrupt:\n"
                      "        print('interrupted')\n")  # fmt: skip
    result = subprocess.run([sys.executable, script], capture_output=True, text=True, start_new_session=True, timeout=120)
    assert result.stdout == "interrupted\n" and "Traceback" not in result.stderr, result.stderr


LOOP = "from tfdetect.data.worker_pool import map_unordered\nprint('once', sorted(map_unordered([1, -2], abs, 2)))\n"


def test_processes_start_from_standard_input_and_scripts_without_a_guard(tmp_path):
    (tmp_path / "script.py").write_text(LOOP)
    for arguments, text in (([str(tmp_path / "script.py")], None), (["-"], LOOP)):
        result = subprocess.run([sys.executable, *arguments], input=text, capture_output=True, text=True, timeout=60)
        assert (result.stdout, result.stderr) == ("once [(-2, 2), (1, 1)]\n", "")


def test_without_processes_items_are_processed_here_and_a_line_says_so(monkeypatch, capsys):
    def refuse(self):
        raise OSError(11, "Resource temporarily unavailable")

    monkeypatch.setattr("tfdetect.data.worker_processes._WorkerProcess.start", refuse)
    assert sorted(map_unordered([1, -2, 3], abs, 2, seconds=9.0)) == [(-2, 2), (1, 1), (3, 3)]
    assert capsys.readouterr().err.count("cannot be started ([Errno 11] Resource temporarily unavailable): files are") == 1
    with pytest.raises(OSError, match="the disk is full"):
        list(map_unordered(range(10), fail_at_five, 1))


def test_processes_that_end_at_once_are_replaced_by_this_one(monkeypatch, capsys):
    monkeypatch.setattr("tfdetect.data.worker_processes._initialise_worker", os.abort)  # such as one that lacks memory to start
    assert sorted(map_unordered([1, -2], abs, 2)) == [(-2, 2), (1, 1)]
    assert "cannot be started (All workers expired)" in capsys.readouterr().err


def test_a_pool_that_breaks_by_a_crash_runs_no_crashing_item_in_this_process(monkeypatch):
    """pebble may see that a process has ended before it reads what the process was working on."""
    original, broken = worker_pool._map_in_pool, []

    def break_once(items, in_work, *rest):
        if broken:
            yield from original(items, in_work, *rest)
        else:
            broken.append(True)
            in_work.update(enumerate([2, 3, 4]))  # taken, without a result
            next(items), next(items), next(items)
            raise BrokenProcessPool("All workers expired")

    monkeypatch.setattr(worker_pool, "_map_in_pool", break_once)
    results = dict(map_unordered(iter([2, 3, 4, 5]), double, 2))
    assert results == {2: 4, 3: WorkerFailure("the decoder crashed"), 4: 8, 5: 10}


def test_a_crash_that_the_pool_overlooks_fails_its_item(monkeypatch):
    """pebble does so if a process ends before pebble reads what it is working on, while others are at work."""
    monkeypatch.setattr("pebble.pool.process.PoolManager.handle_worker_expiration", lambda manager, expiration: None)
    assert dict(map_unordered([3, 4], double, 2)) == {3: WorkerFailure("the decoder crashed"), 4: 8}


def process_and_folder(_):
    return os.getpid(), os.getcwd()


def test_processes_that_are_kept_work_in_the_folder_of_each_call(tmp_path, monkeypatch):
    worker_processes.keep_processes()
    try:
        found = []
        for name in ("a", "a", "b"):
            (tmp_path / name).mkdir(exist_ok=True)
            monkeypatch.chdir(tmp_path / name)
            [(_, result)] = map_unordered([0], process_and_folder, 1)
            found.append(result)
        assert found[0] == found[1] and [folder for _, folder in found[1:]] == [str(tmp_path / "a"), str(tmp_path / "b")]
    finally:
        worker_processes.end_idle_processes()


def take(size):
    """Allocate memory, and return its size."""
    return len(bytearray(size))


def write(path):
    """Write a megabyte beside a path; return where temporary files lie and whether it was all written."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(bytes(10**6))
        file.flush()
        return os.path.dirname(file.name)


@pytest.fixture
def confined():
    worker_processes.confine(Confinement(memory=2**30, file_bytes=10**5, seconds=0.5))
    yield
    worker_processes.confine(None)
    assert not worker_processes.is_confined()


def test_confined_processes_have_little_memory_small_files_and_little_time(confined, tmp_path):
    assert dict(map_unordered([10**6, 2**31], take, 1)) == {10**6: 10**6, 2**31: WorkerFailure("not enough memory to decode it")}
    with pytest.raises(OSError, match="File too large"):
        list(map_unordered([str(tmp_path / "x")], Beside(write), 1))
    assert not list(tmp_path.iterdir())
    [(_, late)] = map_unordered([(1000, 100.0)], sleep_with_extension, 1, 60.0)
    assert isinstance(late, WorkerFailure), "no file gets more time, however long it claims to be"


def test_temporary_files_lie_beside_the_path(tmp_path):
    before = tempfile.gettempdir()
    assert Beside(write)(str(tmp_path / "x")) == str(tmp_path) and tempfile.gettempdir() == before


def test_nothing_is_decoded_here_where_processes_are_confined(confined, monkeypatch, capsys):
    monkeypatch.setitem(multiprocessing.current_process()._config, "daemon", True)
    failure = WorkerFailure("no decoder could be started")
    assert dict(map_unordered(range(3), fail_at_five, 1)) == dict.fromkeys(range(3), failure)
    assert not capsys.readouterr().err
