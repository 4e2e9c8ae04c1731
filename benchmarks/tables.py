"""Print the tables of benchmarks/README.md: every line that the JSON files beside this script hold, with its bounds.

    python benchmarks/tables.py
"""

import json
from pathlib import Path
from typing import Any

from side_by_side import verdict

HERE = Path(__file__).parent


def main() -> None:
    for path in sorted(HERE.glob("*.json")):
        results = json.loads(path.read_text())
        if isinstance(results, dict) and results.get("lines") and path.with_suffix(".py").exists():
            print_table(path.stem, results)
    print_gpu_table([json.loads(path.read_text()) for path in sorted(HERE.glob("gpu_*.json"))])


def print_table(name: str, results: dict[str, Any]) -> None:
    """Print the lines of a script as a Markdown table."""
    machine = results["machine"]
    setting = f"{results['date']}, {results['rounds']} rounds, {machine['cores']} cores, load {machine['load']:g} at the start"
    print(f"\n`{name}.py` ({setting}):")
    print("\n| line | measured | at least | aim | |\n|---|---|---|---|---|")
    for line in results["lines"]:
        sign = "" if line["better"] == "higher" else "at most "
        bounds = [f"{sign}{line[key]:g}" if line[key] is not None else "" for key in ("at_least", "aim")]
        result = verdict(line).replace("missed", "**missed**")
        print(f"| {line['name']} | {line['ratio']:.3g} | {' | '.join(bounds)} | {result} |")


def print_gpu_table(runs: list[dict[str, Any]]) -> None:
    """Print what gpu.py measured: images per second of ours and of PyTorch, and the shares of the card's ceilings."""
    print("\n`gpu.py`:\n")
    print("| network, precision | card, backend | images/s | PyTorch's | times as fast | of the matrix product | of the copy |")
    print("|---|---|---|---|---|---|---|")
    for run in runs:
        for case, content in run["cases"].items():
            ours, theirs = content["sides"]["tfdetect"], content["sides"]["PyTorch"]
            ratio = next(line["ratio"] for line in run["lines"] if line["case"] == case)
            rates = " | ".join(f"{content['items'] / side['wall']:,.0f}" for side in (ours, theirs))
            print(f"| {case} | {run['facts']['device']}, {run['facts']['backend']} | {rates} | {ratio:.3g} | "
                  f"{ours['share_of_product']:.0%} | {ours['share_of_copy']:.0%} |")  # fmt: skip


if __name__ == "__main__":
    main()
