"""What was measured on a set of files, as `train` and `evaluate` leave it in a folder."""

from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tfdetect import files
from tfdetect.artifact import Artifact

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Results:
    """A folder with the scores, metrics and report of files. A notebook shows the head of the report."""

    folder: Path

    @property
    def artifact(self) -> Artifact:
        """The paths of the files in the folder."""
        return Artifact(self.folder)

    @property
    def report(self) -> Path:
        """The page report.html."""
        return self.artifact.report

    @property
    def metrics(self) -> Mapping[str, Any]:
        """The content of metrics.json: the metrics of each split, such as `metrics["test"]["auc"]`."""
        return files.read_json(self.artifact.metrics, (), "evaluate the run again.")

    @property
    def predictions(self) -> "pd.DataFrame":
        """A row per file, or per frame: path, label (1 is fake), group, source, split, frame, score and probability."""
        from tfdetect.evaluation import predictions

        return predictions.read(self.artifact.predictions)

    @property
    def figures(self) -> list[Path]:
        """The figures of the report, as PNG files."""
        return sorted(self.artifact.plots.glob("*.png"))

    def _repr_html_(self) -> str:
        return show_page(self.report, head=True) if self.report.exists() else f"<code>{escape(repr(self))}</code>"


@dataclass(frozen=True)
class Matrix(Results):
    """The folder of runs that were evaluated on several data sets. `report` is the page with all of them."""

    @property
    def metrics(self) -> Mapping[str, Any]:
        """The content of matrix.json: rows (runs), columns (data sets), cells and counts."""
        return files.read_json(self.folder / "matrix.json", ["cells"], "evaluate the runs again.")

    @property
    def predictions(self) -> "pd.DataFrame":
        """The predictions of all cells that could be computed, with the columns run and data."""
        import pandas as pd

        cells = [cell for cell in self.metrics["cells"] if cell["report"]]
        tables = [Results((self.folder / cell["report"]).parent).predictions for cell in cells]
        return pd.concat([table.assign(run=cell["run"], data=cell["data"]) for table, cell in zip(tables, cells, strict=True)])

    @property
    def table(self) -> "pd.DataFrame":
        """A row for each cell: run, data, auc, auc_interval, balanced_accuracy and so on, and why something is missing."""
        import pandas as pd

        return pd.DataFrame(self.metrics["cells"])


@dataclass(frozen=True)
class Comparison(Results):
    """The folder of a comparison of runs. `report` is the page with all of them side by side."""

    @property
    def metrics(self) -> Mapping[str, Any]:
        """The content of compare.json: members (runs), differences between them, and conclusion."""
        return files.read_json(self.folder / "compare.json", ["members"], "compare the runs again.")


def show_page(path: Path, head: bool = False) -> str:
    """Return a page, or its head up to the first figure, as HTML for a notebook, in a frame of its own and with its path."""
    from tfdetect.pages import html

    page = path.read_text(encoding="utf-8")
    page = html.head(page) if head else page
    return (f'<iframe sandbox srcdoc="{escape(page)}" style="width:100%;height:32rem;border:1px solid #d9e0e7"></iframe>'
            f"<p><code>{escape(files.printable(str(path)))}</code></p>")  # fmt: skip
