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
        if isinstance(results, dict) and results.get("lines"):
            print_table(path.stem, results)


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


if __name__ == "__main__":
    main()
