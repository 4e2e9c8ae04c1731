"""Measure what the package writes itself although a library offers it, beside that library. Comments in the code refer to it.

    python benchmarks/libraries.py

Prints the CPU seconds of each pair, the median of three runs, and their ratio. Both compute the same; the script checks that.
"""

import io
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that it runs from a checkout, installed or not

RNG = np.random.default_rng(0)


def cpu_seconds(function: Callable[[], Any]) -> tuple[float, Any]:
    """Return the median CPU seconds of three calls, and the last result."""
    seconds, result = [], None
    for _ in range(3):
        start = time.process_time()
        result = function()
        seconds.append(time.process_time() - start)
    return statistics.median(seconds), result


def repeat(function: Callable[[], Any], times: int = 1000) -> Callable[[], Any]:
    """Return a function that calls another many times and returns its last result."""

    def call() -> Any:
        for _ in range(times):
            result = function()
        return result

    return call


def components(count: int) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """Return ours and scipy's first member of each one's component among `count` members, joined in pairs."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    from tfdetect.data.components import first_of_component

    names = np.array([f"file-{number:07d}" for number in range(count)])
    pairs = names[RNG.integers(count, size=(count, 2))].tolist()

    def scipy() -> dict[str, str]:
        members = sorted({name for pair in pairs for name in pair})
        number = {name: index for index, name in enumerate(members)}
        ends = np.array([[number[a], number[b]] for a, b in pairs]).T
        component = connected_components(coo_array((np.ones(len(pairs)), tuple(ends)), (len(members),) * 2), directed=False)[1]
        first = np.unique(component, return_index=True)[1]
        return {name: members[first[component[index]]] for index, name in enumerate(members)}

    return lambda: first_of_component(pairs), scipy


def bootstrap(files: int = 2000) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """Return ours and scikit-learn's bootstrap interval of the AUC, 1000 resamples, each file a group of its own."""
    from sklearn.metrics import roc_auc_score

    from tfdetect.evaluation.metrics import auc_interval

    labels = RNG.integers(2, size=files)
    scores = labels + RNG.normal(size=files)

    def sklearn() -> list[float]:
        draws = np.random.default_rng(0).integers(files, size=(1000, files))
        return list(np.quantile([roc_auc_score(labels[rows], scores[rows]) for rows in draws], [0.025, 0.975]))

    return lambda: auc_interval(labels, scores, np.arange(files)), sklearn


def f1(files: int = 2000, thresholds: int = 400) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """Return ours and scikit-learn's F1 of the fake class at many thresholds."""
    from sklearn.metrics import f1_score

    from tfdetect.evaluation.calibration import f1_scores

    labels, values = RNG.integers(2, size=files), np.linspace(0.01, 0.99, thresholds)
    scores = RNG.random(files)
    return lambda: f1_scores(scores, labels, values)[0], lambda: [f1_score(labels, scores >= value) for value in values]


def sizes(form: str) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """Return ours and Pillow's width and height of an encoded photograph-like image, 1000 times."""
    from tfdetect.data.media import images, sniff

    buffer = io.BytesIO()
    Image.fromarray(RNG.integers(0, 256, (300, 400, 3), np.uint8)).save(buffer, form)
    data = bytearray(buffer.getvalue())
    read = images._SIZE_READERS[sniff.image_format(data)]
    return repeat(lambda: read(data)[:2]), repeat(lambda: Image.open(io.BytesIO(data)).size)


def mean_of_a_file() -> tuple[Callable[[], Any], Callable[[], Any]]:
    """Return ours and pandas' mean score of the eight frames of a file, 1000 times."""
    from tfdetect.evaluation.predictions import file_scores

    scores = RNG.normal(size=8).astype(np.float32)
    table = pd.DataFrame({"path": "a", "group": "a", "source": "", "label": 0, "score": scores})
    return repeat(lambda: np.mean(scores, dtype=np.float64)), repeat(lambda: file_scores(table)["score"].iloc[0])


def main() -> None:
    """Print the table."""
    cases = {
        "connected components, 100,000 members: scipy": components(100_000),
        "connected components, 500,000 members: scipy": components(500_000),
        "bootstrap of the AUC, 2,000 files: scikit-learn": bootstrap(),
        "F1 at 400 thresholds, 2,000 files: scikit-learn": f1(),
        **{f"size of a {form}, 1,000 times: Pillow": sizes(form) for form in ("JPEG", "PNG", "WEBP", "BMP", "TIFF")},
        "mean of a file's frames, 1,000 times: pandas": mean_of_a_file(),
    }
    print(f"{'what, and which library':52}{'ours':>10}{'library':>10}{'ratio':>8}")
    for name, (ours, library) in cases.items():
        (mine, a), (theirs, b) = cpu_seconds(ours), cpu_seconds(library)
        tolerance = 0.01 if "bootstrap" in name else 1e-9  # other resamples
        if not (a == b if isinstance(a, dict) else np.allclose(a, b, atol=tolerance, rtol=0)):
            warnings.warn(f"{name}: the results differ, {a} and {b}", stacklevel=1)
        print(f"{name:52}{mine:9.4f}s{theirs:9.4f}s{theirs / max(mine, 1e-9):8.1f}")


if __name__ == "__main__":
    main()
