"""Rerun the benchmarks with less work and compare their ratios with the committed ones; exit with 1 if one has become worse.

    python benchmarks/guard.py [SCRIPT ...] [--torch PYTHON]

Runs each script whose committed JSON file has lines with --quick, and compares the lines of both. A line fails if it is below
KEPT of the committed ratio or, where lower is better, above 1 / KEPT of it. Lines that only one of the files has are named and do
not fail; a line with a `floor` does not fail within it, because that little cannot be measured. Where a line fails, its script is
run once more and the better of both counts, since something else may have used the machine.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

FOLDER, KEPT = Path(__file__).resolve().parent, 0.8
TORCH_SCRIPTS = ("feed", "train")  # those that take --torch
OTHER_MACHINES = ("gpu",)  # whose figures are of a card that this machine need not have


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scripts", nargs="*", help="names such as feed (default: all whose JSON file has lines)")
    parser.add_argument("--torch", metavar="PYTHON", help="Python interpreter that has PyTorch, to compare with it")
    options = parser.parse_args()
    failures = []
    for script in options.scripts or guarded_scripts():
        committed = read_lines(FOLDER / f"{script}.json")
        worse = compare(script, committed, measured := run(script, options.torch))
        if worse:
            again = run(script, options.torch)
            worse = compare(script, committed, {name: better(line, again.get(name, line)) for name, line in measured.items()})
        failures += worse
    print("\n".join(failures) or "No ratio has become worse.")
    return 1 if failures else 0


def guarded_scripts() -> list[str]:
    """Return the names of the scripts whose committed JSON file has lines."""
    return [path.stem for path in sorted(FOLDER.glob("*.json"))
            if path.stem not in OTHER_MACHINES and path.with_suffix(".py").exists() and read_lines(path)]  # fmt: skip


def read_lines(path: Path) -> dict[str, dict[str, Any]]:
    """Return the lines of a JSON file by name; none if it is the table of another kind of benchmark."""
    content = json.loads(path.read_text())
    return {line["name"]: line for line in content.get("lines", [])} if isinstance(content, dict) else {}


def run(script: str, torch: str | None) -> dict[str, dict[str, Any]]:
    """Run a script with less work and return its lines."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "lines.json"
        words = [sys.executable, str(FOLDER / f"{script}.py"), "--quick", "--out", str(out)]
        subprocess.run([*words, *(["--torch", torch] if torch and script in TORCH_SCRIPTS else [])], check=True)
        return read_lines(out)


def compare(script: str, committed: dict[str, dict[str, Any]], measured: dict[str, dict[str, Any]]) -> list[str]:
    """Return a sentence for each line that has become worse, and print those that cannot be compared."""
    for name in committed.keys() ^ measured.keys():
        print(f"{script}: {name!r} is not compared, since only one of both has it")
    return [f"{script}: {name!r} is {measured[name]['ratio']:g}, was {committed[name]['ratio']:g}"
            for name in committed if name in measured and is_worse(measured[name], committed[name])]  # fmt: skip


def is_worse(line: dict[str, Any], committed: dict[str, Any]) -> bool:
    """Return whether a ratio has become worse than the committed one by more than KEPT allows."""
    if committed["better"] == "higher":
        return line["ratio"] < KEPT * committed["ratio"]
    return line["ratio"] > max(committed["ratio"] / KEPT, committed.get("floor", 0))


def better(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """Return the better of two measurements of a line."""
    return (max if one["better"] == "higher" else min)(one, other, key=lambda line: line["ratio"])


if __name__ == "__main__":
    sys.exit(main())
