"""How long all figures of a test set take with their intervals: beside scikit-learn in a loop, and for 10 million frames.

    python benchmarks/intervals.py

The loop calls scikit-learn's own functions for each resample, as people write it, for the figures that it has. 10 million frames
of 200,000 videos, a table of predictions, are checked, combined to files, and judged by file, by source and by frame.
"""

import sys
import time
from collections.abc import Callable

import numpy as np
import pandas as pd
from side_by_side import Report, options_parser

OURS, LOOP = "tfdetect", "scikit-learn in a loop"
ROWS, SECONDS = 10_000_000, 60.0  # what the large table may take
FRAMES, VIDEOS_OF_GROUP = 50, 5
TOLERANCE = 0.03  # between ends of intervals of other resamples
FIGURES = ("auc", "ap", "accuracy", "balanced_accuracy", "f1", "mcc", "log_loss", "brier")


def main() -> None:
    """Time both steps."""
    options = options_parser(__doc__, __file__).parse_args()
    report = Report(__file__, options, ["scikit-learn", "numpy", "scipy", "pandas"], {"data": 0})
    draws = 200 if options.quick else 1000
    files = table(2000, 1)
    sides = {OURS: ours(files, draws), LOOP: loop(files, draws)}
    report.compare("intervals", sides, draws, "resamples", lambda results: agree(results[OURS], results[LOOP]))
    report.line("intervals against scikit-learn in a loop", "intervals", OURS, LOOP, 10, 50, "cpu")
    rows = ROWS // 5 if options.quick else ROWS
    seconds = time_summary(table(rows // FRAMES, FRAMES))
    report.facts["seconds for frames"] = {"frames": rows, "seconds": round(seconds, 1)}
    print(f"\nall figures with intervals, by file, source and frame: {rows:,} frames in {seconds:.1f} s")
    report.add_line(f"frames a second against {ROWS:,} in {SECONDS:g} s", rows / seconds / (ROWS / SECONDS), 1, 1.5)
    report.write()


def table(files: int, frames: int) -> pd.DataFrame:
    """Return predictions of so many videos, five to a group, half of them fakes from eight sources."""
    random = np.random.default_rng(0)
    label = random.integers(2, size=files)
    source = np.where(label == 1, np.char.add("gan", (np.arange(files) % 8).astype(str)), "camera").astype(object)
    names = {"path": [f"video{number}.mp4" for number in range(files)], "source": source, "label": label,
             "group": [f"person{number // VIDEOS_OF_GROUP}" for number in range(files)]}  # fmt: skip
    score = np.repeat(label + random.normal(size=files), frames) + 0.3 * random.normal(size=files * frames)
    columns = {name: np.repeat(np.asarray(values, object if name != "label" else int), frames) for name, values in names.items()}
    return pd.DataFrame({**columns, "split": "test", "frame": np.tile(np.arange(frames), files), "score": score,
                         "probability": 1 / (1 + np.exp(0.5 - score)), "log_odds": score - 0.5})  # fmt: skip


def time_summary(frames: pd.DataFrame) -> float:
    """Return the seconds that the summary of a table takes, once."""
    from tfdetect.evaluation.metrics import summarise

    start = time.perf_counter()
    found = summarise(frames, 0.5)
    assert found["by_frame"]["n"] == len(frames) and found["by_frame"]["intervals"]["auc"]
    return time.perf_counter() - start


def ours(files: pd.DataFrame, draws: int) -> Callable[[], np.ndarray]:
    """All figures of all resamples at once."""
    from tfdetect.evaluation.intervals import TestSet

    def ends() -> np.ndarray:
        drawn = TestSet.of(files, 0.5, draws).draw()
        return np.array([np.quantile(drawn[name][1:], [0.025, 0.975]) for name in FIGURES])

    return ends


def loop(files: pd.DataFrame, draws: int) -> Callable[[], np.ndarray]:
    """The same figures by a call of scikit-learn for each resample of the groups."""
    from sklearn import metrics as sk

    label, score, probability = (files[name].to_numpy() for name in ("label", "score", "probability"))
    rows_of_group = list(files.groupby("group").indices.values())

    def figures(rows: np.ndarray) -> list[float]:
        truth, decision, p = label[rows], probability[rows] >= 0.5, probability[rows]
        return [sk.roc_auc_score(truth, score[rows]), sk.average_precision_score(truth, score[rows]),
                sk.accuracy_score(truth, decision), sk.balanced_accuracy_score(truth, decision), sk.f1_score(truth, decision),
                sk.matthews_corrcoef(truth, decision), sk.log_loss(truth, p), sk.brier_score_loss(truth, p)]  # fmt: skip

    def ends() -> np.ndarray:
        random = np.random.default_rng(1)
        chosen = random.integers(len(rows_of_group), size=(draws, len(rows_of_group)))
        drawn = [figures(np.concatenate([rows_of_group[number] for number in groups])) for groups in chosen]
        return np.quantile(drawn, [0.025, 0.975], axis=0).T

    return ends


def agree(one: np.ndarray, other: np.ndarray) -> None:
    """Check that the intervals agree within what other resamples change."""
    np.testing.assert_allclose(one, other, atol=TOLERANCE, rtol=0)


if __name__ == "__main__":
    sys.exit(main())
