"""Measure how fast two workers of `--train.strategy multiworker` train together, beside one process, on the same batches.

    python benchmarks/multiworker.py

`cnn_lstm` at its published size on cached clips, 32 clips a batch for both sides: of two workers, each reads and takes half of
it. All run on this machine. One process, with TensorFlow's deterministic ops, may not keep all of its cores busy, and then two
workers are faster even here; on several machines each has its own cores, but gradients travel through the network. Each round
starts its processes anew; the first two steps, which compile, do not count. The losses of both sides must agree.
"""

import json
import socket
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import clip_files
from side_by_side import WORKER, Report, Timed, Worker, options_parser, serve
from train import BATCH, FRAMES, SIZE, SKIPPED, Clock, keras_clock

ONE, TWO = "one process", "two workers"


def main() -> None:
    options = options_parser(__doc__, __file__).parse_args()
    steps = 4 if options.quick else 12
    report = Report(__file__, options, ("tensorflow", "keras", "numpy", "tfdetect"), {"data": 0, "weights": 0})
    with tempfile.TemporaryDirectory() as name:
        clip_files.write_clips(Path(name), BATCH * (steps + SKIPPED), FRAMES, SIZE, validation=BATCH)
        sides = {ONE: lambda: train([{}], name), TWO: lambda: train(cluster(2), name)}
        report.compare("cnn_lstm", sides, steps * BATCH, "clips", check)
    report.line("two workers against one process, same machine", "cnn_lstm", TWO, ONE, None, None)
    report.write()


def cluster(count: int) -> list[dict[str, str]]:
    """Return the environment of each worker; their ports were free a moment ago."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    addresses = [f"127.0.0.1:{each.getsockname()[1]}" for each in sockets]
    for each in sockets:
        each.close()
    tasks = [{"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}} for index in range(count)]
    return [{"TF_CONFIG": json.dumps(task)} for task in tasks]


def train(environments: list[dict[str, str]], folder: str) -> Timed:
    """Train in a process for each environment. The wall seconds are those of the slowest, the CPU seconds those of all."""
    workers = [Worker(__file__, env=environment) for environment in environments]
    with ThreadPoolExecutor() as pool:
        results = list(pool.map(lambda worker: worker.call("fit", folder, len(workers) > 1), workers))
    for worker in workers:
        worker.close()
    return Timed(max(each.wall for each in results), sum(each.cpu for each in results), [each.result for each in results])


def check(results: dict[str, list[list[float]]]) -> None:
    """Exit unless all processes saw the same losses."""
    [expected], two = results[ONE], results[TWO]
    print(f"  losses: {expected[0]:.4f} to {expected[-1]:.4f}; two workers {two[0][0]:.4f} to {two[0][-1]:.4f}")
    for losses in two:
        if len(losses) != len(expected) or max(abs(a - b) for a, b in zip(losses, expected, strict=True)) > 1e-3:
            raise SystemExit(f"the losses differ: {losses}, expected {expected}")


def fit(folder: str, several: bool) -> Timed:
    """Train one epoch with the suite's own `fit`, without dropout, which draws otherwise in each process."""
    from tfdetect.models.detectors.cnn_lstm import CnnLstm
    from tfdetect.settings import Train
    from tfdetect.training.fit import fit

    table, cache, clock = clip_files.read_table(Path(folder)), clip_files.open_cache(Path(folder), FRAMES, SIZE), Clock(SKIPPED)
    settings = replace(Train(), epochs=1, batch=BATCH, balance="none", strategy="multiworker" if several else "single")
    with tempfile.TemporaryDirectory() as name:
        fit(CnnLstm(dropout=0.0), table, cache, settings, Path(name), Path(name) / "model.keras", [keras_clock(clock)])
    timed = clock.timed(0)
    return timed._replace(result=timed.result[1])


if __name__ == "__main__":
    serve({"fit": fit}) if sys.argv[1:2] == [WORKER] else main()
