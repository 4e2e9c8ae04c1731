"""The report's section "What it learnt": the AUC of altered test files, and the training files nearest to the worst mistakes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tfdetect.pages import html
from tfdetect.plots import standard

if TYPE_CHECKING:
    from matplotlib.figure import Figure

QUESTION = ("Did it learn the forgery, or something else in which the classes differ, such as camera, compression or motif?")
ALTERED = ("A detector of forgeries gets worse step by step as details are lost. One that goes by how the files were made fails "
           "once they are saved again.")  # fmt: skip
NEAREST = ("The most confident mistakes on test files, each beside the three training files nearest to it. If neighbours of the "
           "other class share its motif, pose or light, the detector may go by these.")  # fmt: skip
CLASSES = ("real", "fake")
STABILITY = (("verdicts that changed side", "flipped"), ("that became inconclusive", "became_inconclusive"))


@dataclass(frozen=True)
class Picture:
    """A file as the section shows it."""

    path: str
    label: int  # 0 real, 1 fake
    source: str
    image: NDArray[np.uint8]  # RGB (height, width, 3)


@dataclass(frozen=True)
class Mistake:
    """A misjudged test file."""

    test: Picture
    probability: float  # of being fake, 0..1
    neighbours: Sequence[Picture]  # training files, the nearest first


@dataclass(frozen=True)
class Learnt:
    """Content of the section; parts without content are left out."""

    stress: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # summaries, by the keys of `standard.STRESS_NAMES`
    conclusion: str = ""  # about the stress
    equalised: Mapping[str, Any] = field(default_factory=dict)  # summary of equalised test files
    equalised_note: str = ""  # what it says, or why there is none
    tested: int = 0  # number of test files, of which `stress` has a sample
    mistakes: Sequence[Mistake] = ()
    mistakes_note: str = ""
    warnings: tuple[str, ...] = ()

    @property
    def metrics(self) -> dict[str, Any]:
        """What metrics.json says."""
        return {**({"stress": self.stress} if self.stress else {}), **({"equalised": self.equalised} if self.equalised else {})}


def learnt_section(learnt: Learnt | None, shortcut: float | None, figure: Figure | Path | None) -> str:
    """Return the section as HTML, "" if empty. `shortcut` is the AUC of file properties alone, `figure` shows the stress."""
    parts = "" if learnt is None else _altered(learnt, shortcut, figure) + _nearest(learnt)
    return f"<section><h2>What it learnt</h2><p>{QUESTION}</p>{parts}</section>" if parts else ""


def _altered(learnt: Learnt, shortcut: float | None, figure: Figure | Path | None) -> str:
    if not learnt.stress:
        return ""
    count = learnt.stress[standard.UNCHANGED]["n"]
    table = html.table(*stress_table(learnt, shortcut))
    drawn = html.figure(standard.caption("stress"), figure) if figure else ""
    conclusion = f"<p><b>{escape(learnt.conclusion)}</b></p>" if learnt.conclusion else ""
    files = f"Measured on {count} of {learnt.tested} test files, the same in each row."
    equalised = f"<p>{escape(learnt.equalised_note)}</p>" if learnt.equalised_note else ""
    return (f"<h3>Altered test files</h3>{conclusion}<p>{ALTERED} {files}</p>"
            f'{table}<div class="figures">{drawn}</div>{equalised}')  # fmt: skip


def stress_table(learnt: Learnt, shortcut: float | None) -> tuple[list[str], list[list[Any]]]:
    """Return header and rows of the AUCs of altered test files, and of how many of their verdicts changed.

    Runs that were evaluated by an older version know the AUCs only.
    """
    shown = [(name, key) for name, key in STABILITY if any(row.get(key) is not None for row in learnt.stress.values())]
    ends = [name for key, _ in shown for name in (key, "95 % interval")]
    rows = [[standard.STRESS_NAMES[key], row["auc"], row["auc_interval"],
             *(row.get(f"{name}{part}") for _, name in shown for part in ("", "_interval"))]
            for key, row in learnt.stress.items()]  # fmt: skip
    rows += [["equalised (see below)", learnt.equalised["auc"], learnt.equalised["auc_interval"]]] if learnt.equalised else []
    rows += [["file properties alone (shortcuts)", shortcut, None]] if shortcut is not None else []
    return ["test files", "AUC", "95 % interval", *ends], [[*row, *[None] * (3 + len(ends) - len(row))] for row in rows]


def _nearest(learnt: Learnt) -> str:
    if not learnt.mistakes:
        return f"<p>{escape(learnt.mistakes_note)}</p>" if learnt.mistakes_note and learnt.stress else ""
    shown = "".join(_mistake(mistake) for mistake in learnt.mistakes)
    return (f"<h3>Nearest training files</h3><p>{NEAREST} {escape(learnt.mistakes_note)}</p>"
            f'<figure class="neighbours">{shown}</figure>')  # fmt: skip


def _mistake(mistake: Mistake) -> str:
    verdict = f"test, called {CLASSES[1 - mistake.test.label]} (probability {100 * mistake.probability:.1f} %)"
    return f"<div>{_picture(mistake.test, verdict)}{''.join(_picture(each, 'training') for each in mistake.neighbours)}</div>"


def _picture(picture: Picture, role: str) -> str:
    kind = CLASSES[picture.label]
    source = f"{escape(picture.source)}<br>" if picture.source else ""
    caption = f"<b>{kind}</b>, {role}<br>{source}<code>{escape(Path(picture.path).name)}</code>"
    return (f'<figure class="{kind}"><img alt="" src="{html.thumbnail(picture.image)}"><figcaption>{caption}</figcaption>'
            "</figure>")  # fmt: skip
