"""reproduce: run a recipe, and compare its published figures with those measured here.

A recipe is a run's YAML, as `train --config` reads it, with two more mappings: `published:`, the figures and what is known about
how they were measured, and `dataset:`, the data that it needs. docs/recipes.md says how to write one.
"""

import difflib
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tfdetect import backend, config, files
from tfdetect.artifact import Artifact
from tfdetect.errors import UserError
from tfdetect.settings import Run
from tfdetect.verbs import train as training
from tfdetect.workflow import recipe as recipes
from tfdetect.workflow.console import console
from tfdetect.workflow.recipe import Recipe

if TYPE_CHECKING:
    import pandas as pd

RECIPES = Path(__file__).resolve().parents[2] / "recipes"  # present in a checkout only
STAND_IN_FLAGS = ("--stand-in", "--stand_in")
STAND_IN_GROUPS, STAND_IN_EPOCHS = 100, 3  # upper limits, so that a stand-in takes minutes on two cores
DIFFERENCE_COLUMNS = ["what", "published", "ours"]


def main(argv: Sequence[str]) -> int:
    """Find the recipe, train, and compare."""
    words = [word for word in argv if word not in STAND_IN_FLAGS]
    if not words or words[0] in ("-h", "--help"):
        print(usage())
        return 0 if words else 2
    recipe = recipes.read(find_recipe(words[0]))
    run = parse(recipe, words[1:], len(words) < len(argv))
    console.print(f"{recipe.title}\n{recipe.source}")
    for note in recipe.notes:
        console.print(f"- {note}")
    reproduce(recipe, run)
    return 0


def usage() -> str:
    """Return what `reproduce --help` prints without a recipe: all recipes, one per line."""
    width = max(len(path.stem) for path in list_recipes()) + 2
    lines = "\n".join(f"  {path.stem:{width}}{recipes.read(path).title}" for path in list_recipes())
    forms = "reproduce.py RECIPE --data.path DIR [--flags of train]  |  reproduce.py RECIPE --stand-in [--flags of train]"
    return (f"{forms}\n\n{lines}\n\nRECIPE is one of these or a YAML file. --stand-in runs a smaller version on the embedded "
            "sample.\n`reproduce.py RECIPE --help` lists the flags.")  # fmt: skip


def list_recipes() -> list[Path]:
    """Return all recipes of this checkout. Raises UserError if there are none."""
    paths = sorted(RECIPES.glob("*.yaml"))
    if not paths:
        raise UserError("No recipes are installed: they come with the source, in recipes/. Give the path of a YAML file.")
    return paths


def find_recipe(name: str) -> Path:
    """Return the recipe of that name, or the YAML file at that path. Raises UserError with the nearest name if there is none."""
    if Path(name).suffix in (".yaml", ".yml"):
        return Path(name)
    by_name = {path.stem: path for path in list_recipes()}
    if name not in by_name:
        nearest = difflib.get_close_matches(name, by_name, n=1)
        hint = f" Perhaps you meant {nearest[0]}." if nearest else ""
        raise UserError(f"There is no recipe {name!r}.{hint} Recipes: {', '.join(by_name)}.")
    return by_name[name]


def parse(recipe: Recipe, flags: Sequence[str], stand_in: bool) -> Run:
    """Return the recipe's run, overridden by the flags. Raises UserError unless it gets either a data set or a stand-in."""
    argv = ["--config", str(recipe.path)]
    if stand_in:
        argv += stand_in_overrides(config.parse(argv, "reproduce.py"))
    run = training.parse([*argv, *flags], "reproduce.py")
    if stand_in and run.data.path:
        raise UserError("--stand-in and --data.path exclude each other: use either the embedded sample or your files.")
    if not stand_in and not run.data.path:
        raise UserError(f"{recipe.path.stem} needs --data.path: {recipe.dataset['name']}. {recipe.dataset['where']} Expected: "
                        f"{recipe.dataset['layout']}. To try it on the embedded sample, add --stand-in.")  # fmt: skip
    return run


def stand_in_overrides(run: Run) -> list[str]:
    """Return flags that shrink a recipe to a stand-in: few generated files, few epochs, no downloads."""
    data: dict[str, Any] = {"sample": min(STAND_IN_GROUPS, run.data.sample), "faces": "none"}  # the sample shows no faces
    for name, source in (("train_sources", "swap"), ("test_sources", "upsample")):
        data |= {name: [source]} if getattr(run.data, name) else {}
    return config.to_flags({"data": data, "train": {"epochs": min(STAND_IN_EPOCHS, run.train.epochs)},
                         "detector": run.detector.offline_overrides})  # fmt: skip


def reproduce(recipe: Recipe, run: Run) -> None:
    """Train and evaluate; write the comparison to comparison.json and the report, and print it."""
    artifact = training.train(run, partial(save_comparison, recipe, run))
    if backend.worker_index():
        return
    if not artifact.comparison.exists():  # the run was finished by `train --config`, so `train` had nothing left to do
        save_comparison(recipe, run, artifact)
    print_comparison(files.read_json(artifact.comparison, ["title", "rows"], "delete it, and repeat the command."))


def save_comparison(recipe: Recipe, run: Run, artifact: Artifact) -> "Mapping[str, pd.DataFrame]":
    """Write comparison.json into the run's folder; return its tables for the report."""
    import pandas as pd

    comparison = recipes.compare(recipe, run, artifact)
    files.write_json(artifact.comparison, comparison)
    rows = pd.DataFrame(comparison["rows"]).rename(columns=recipes.readable).rename(columns={"row": ""})
    differences = pd.DataFrame(comparison["differences"], columns=DIFFERENCE_COLUMNS).astype(str)
    return {"Published figures and ours": rows, "Differences between the protocols": differences}


def print_comparison(comparison: Mapping[str, Any]) -> None:
    """Print the published figures beside ours, and how the two protocols differ."""
    from rich.table import Table

    def table(columns: Sequence[str], rows: Sequence[Mapping[str, Any]], **header: str) -> Table:
        grid = Table(*(header.get(name, recipes.readable(name)) for name in columns))
        for row in rows:
            grid.add_row(*(recipes.format_cell(row[name]) for name in columns))
        return grid

    console.print(f"\n{comparison['title']}")
    figures = [name for name in comparison["rows"][0] if name != "row"]
    console.print(table(["row", *figures], comparison["rows"], row=""))
    for warning in comparison.get("warnings", ()):
        console.print(warning)
    console.print(table(DIFFERENCE_COLUMNS, comparison["differences"], what="setting"))
    if comparison["same"]:
        console.print(f"The same in both: {', '.join(comparison['same'])}.")
