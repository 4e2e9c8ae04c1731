"""What connects the training files of a data set with those that a detector is judged on: what was looked for, and found."""

from typing import TYPE_CHECKING

from tfdetect.files import plural
from tfdetect.workflow.dataset import NEAR, content_hashes

if TYPE_CHECKING:
    import pandas as pd

TRAINED_ON = "trained on"  # attribute of a table, like NEAR: what the search for these files found, as text


def find(table: "pd.DataFrame") -> list[tuple[str, str]]:
    """Return (what was looked for, what was found) for the prepared manifest of a training or of an evaluation."""
    from tfdetect.data.prepare.decode import usable_rows

    good = usable_rows(table)
    out = []
    if good["split"].nunique() > 1:
        found = {"Groups in more than one split": _shared(good["group"], good["split"]),
                 "Files of the same content in more than one split": _shared(content_hashes(good), good["split"])}  # fmt: skip
        out += [(name, f"{count:,} found" if count else "none found") for name, count in found.items()]
    names = {NEAR: "Near duplicates of training files in validation and test",
             TRAINED_ON: "Training files, near duplicates of them, and others of their groups"}  # fmt: skip
    return out + [(name, table.attrs[key]) for key, name in names.items() if key in table.attrs]


def left_out(count: int) -> str:
    """Return what was found of files that were then left out."""
    return f"{plural(count, 'file')} found, and left out" if count else "none found"


def _shared(keys: "pd.Series | list[str]", splits: "pd.Series") -> int:
    """Return how many keys are in more than one split."""
    import pandas as pd

    return int((pd.Series(splits.to_numpy()).groupby(list(keys)).nunique() > 1).sum())
