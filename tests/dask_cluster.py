"""A Dask scheduler and two workers, each in a process of its own, as on machines of a cluster."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]


@contextlib.contextmanager
def running(folder, *python_path, failures=1):
    """Yield the address of the scheduler; a worker may die `failures` times before its task is given up."""
    path = os.pathsep.join(map(str, (ROOT, *python_path)))
    environment = {**os.environ, "PYTHONPATH": path, "CUDA_VISIBLE_DEVICES": "-1", "PYTHONDONTWRITEBYTECODE": "1",
                   "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": str(failures)}  # fmt: skip
    file, processes = folder / "scheduler.json", []

    def start(*words):
        log = (folder / f"log-{len(processes)}.txt").open("w")
        command = [sys.executable, "-m", "dask", *map(str, words), "--scheduler-file", str(file)]
        processes.append(subprocess.Popen(command, env=environment, cwd=folder, stdout=log, stderr=log))

    start("scheduler", "--port", 0, "--no-dashboard", "--host", "127.0.0.1")
    while not file.exists():
        time.sleep(0.05)
    for name in "ab":
        start("worker", "--nthreads", 1, "--no-dashboard", "--name", name, "--local-directory", folder)
    try:
        yield json.loads(file.read_text())["address"]
    finally:
        for process in reversed(processes):
            process.send_signal(signal.SIGTERM)
        for process in processes:
            try:
                process.wait(timeout=20)
            except subprocess.TimeoutExpired:  # a worker may wait for a process of its own that a test has killed
                process.kill()
                process.wait()


def worker_pids(address, count=2):
    """Return the process id of each worker, once there are `count`."""
    from distributed import Client

    with Client(address, set_as_default=False) as client:
        client.wait_for_workers(count, timeout=60)
        return list(client.run(os.getpid).values())


def children(pid):
    """Return the processes that a process has started, and those that they have."""
    import psutil

    return psutil.Process(pid).children(recursive=True)
