"""reproduce: run a recipe, and put its published row next to ours, with what differs between the two.

A recipe is a run's YAML, as `train --config` reads it, with two mappings more: `published:`, the figures and what is known
of how they came about, and `dataset:`, what it takes. docs/recipes.md says how to write one.
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
from tfdetect.workflow import recipe as workflow_recipe
from tfdetect.workflow.console import console
from tfdetect.workflow.recipe import Recipe

if TYPE_CHECKING:
    import pandas as pd

RECIPES = Path(__file__).resolve().parents[2] / "recipes"  # of a checkout
STAND_IN = ("--stand-in", "--stand_in")
SIDES = ["what", "published", "ours"]
GROUPS, EPOCHS = 100, 3  # of a stand-in, at most: it shows that all runs, in minutes on two cores


def main(argv: Sequence[str]) -> int:
    """Find the recipe, train, compare."""
    words = [word for word in argv if word not in STAND_IN]
    if not words or words[0] in ("-h", "--help"):
        print(usage())
        return 0 if words else 2
    recipe = workflow_recipe.read(find(words[0]))
    run = parse(recipe, words[1:], len(words) < len(argv))
    console.print(f"{recipe.title}\n{recipe.source}")
    for note in recipe.notes:
        console.print(f"- {note}")
    reproduce(recipe, run)
    return 0


def usage() -> str:
    """What there is, a line each."""
    width = max(len(path.stem) for path in recipes()) + 2
    lines = "\n".join(f"  {path.stem:{width}}{workflow_recipe.read(path).title}" for path in recipes())
    ways = "reproduce.py RECIPE --data.path DIR [--flags of train]  |  reproduce.py RECIPE --stand-in [--flags of train]"
    return (f"{ways}\n\n{lines}\n\nRECIPE is one of these or a YAML file. --stand-in runs it on the embedded sample, smaller.\n"
            "`reproduce.py RECIPE --help` lists the flags.")


def recipes() -> list[Path]:
    """All recipes of this checkout. ValueError where there are none."""
    found = sorted(RECIPES.glob("*.yaml"))
    if not found:
        raise UserError("No recipes are installed here: they are in recipes/ of the source; give the path of a YAML.")
    return found


def find(name: str) -> Path:
    """The recipe of that name, or the YAML file at that path. ValueError with the nearest name for a misspelt one."""
    if Path(name).suffix in (".yaml", ".yml"):
        return Path(name)
    known = {path.stem: path for path in recipes()}
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f" Perhaps you meant {near[0]}." if near else ""
        raise UserError(f"There is no recipe {name!r}.{hint} Recipes: {', '.join(known)}.")
    return known[name]


def parse(recipe: Recipe, given: Sequence[str], stand_in: bool) -> Run:
    """The recipe's run; the given flags win. ValueError where its data set is not there and no stand-in is asked for."""
    argv = ["--config", str(recipe.path)]
    if stand_in:
        argv += smaller(config.parse(argv, "reproduce.py"))
    run = training.parse([*argv, *given], "reproduce.py")
    if stand_in and run.data.path:
        raise UserError("--stand-in and --data.path exclude each other: the embedded sample or your files?")
    if not stand_in and not run.data.path:
        raise UserError(f"{recipe.path.stem} needs --data.path: {recipe.dataset['name']}. {recipe.dataset['where']} Expected: "
                         f"{recipe.dataset['layout']}. --stand-in shows it on the embedded sample.")  # fmt: skip
    return run


def smaller(run: Run) -> list[str]:
    """Flags that make a stand-in of a recipe: few drawn files, few epochs, nothing to download."""
    asked: dict[str, Any] = {"sample": min(GROUPS, run.data.sample), "faces": "none"}  # nobody's face is in the sample
    for name, source in (("train_sources", "swap"), ("test_sources", "upsample")):
        asked |= {name: [source]} if getattr(run.data, name) else {}
    return config.to_flags({"data": asked, "train": {"epochs": min(EPOCHS, run.train.epochs)},
                         "detector": run.detector.offline_overrides})  # fmt: skip


def reproduce(recipe: Recipe, run: Run) -> None:
    """Train, judge, and put the comparison beside the result: comparison.json, the report, the screen."""
    artifact = training.train(run, partial(keep, recipe, run))
    if backend.worker_index():
        return
    if not artifact.comparison.exists():  # `train --config` had made it, and --resume found it finished
        keep(recipe, run, artifact)
    say(files.read_json(artifact.comparison, ["title", "rows"], "delete it, and repeat the command."))


def keep(recipe: Recipe, run: Run, artifact: Artifact) -> "Mapping[str, pd.DataFrame]":
    """comparison.json into the run's folder; its tables, for the report."""
    import pandas as pd

    found = workflow_recipe.compare(recipe, run, artifact)
    files.write_json(artifact.comparison, found)
    rows = pd.DataFrame(found["rows"]).rename(columns=workflow_recipe.words).rename(columns={"row": ""})
    differences = pd.DataFrame(found["differences"], columns=SIDES).astype(str)
    return {"Published and ours": rows, "What differs, or may": differences}


def say(found: Mapping[str, Any]) -> None:
    """The published row next to ours, and what differs."""
    from rich.table import Table

    def table(names: Sequence[str], rows: Sequence[Mapping[str, Any]], **header: str) -> Table:
        grid = Table(*(header.get(name, workflow_recipe.words(name)) for name in names))
        for row in rows:
            grid.add_row(*(workflow_recipe.text(row[name]) for name in names))
        return grid

    console.print(f"\n{found['title']}")
    figures = [name for name in found["rows"][0] if name != "row"]
    console.print(table(["row", *figures], found["rows"], row=""))
    for warning in found.get("warnings", ()):
        console.print(warning)
    console.print(table(SIDES, found["differences"], what="what differs, or may"))
    if found["same"]:
        console.print(f"The same in both: {', '.join(found['same'])}.")
