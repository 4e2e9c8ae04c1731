"""How fast `serve` answers, on loopback: beside the same SavedModel called in a loop, which is the limit; beside itself without
batches; and beside the plainest service of FastAPI and `model.predict`.

    python benchmarks/serving.py [--detector residual] [--requests 640] [--quick]
    python benchmarks/serving.py --soak 10          # minutes of load instead, with a new version in the middle

1, 8 and 32 clients each send a JPEG of 256 x 256 pixels as a `:predict` request, wait for the answer, and send the next one.
The clients are a process of their own (serving_load.py), whose CPU seconds are told apart; it takes its share of the same cores.
Every answer must have the score that the loop computes. The detectors are untrained, which costs the same.
"""

import argparse
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median

import numpy as np
from predict import make_run
from side_by_side import WORKER, Report, Timed, Worker, options_parser, serve

HERE = Path(__file__).resolve().parent
CLIENTS, BATCHES = (1, 8, 32), (1, 4, 8, 16, 32, 64)
SERVE, UNBATCHED, PLAIN = "serve", "serve, batches of 1", "FastAPI and model.predict"
PLAIN_PORT = 8699
TICK = os.sysconf("SC_CLK_TCK")
loaded = {}


class Server:
    """A server in a process of its own."""

    def __init__(self, *command: object, port: int = 0) -> None:
        """Start it. Its URL is at this port, once that is open, or in the line on predictions that `serve` prints."""
        self.process = subprocess.Popen([sys.executable, *map(str, command)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                                        text=True)  # fmt: skip
        self.url = f"http://127.0.0.1:{port}/predict"
        if not port:
            assert self.process.stdout
            line = next(line for line in iter(self.process.stdout.readline, "") if ":predict" in line)
            self.url = line.split()[1].rstrip(",")
        while port and socket.socket().connect_ex(("127.0.0.1", port)):
            if self.process.poll() is not None:
                raise SystemExit(f"{command} ended with code {self.process.returncode}")
            time.sleep(0.1)

    def cpu(self) -> float:
        """Return its CPU seconds so far; those of children that have ended included."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return sum(map(int, fields[11:15])) / TICK

    def memory(self) -> int:
        """Return its resident memory in bytes."""
        return int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def load(self, clients: Worker, *arguments) -> Timed:
        """Send it requests, and return the wall seconds, its own CPU seconds and what came back.

        Raises SystemExit if an answer is missing or wrong.
        """
        before = self.cpu()
        found = clients.call("load", self.url, *arguments).result
        if found["lost"] or found.get("wrong"):
            raise SystemExit(f"{found['lost']} answers were lost and {found.get('wrong')} wrong: {found}")
        return Timed(found["wall"], self.cpu() - before, found)

    def __enter__(self) -> "Server":
        return self

    def __exit__(self, *error: object) -> None:
        self.process.terminate()
        self.process.wait()


def serve_command(run: Path, *flags: str) -> list[object]:
    """Return the command that serves a run at a free port."""
    return [HERE.parent / "scripts" / "serve.py", run, "--port", "0", *flags]


def score(saved_model: str, paths: list[str], items: int, batch: int) -> list[float]:
    """Return the scores of the first of so many images, which the SavedModel itself scores in batches; runs in a worker."""
    from tfdetect.serving.saved_model import call_signature, load_saved_model

    if saved_model not in loaded:
        loaded[saved_model] = load_saved_model(Path(saved_model))
    signature, images = loaded[saved_model].signatures["serve_bytes"], [Path(path).read_bytes() for path in paths]
    images = (images * (items // len(images) + 1))[:items]
    parts = [call_signature(signature, {"image": np.array(images[start : start + batch], object)})["score"]
             for start in range(0, items, batch)]  # fmt: skip
    return np.concatenate(parts)[: len(paths)].tolist()


def fastest_batch(loop: Worker, saved_model: str, paths: list[str]) -> tuple[int, dict[str, float]]:
    """Return the batch size with the fewest seconds for an image, and the images a second of each."""
    rates = dict.fromkeys(BATCHES, 0.0)
    for _ in range(3):
        for batch in BATCHES:
            rates[batch] = max(rates[batch], 64 / loop.call("score", saved_model, paths, 64, batch).wall)
    return max(BATCHES, key=lambda batch: rates[batch]), {str(batch): round(rate, 1) for batch, rate in rates.items()}


@contextmanager
def environment(detector: str):
    """Yield the run, the images, the loop and the clients."""
    from tfdetect.data.sample import Sample, write

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run = make_run(detector, folder, "--data.size", "256")
        paths = sorted(map(str, write(Sample("image", 32, size=256), folder / "images").parent.glob("*/*.jpg")))
        loop, clients = Worker(__file__), Worker(str(HERE / "serving_load.py"))
        try:
            yield run, paths, loop, clients
        finally:
            loop.close()
            clients.close()


def compare(report: Report, options: argparse.Namespace) -> None:
    """Compare throughput and latency at each number of clients."""
    with environment(options.detector) as (run, paths, loop, clients), ExitStack() as stack:
        saved_model = str(run / "1")
        batch, rates = fastest_batch(loop, saved_model, paths)
        expected = loop.call("score", saved_model, paths, len(paths), 1).result
        report.facts |= {"detector": options.detector, "fastest_batch": batch, "images_per_second_by_batch": rates, "latency": {}}
        print(f"the SavedModel in a loop, images a second by batch size: {rates}")
        commands = {SERVE: serve_command(run), UNBATCHED: serve_command(run, "--batch.size", "1"),
                    PLAIN: [HERE / "serving_plain.py", run / "model.keras", PLAIN_PORT]}  # fmt: skip
        servers = {name: stack.enter_context(Server(*command, port=PLAIN_PORT if name == PLAIN else 0))
                   for name, command in commands.items()}  # fmt: skip
        for count in CLIENTS:
            requests = max(16, options.requests * (4 + count) // 36)
            offline = (loop, saved_model, paths, expected, batch if count > 1 else 1)
            at_clients(report, count, requests, offline, servers, clients)
    add_lines(report, batch)


def at_clients(report: Report, count: int, requests: int, offline, servers: dict[str, Server], clients: Worker) -> None:
    """Time all sides with so many clients, and note their latencies."""
    loop, saved_model, paths, expected, batch = offline
    found: dict[str, list] = {name: [] for name in servers}

    def ask(name: str) -> Timed:
        tolerance = 1e-2 if name == PLAIN else 1e-5  # that one decodes and resizes as OpenCV does
        result = servers[name].load(clients, paths, count, requests, None, [expected], tolerance)
        found[name].append(result.result)
        return result

    sides = {f"SavedModel in a loop, batches of {batch}": lambda: loop.call("score", saved_model, paths, requests, batch),
             **{name: (lambda name=name: ask(name)) for name in servers}}  # fmt: skip
    report.compare(f"{count} clients", sides, requests, "images")
    latency = {name: {key: round(1000 * median(each[key] for each in results[1:]), 2) for key in ("p50", "p95", "p99")}
               | {"clients_cpu_s": round(median(each["cpu"] for each in results[1:]), 3)}
               for name, results in found.items()}  # fmt: skip
    report.facts["latency"][f"{count} clients"] = latency
    for name, row in latency.items():
        print(f"  {name:42} ms: p50 {row['p50']}, p95 {row['p95']}, p99 {row['p99']}; clients' CPU {row['clients_cpu_s']} s")


def add_lines(report: Report, batch: int) -> None:
    """Add the lines that have bounds."""
    case, limit = f"{CLIENTS[-1]} clients", f"SavedModel in a loop, batches of {batch}"
    report.line("serve at 32 clients against the SavedModel in a loop", case, SERVE, limit, 0.8, 0.95)
    report.line("CPU seconds of serve at 32 clients against the SavedModel in a loop", case, SERVE, limit, None, None, "cpu")
    report.line("serve at 32 clients against FastAPI and model.predict", case, SERVE, PLAIN, 3, 3)
    report.line("serve at 32 clients against itself without batches", case, SERVE, UNBATCHED, None, None)
    latency = report.facts["latency"]
    ratio = latency["8 clients"][SERVE]["p99"] / latency["1 clients"][SERVE]["p50"]
    report.add_line("slowest hundredth at 8 clients over the median of 1 client", ratio, 3, 3, "lower")
    rates = report.facts["images_per_second_by_batch"]  # 8 clients that wait for each other's images cannot wait less than this
    ratio = 8 * rates["1"] / rates["8"]
    report.add_line("the SavedModel itself: seconds of 8 images over those of 1", ratio, None, None, "lower")


def soak(minutes: float, detector: str) -> None:
    """Load `serve` for so many minutes with 8 clients, publish a new version in the middle, and print what came back."""
    with environment(detector) as (run, paths, loop, clients):
        other = make_run(detector, run.parent / "other", "--data.size", "256", "--train.seed", "1")
        expected = [loop.call("score", str(each / "1"), paths, len(paths), 1).result for each in (run, other)]
        with Server(*serve_command(run, "--reload", "1")) as server:
            server.load(clients, paths, 8, 200, None, expected)
            memory, versions = [server.memory()], threading.Timer(30 * minutes, add_version, (run, other))
            versions.start()
            found = server.load(clients, paths, 8, None, 60 * minutes, expected)
            memory.append(server.memory())
            print(f"{found.result['answers']:,} answers in {found.wall:.0f} s, {found.result['lost']} lost, "
                  f"{found.result['wrong']} with another score than offline; by version: {found.result['by_version']}; "
                  f"memory {memory[0] / 2**20:.0f} MiB before, {memory[1] / 2**20:.0f} MiB after")  # fmt: skip
            if not all(found.result["by_version"]):
                raise SystemExit("the new version did not answer")


def add_version(run: Path, other: Path) -> None:
    """Publish a run as the next version of another one, as `calibrate` and `train --from` do."""
    from tfdetect import hashes, versions

    number, staged = versions.next_number(run), run / versions.FOLDER / ".new"
    shutil.copytree(other, staged)
    (staged / "1").rename(staged / str(number))
    with open(staged / "config.yaml", "a") as file:
        file.write(f"adapted:\n  version: {number}\n  by: train\n  from: {number - 1}\n")
    hashes.write(staged)
    versions.publish(run, staged)


def main() -> None:
    """Compare, or with --soak load the server for a while."""
    parser = options_parser(__doc__, __file__)
    parser.add_argument("--detector", default="residual", help="an image detector")
    parser.add_argument("--requests", type=int, default=640, help="of 32 clients in a round; fewer clients send fewer")
    parser.add_argument("--soak", type=float, help="minutes of load")
    options = parser.parse_args()
    if options.soak:
        soak(options.soak, options.detector)
        return
    options.requests = options.requests // 4 if options.quick else options.requests
    report = Report(__file__, options, packages=["tensorflow", "keras", "fastapi", "uvicorn"], seeds={"sample": 0})
    compare(report, options)
    report.write()


if __name__ == "__main__":
    if sys.argv[1:2] == [WORKER]:
        serve({"score": score})
    else:
        main()
