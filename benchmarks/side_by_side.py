"""Time several ways of doing the same work side by side; the benchmarks that compare us with others use it.

A side is a function or a command line. One call runs the sides in turn, round after round, in changing order, so that other work
on the machine slows all of them alike; a first round warms up and is not counted. Of each side it takes the wall seconds and the
CPU seconds, those of its child processes included once they have ended. A ratio is the median of the rounds' ratios.

    report = Report(__file__, options, packages=["numpy"], seeds={"data": 0})
    report.compare("sums", {"ours": ours, "NumPy": theirs}, items=1000, unit="rows", check=equal)
    report.line("sums against NumPy", "sums", "ours", "NumPy", at_least=1.0, aim=2.0)
    report.write()

`guard.py` reruns these scripts and compares their lines with those of the JSON files.
"""

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from statistics import median
from typing import Any, Literal, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that it runs from a checkout, installed or not

ROUNDS, QUICK_ROUNDS = 5, 3
WORKER = "--worker"  # first argument of a script that is started as a Worker
QUICK = "a fifth of the work or less and three rounds, for guard.py; writes only where --out says"


class Timed(NamedTuple):
    """What one call took; a side may return it itself, to leave its preparations out."""

    wall: float
    cpu: float
    result: Any = None


Side = Callable[[], Any] | Sequence[str]
Check = Callable[[dict[str, Any]], object]  # takes the results by side and raises if they do not agree


def options_parser(doc: str | None, script: str) -> argparse.ArgumentParser:
    """Return a parser of the options that all these benchmarks have: --rounds, --out and --quick."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, help=f"rounds that count, at least {ROUNDS} (default) without --quick")
    parser.add_argument("--out", type=Path, help=f"JSON file (default: {Path(script).stem}.json beside the script)")
    parser.add_argument("--quick", action="store_true", help=QUICK)
    return parser


def cpu_seconds() -> float:
    """Return the CPU seconds of this process and of its children that have ended."""
    usages = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def timed(side: Side) -> Timed:
    """Run a side once. The result of a command is what it prints; raises CalledProcessError if it fails."""
    start, cpu = time.perf_counter(), cpu_seconds()
    result = side() if callable(side) else subprocess.run(side, check=True, stdout=subprocess.PIPE, text=True).stdout
    elapsed = Timed(time.perf_counter() - start, cpu_seconds() - cpu, result)
    return result if isinstance(result, Timed) else elapsed


def run_rounds(sides: Mapping[str, Side], rounds: int, check: Check | None = None) -> dict[str, list[Timed]]:
    """Return the rounds of each side. `check` gets the results of the warm-up round."""
    results = {name: timed(side).result for name, side in sides.items()}
    if check:
        check(results)
    times: dict[str, list[Timed]] = {name: [] for name in sides}
    for number in range(rounds):
        for name in list(sides)[:: 1 if number % 2 else -1]:
            times[name].append(timed(sides[name])._replace(result=None))
    return times


class Worker:
    """A process of its own that runs functions of a script, with another interpreter if need be, and stays for all rounds.

    The script passes its functions to `serve` when its first argument is WORKER. Arguments and results travel as JSON.
    """

    def __init__(self, script: str, python: str = sys.executable, env: Mapping[str, str] | None = None) -> None:
        self.errors = tempfile.TemporaryFile("w+")  # noqa: SIM115  # what TensorFlow logs is of interest only after a failure
        self.process = subprocess.Popen([python, script, WORKER], text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=self.errors, env={**os.environ, **(env or {})})  # fmt: skip

    def call(self, task: str, *arguments: Any) -> Timed:
        """Return the time and the result of a function, as the worker measured them."""
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write(json.dumps([task, *arguments]) + "\n")
        self.process.stdin.flush()
        if not (answer := self.process.stdout.readline()):
            code = self.process.wait()
            self.errors.seek(0)
            raise SystemExit(f"{self.errors.read()}\nthe process for {task!r} ended with code {code}")
        return Timed(*json.loads(answer))

    def close(self) -> None:
        """Let the process end."""
        self.process.communicate()


def serve(functions: Mapping[str, Callable[..., Any]]) -> None:
    """Answer the calls of a `Worker` until it closes. What the functions print goes to stderr."""
    answers, sys.stdout = sys.stdout, sys.stderr
    for line in sys.stdin:
        task, *arguments = json.loads(line)
        print(json.dumps(timed(lambda: functions[task](*arguments))), file=answers, flush=True)  # noqa: B023


class Report:
    """The results of a script: tables on stdout while it runs, and a JSON file."""

    def __init__(self, script: str, options: argparse.Namespace, packages: Iterable[str] = (),
                 seeds: Mapping[str, int] | None = None) -> None:  # fmt: skip
        self.path = options.out or (None if options.quick else Path(script).with_suffix(".json"))
        self.rounds = options.rounds or (QUICK_ROUNDS if options.quick else ROUNDS)
        if self.rounds < ROUNDS and not options.quick:
            raise SystemExit(f"--rounds is {self.rounds}; a median of fewer than {ROUNDS} says little (--quick takes fewer)")
        self.facts: dict[str, Any] = {}  # what else a script has to say, by name
        self.cases: dict[str, Any] = {}
        self.lines: list[dict[str, Any]] = []
        words = [Path(word).name if word.startswith("/") else word for word in sys.argv[1:]]  # a folder here says nothing
        self.about = {"command": " ".join(["python", f"benchmarks/{Path(script).name}", *words]),
                      "date": time.strftime("%Y-%m-%d", time.gmtime()), "rounds": self.rounds, "quick": options.quick,
                      "machine": machine(), "versions": versions(packages), "seeds": dict(seeds or {})}  # fmt: skip

    def compare(self, case: str, sides: Mapping[str, Side], items: int, unit: str, check: Check | None = None,
                show: bool = True) -> dict[str, list[Timed]]:  # fmt: skip
        """Time the sides of a case, which process `items` of a `unit` each, and print them. Return the rounds."""
        load = os.getloadavg()[0]
        times = run_rounds(sides, self.rounds, check)
        rows = {name: {"wall": round(median(row.wall for row in rounds), 4), "cpu": round(median(row.cpu for row in rounds), 4),
                       "walls": [round(row.wall, 4) for row in rounds], "cpus": [round(row.cpu, 4) for row in rounds]}
                for name, rounds in times.items()}  # fmt: skip
        self.cases[case] = {"items": items, "unit": unit, "load_before": round(load, 2), "sides": rows}
        if show:
            print(f"\n{case}: {items:,} {unit}, {self.rounds} rounds\n{'':44}{'wall s':>10}{'CPU s':>10}{unit + '/s':>12}")
            for name, row in rows.items():
                print(f"  {name:42}{row['wall']:10.3f}{row['cpu']:10.3f}{items / max(row['wall'], 1e-9):12,.1f}", flush=True)
        return times

    def ratio(self, case: str, over: str, under: str, measure: Literal["wall", "cpu"] = "wall") -> float:
        """Return the median over the rounds of one side's seconds divided by another's."""
        sides = self.cases[case]["sides"]
        return median(a / max(b, 1e-9) for a, b in zip(sides[over][f"{measure}s"], sides[under][f"{measure}s"], strict=True))

    def line(self, name: str, case: str, ours: str, theirs: str, at_least: float | None, aim: float | None,
             measure: Literal["wall", "cpu"] = "wall", better: Literal["higher", "lower"] = "higher") -> float:  # fmt: skip
        """Add a line: how many times faster ours is or, where `lower` is better, how many times their seconds ours takes."""
        ratio = self.ratio(case, theirs, ours, measure) if better == "higher" else self.ratio(case, ours, theirs, measure)
        return self.add_line(name, ratio, at_least, aim, better, measure=measure, case=case)

    def add_line(self, name: str, ratio: float, at_least: float | None, aim: float | None,
                 better: Literal["higher", "lower"] = "higher", **more: Any) -> float:  # fmt: skip
        """Add a line with a ratio that was measured otherwise, and print it. `at_least` bounds it on the worse side."""
        line = {"name": name, "ratio": round(ratio, 4), "at_least": at_least, "aim": aim, "better": better, **more}
        self.lines.append(line)
        print(f"  {describe(line)}", flush=True)
        return ratio

    def write(self) -> None:
        """Write the JSON file."""
        if self.path:
            content = {**self.about, **({"facts": self.facts} if self.facts else {}), "lines": self.lines, "cases": self.cases}
            self.path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")
            print(f"\nwritten to {self.path}")


def describe(line: Mapping[str, Any]) -> str:
    """Return a line in words, with the bounds and whether it meets them."""
    bound, aim, ratio = line["at_least"], line["aim"], line["ratio"]
    if aim is None:
        return f"{line['name']}: {ratio:.3g}x"
    limits = f"aim {aim:g}"
    if bound is not None:
        limits = f"{'at least' if line['better'] == 'higher' else 'at most'} {bound:g}, {limits}"
    words = {"aim met": "meets the aim", "met": "enough", "missed": "MISSED", "aim missed": "misses the aim"}
    return f"{line['name']}: {ratio:.3g}x ({words[verdict(line)]}; {limits})"


def verdict(line: Mapping[str, Any]) -> str:
    """Return whether a line meets its aim or its bound: "aim met", "met", "missed", without a bound "aim missed", or "" if it has
    neither."""
    if line["aim"] is None:
        return ""
    aim_met, met = (limit is not None and (line["ratio"] - limit) * (1 if line["better"] == "higher" else -1) >= 0
                    for limit in (line["aim"], line["at_least"]))  # fmt: skip
    if aim_met:
        return "aim met"
    return "aim missed" if line["at_least"] is None else "met" if met else "missed"


def machine() -> dict[str, Any]:
    """Return the processor's model, cores, memory, system and the mean load of the last minute."""
    from tfdetect.machine import available_cores, total_memory

    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return {"cpu": models[0] if models else platform.processor(), "cores": available_cores(),
            "memory_gb": round(total_memory() / 2**30, 1),
            "system": f"{platform.system()} {platform.release()} {platform.machine()}",
            "load": round(os.getloadavg()[0], 2)}  # fmt: skip


def versions(packages: Iterable[str]) -> dict[str, str]:
    """Return the versions of Python and of those packages that are installed."""
    found = {"python": platform.python_version()}
    for name in packages:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
