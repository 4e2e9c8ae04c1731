"""reproduce: run a recipe, and compare its published figures with those measured here.

A recipe is a run's YAML, as `train --config` reads it, with two more mappings: `published:`, the figures and what is known about
how they were measured, and `dataset:`, the data that it needs. docs/recipes.md says how to write one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tfdetect import backend, config, corruption_spec, files, installation
from tfdetect.api import train as training
from tfdetect.api.load import TrainedDetector
from tfdetect.artifact import Artifact
from tfdetect.errors import UnknownSource, UserError, suggestion
from tfdetect.settings import Run
from tfdetect.workflow import recipe as recipes
from tfdetect.workflow.console import console
from tfdetect.workflow.recipe import Recipe
from tfdetect.workflow.startup import start

if TYPE_CHECKING:
    import pandas as pd

RECIPES = installation.folder("recipes")
STAND_IN_GROUPS, STAND_IN_EPOCHS = 100, 3  # upper limits, so that a stand-in takes minutes on two cores
DIFFERENCE_COLUMNS = ["what", "published", "ours"]


@dataclass(frozen=True)
class Reproduction(TrainedDetector):
    """The run of a recipe, with its figures beside the published ones."""

    @property
    def comparison(self) -> "pd.DataFrame":
        """A row for each published row: its figures, and ours."""
        import pandas as pd

        return pd.DataFrame(files.read_json(self.artifact.comparison, ["rows"], "delete it, and repeat the call.")["rows"])


def reproduce(recipe: str | Path, data: str | Path | None = None, stand_in: bool = False, **settings: Any) -> Reproduction:
    """Repeat a published experiment, and compare its figures with those measured here.

    `recipe` is the name of a recipe or the path of a YAML file, `data` the data set that it needs. With `stand_in`, a smaller
    version runs on the embedded sample instead. All other keywords are flags of the command `train`. Raises UserError for an
    unknown recipe and unless it gets either a data set or a stand-in.
    """
    start(settings.pop("plugin", ()))
    found = recipes.read(find_recipe(str(recipe)))
    with config.parser_errors():
        default = config.parse(["--config", str(found.path)], "reproduce")
        run = parse(found, config.keywords_to_flags(default, config.data_path(data) | settings), stand_in)
    return Reproduction(run_recipe(found, run).folder)


def list_recipes() -> list[Path]:
    """Return the paths of all recipes."""
    return sorted(RECIPES.glob("*.yaml"))


def find_recipe(name: str) -> Path:
    """Return the recipe of that name, or the YAML file at that path. Raises UserError with the nearest name if there is none."""
    if Path(name).suffix in (".yaml", ".yml"):
        return Path(name)
    by_name = {path.stem: path for path in list_recipes()}
    if name not in by_name:
        raise UserError(f"There is no recipe {name!r}.{suggestion(name, by_name)} Recipes: {', '.join(by_name)}.")
    return by_name[name]


def parse(recipe: Recipe, flags: Sequence[str], stand_in: bool) -> Run:
    """Return the recipe's run, overridden by the flags. Raises UserError unless it gets either a data set or a stand-in."""
    argv = ["--config", str(recipe.path)]
    if stand_in:
        argv += stand_in_overrides(config.parse(argv, "reproduce"))
    run = training.resolve_runs(config.parse([*argv, *flags], "reproduce"))
    if stand_in and run.data.path:
        raise UserError("--stand-in and --data.path exclude each other: use either the embedded sample or your files.")
    if not stand_in and not run.data.path:
        raise UserError(f"{recipe.path.stem} needs --data.path: {recipe.dataset['name']}. {recipe.dataset['where']} Expected: "
                        f"{recipe.dataset['layout']}. To try it on the embedded sample, add --stand-in.")  # fmt: skip
    return run


def stand_in_overrides(run: Run) -> list[str]:
    """Return flags that shrink a recipe to a stand-in: few generated files, few epochs, no downloads."""
    data: dict[str, Any] = {"sample": min(STAND_IN_GROUPS, run.data.sample), "faces": "none",  # the sample shows no faces
                            "make_fakes": 0}  # fmt: skip
    steps = corruption_spec.parse(run.train.augment).steps
    augment = "|".join(f"selfblend(0.25,1,p={step.p})" if step.name == "sbi" else str(step) for step in steps)
    for name, source in (("train_sources", "swap"), ("test_sources", "upsample")):
        data |= {name: [source]} if getattr(run.data, name) else {}
    return config.to_flags({"data": data, "train": {"epochs": min(STAND_IN_EPOCHS, run.train.epochs), "augment": augment},
                            "detector": run.detector.offline_overrides})  # fmt: skip


def run_recipe(recipe: Recipe, run: Run) -> Artifact:
    """Train and evaluate; write the comparison to comparison.json and the report."""
    try:
        artifact = training.train_run(run, partial(save_comparison, recipe, run))
    except UnknownSource as error:
        run = use_all_sources(recipe, run, error)
        artifact = training.train_run(run, partial(save_comparison, recipe, run))
    if not backend.worker_index() and not artifact.comparison.exists():  # finished by `train --config`: nothing was left to do
        save_comparison(recipe, run, artifact)
    return artifact


def use_all_sources(recipe: Recipe, run: Run, error: UnknownSource) -> Run:
    """Return the run with all sources, for data that have none of the recipe's. Raises `error` if they have one of them, because
    the data are then incomplete, and if a flag names the source."""
    named = [source for name in recipes.SOURCE_SETTINGS for source in getattr(run.data, name)]
    present = {name.lower() for name in error.known} & {name.lower() for name in named}
    if present or not named or tuple(named) != recipe.sources:
        raise error
    console.print(f"No fakes have the sources of the recipe ({', '.join(named)}): these are other data, and all of their sources "
                  "are used.")  # fmt: skip
    return replace(run, data=replace(run.data, sources=(), train_sources=(), test_sources=()))


def save_comparison(recipe: Recipe, run: Run, artifact: Artifact) -> "Mapping[str, pd.DataFrame]":
    """Write comparison.json into the run's folder; return its tables for the report."""
    import pandas as pd

    comparison = recipes.compare(recipe, run, artifact)
    files.write_json(artifact.comparison, comparison)
    figures = pd.DataFrame(comparison["figures"], dtype=object).map(recipes.format_cell)
    differences = pd.DataFrame(comparison["differences"], columns=DIFFERENCE_COLUMNS).astype(str)
    note = f" ({text})" if (text := recipes.data_note(comparison)) else ""
    return {f"Published figures and ours{note}": figures.rename(columns=recipes.figure_columns(comparison)),
            "Differences between the protocols": differences}
