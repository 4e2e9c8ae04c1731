"""Several trainings with one report: what `train` returns for folds, sources left out, amounts of data, seeds and searches."""

from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tfdetect import files
from tfdetect.api.load import TrainedDetector, load
from tfdetect.api.results import show_page
from tfdetect.artifact import Artifact

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Study:
    """The folder of a study. A notebook shows the head of its report."""

    folder: Path

    @property
    def report(self) -> Path:
        """The page report.html."""
        return Artifact(self.folder).report

    @property
    def results(self) -> dict[str, Any]:
        """What the trainings say together, as study.json has it; docs/protocols.md names the keys."""
        return dict(self._content["results"])

    @property
    def members(self) -> "pd.DataFrame":
        """A row per training: name, what distinguishes it (fold, left_out, amount, seed, or the settings of a trial), state
        (finished or failed), reason and minutes."""
        import pandas as pd

        keys = ("state", "reason", "minutes")
        return pd.DataFrame([{"name": each["name"], **each["factors"], **{key: each[key] for key in keys}}
                             for each in self._content["members"]])  # fmt: skip

    @property
    def predictions(self) -> "pd.DataFrame":
        """The content of predictions.csv: a row per test file; for folds with a score, else with one of each training."""
        import pandas as pd

        return pd.read_csv(Artifact(self.folder).predictions, keep_default_na=False, na_values={"score": [""]})

    @property
    def best(self) -> TrainedDetector:
        """The detector that a search chose. Raises KeyError for other studies, which choose none."""
        return load(self.folder / self.results["best"])

    @property
    def _content(self) -> dict[str, Any]:
        return files.read_json(self.folder / "study.json", ("members", "results"), "repeat the call that made the study.")

    def __getitem__(self, name: str) -> TrainedDetector:
        """Return the trained detector of a member, such as study["fold-1"]; errors as `load` raises them."""
        return load(self.folder / name)

    def _repr_html_(self) -> str:
        return show_page(self.report, head=True) if self.report.exists() else f"<code>{escape(repr(self))}</code>"
