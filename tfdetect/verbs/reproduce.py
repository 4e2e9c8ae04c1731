"""reproduce: run a recipe, and compare its published figures with those measured here."""

from collections.abc import Mapping, Sequence
from typing import Any

from tfdetect import backend, files, installation
from tfdetect.api.reproduce import DIFFERENCE_COLUMNS, find_recipe, list_recipes, parse, run_recipe
from tfdetect.verbs.train import print_next_steps
from tfdetect.workflow import recipe as recipes
from tfdetect.workflow.console import console

STAND_IN_FLAGS = ("--stand-in", "--stand_in")


def main(argv: Sequence[str]) -> int:
    """Find the recipe, train, and print the comparison."""
    words = [word for word in argv if word not in STAND_IN_FLAGS]
    if not words or words[0] in ("-h", "--help"):
        print(usage())
        return 0 if words else 2
    recipe = recipes.read(find_recipe(words[0]))
    run = parse(recipe, words[1:], len(words) < len(argv))
    console.print(f"{recipe.title}\n{recipe.source}")
    for note in recipe.notes:
        console.print(f"- {note}")
    artifact = run_recipe(recipe, run)
    if not backend.worker_index():
        print_next_steps(artifact, run)
        print_comparison(files.read_json(artifact.comparison, ["title", "rows", "figures"], "delete it, and repeat the command."))
    return 0


def usage() -> str:
    """Return what `reproduce --help` prints without a recipe: all recipes, one per line."""
    width = max(len(path.stem) for path in list_recipes()) + 2
    lines = "\n".join(f"  {path.stem:{width}}{recipes.read(path).title}" for path in list_recipes())
    recipe = installation.command("reproduce", "RECIPE")
    forms = f"{recipe} --data.path DIR [--flags of train]  |  {recipe} --stand-in [--flags of train]"
    return (f"{forms}\n\n{lines}\n\nRECIPE is one of these or a YAML file. --stand-in runs a smaller version on the embedded "
            f"sample.\n`{recipe} --help` lists the flags.")  # fmt: skip


def print_comparison(comparison: Mapping[str, Any]) -> None:
    """Print the published figures beside ours, and how the two protocols differ."""
    from rich.table import Table

    def table(columns: Sequence[str], rows: Sequence[Mapping[str, Any]], **header: str) -> Table:
        grid = Table(*(header.get(name, recipes.readable(name)) for name in columns))
        for row in rows:
            grid.add_row(*(recipes.format_cell(row[name]) for name in columns))
        return grid

    console.print(f"\n{comparison['title']}")
    if note := recipes.data_note(comparison):
        console.print(f"{note[0].upper()}{note[1:]}.")
    columns = recipes.figure_columns(comparison)
    console.print(table([*columns], comparison["figures"], **columns))
    for warning in comparison.get("warnings", ()):
        console.print(warning)
    console.print(table(DIFFERENCE_COLUMNS, comparison["differences"], what="setting"))
    if comparison["same"]:
        console.print(f"The same in both: {', '.join(comparison['same'])}.")
