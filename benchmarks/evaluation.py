"""How long judging takes, beside the straightforward version of each step: scikit-learn in a loop, as people write it.

    python benchmarks/evaluation.py

The steps are those of `evaluate` and `audit`: the confidence interval of the AUC, all metrics of a test set, scores after five
corruptions, copies of files, near copies of pictures, and what file properties alone tell. Both sides must find the same; the
intervals and the AUCs of properties agree within what other resamples and other trees change.
"""

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from side_by_side import Report, options_parser

OURS, LOOP = "tfdetect", "straightforward"
TOLERANCE = 0.02  # between AUCs of other resamples
AIM = 5.0  # times as fast; there is no bound
Sides = tuple[Callable[[], Any], Callable[[], Any]]  # ours, the straightforward version


def main() -> None:
    """Time all steps."""
    options = options_parser(__doc__, __file__).parse_args()
    report = Report(__file__, options, ["scikit-learn", "numpy", "pandas", "tensorflow", "keras"], {"data": 0})
    share = 5 if options.quick else 1
    with tempfile.TemporaryDirectory() as folder:
        steps: dict[str, tuple[Sides, int, str, Callable[[Any, Any], Any]]] = {
            "bootstrap interval": (bootstrap(2000 // share), 1000, "resamples", close(TOLERANCE)),
            "metrics with intervals": (metrics(2000 // share), 2000 // share, "files", close(TOLERANCE)),
            "F1 at every threshold": (thresholds(2000 // share), 2000 // share, "thresholds", close(1e-9)),
            "robustness sweep": (sweep(200 // share), 5 * 200 // share, "clips", close(1e-4)),
            "copies": (copies(1000 // share, Path(folder)), 1000 // share, "files", equal),
            "near copies": (near_copies(4000 // share), 4000 // share, "pictures", equal),
            "shortcuts": (shortcuts(1000 // share), 1000 // share, "files", close(0.1)),
        }
        for name, ((ours, loop), items, unit, agree) in steps.items():
            check = lambda results, agree=agree: agree(results[OURS], results[LOOP])  # noqa: E731
            report.compare(name, {OURS: ours, LOOP: loop}, items, unit, check)
            report.line(f"{name} against the straightforward version", name, OURS, LOOP, None, AIM, "cpu")
    report.write()


def close(tolerance: float) -> Callable[[Any, Any], None]:
    """Return a check that all numbers agree within a tolerance."""

    def check(ours: Any, theirs: Any) -> None:
        np.testing.assert_allclose(np.asarray(ours, float), np.asarray(theirs, float), atol=tolerance, rtol=0)

    return check


def equal(ours: Any, theirs: Any) -> None:
    """Check that both are the same."""
    assert ours == theirs, (len(ours), len(theirs))


def scored(files: int) -> tuple[np.ndarray, np.ndarray]:
    """Return labels and scores (files,)."""
    rng = np.random.default_rng(0)
    labels = rng.integers(2, size=files)
    return labels, labels + rng.normal(size=files)


def bootstrap_loop(labels: np.ndarray, scores: np.ndarray) -> list[float]:
    """Return the 95 % interval of the AUC from 1,000 calls of `roc_auc_score`."""
    from sklearn.metrics import roc_auc_score

    draws = np.random.default_rng(0).integers(len(labels), size=(1000, len(labels)))
    return list(np.quantile([roc_auc_score(labels[rows], scores[rows]) for rows in draws], [0.025, 0.975]))


def bootstrap(files: int) -> Sides:
    """The confidence interval of the AUC, each file a group of its own."""
    from tfdetect.evaluation.metrics import auc_interval

    labels, scores = scored(files)
    return lambda: auc_interval(labels, scores, np.arange(files)), lambda: bootstrap_loop(labels, scores)


def metrics(files: int) -> Sides:
    """All metrics of a test set with four sources of fakes, each with its interval."""
    import pandas as pd
    from sklearn import metrics as sk

    from tfdetect.evaluation.metrics import summarise

    labels, scores = scored(files)
    probabilities = 1 / (1 + np.exp(1 - 2 * scores))
    source = np.where(labels == 1, np.char.add("gan", (np.arange(files) % 4).astype(str)), "camera")
    table = pd.DataFrame({"path": [f"{number}.jpg" for number in range(files)], "label": labels, "source": source, "frame": 0,
                          "group": np.arange(files).astype(str), "split": "test", "score": scores,
                          "probability": probabilities})  # fmt: skip

    def ours() -> list[float]:
        found = summarise(table, 0.5)
        sources = [found["by_source"][f"gan{number}"] for number in range(4)]
        return [found["auc"], *found["auc_interval"], found["ap"], found["accuracy"], found["f1"], found["log_loss"],
                *(value for row in sources for value in (row["auc"], *row["auc_interval"], row["recall"]))]  # fmt: skip

    def loop() -> list[float]:
        fake = probabilities >= 0.5
        out = [sk.roc_auc_score(labels, scores), *bootstrap_loop(labels, scores), sk.average_precision_score(labels, scores),
               sk.accuracy_score(labels, fake), sk.f1_score(labels, fake), sk.log_loss(labels, probabilities)]  # fmt: skip
        for number in range(4):
            rows = (labels == 0) | (source == f"gan{number}")
            out += [sk.roc_auc_score(labels[rows], scores[rows]), *bootstrap_loop(labels[rows], scores[rows]),
                    sk.recall_score(labels[rows], fake[rows])]  # fmt: skip
        return out

    return ours, loop


def thresholds(files: int) -> Sides:
    """F1 of the fake class at the score of every file, from which a threshold is chosen."""
    from sklearn.metrics import f1_score

    from tfdetect.evaluation.calibration import f1_scores

    labels, scores = scored(files)
    values = np.unique(scores)
    return lambda: f1_scores(scores, labels, values)[0], lambda: [f1_score(labels, scores >= value) for value in values]


def sweep(files: int) -> Sides:
    """Scores of pictures of 128 pixels after five corruptions: in a graph per corruption, and eagerly, one picture at a time."""
    import keras
    import tensorflow as tf

    from tfdetect.data.input_pipeline import corruptions
    from tfdetect.models.detectors.cnn import Cnn
    from tfdetect.plots.standard import STRESS_NAMES, UNCHANGED

    keras.utils.set_random_seed(0)
    model = Cnn().build((1, 128, 128, 3))
    clips = np.random.default_rng(0).integers(0, 256, (files, 1, 128, 128, 3), np.uint8)
    chains = [corruptions.parse(text) for text in STRESS_NAMES if text != UNCHANGED]
    compiled, call = [chain.compiled() for chain in chains], tf.function(lambda batch: model(batch, training=False))
    labels, seed = np.zeros((64, 1), np.float32), np.array([0, 0], np.int32)

    def ours() -> list[np.ndarray]:
        return [np.concatenate([call(chain(clips[start : start + 64], labels[: len(clips) - start], seed)[0]).numpy()
                                for start in range(0, files, 64)])[:, 0] for chain in compiled]  # fmt: skip

    def loop() -> list[np.ndarray]:
        out = []
        for chain in chains:
            changed = np.concatenate([chain(clip[None], labels[:1], seed)[0].numpy() for clip in clips])
            out.append(model.predict(changed, verbose=0)[:, 0])
        return out

    return ours, loop


def copies(files: int, folder: Path) -> Sides:
    """Files with equal bytes among files of 200 kB, every tenth a copy, and hashing all of them."""
    import hashlib

    from tfdetect.data.audit.copies import find_copies

    rng, paths = np.random.default_rng(0), []
    for number in range(files):
        paths.append(folder / f"{number}.bin")
        paths[-1].write_bytes(paths[-2].read_bytes() if number % 10 == 9 else rng.bytes(200_000 + number))

    def groups(keys: list[str]) -> list[list[int]]:
        return [[place for place, key in enumerate(keys) if key == known] for known in dict.fromkeys(filter(None, keys))]

    def loop() -> list[list[int]]:
        hashes = [hashlib.sha256(path.read_bytes()).hexdigest() for path in paths]
        return groups([key if hashes.count(key) > 1 else "" for key in hashes])

    return lambda: groups(find_copies(list(map(str, paths)), 2)), loop


def near_copies(pictures: int) -> Sides:
    """Pairs of pictures whose perceptual hashes differ in few bits and whose small grey images correlate: all against all."""
    import pandas as pd

    from tfdetect.data.audit.duplicates import MAX_HASH_DISTANCE, find_near_pairs
    from tfdetect.data.layouts.grouping import MIN_CORRELATION

    rng = np.random.default_rng(0)
    hashes = rng.integers(0, 2**63, pictures).astype(np.uint64)
    small = rng.integers(0, 256, (pictures, 1, 16, 16)).astype(np.uint8)
    for copy in range(1, pictures, 20):  # each differs in six bits from the one before
        flipped = sum(1 << int(bit) for bit in rng.choice(64, 6, replace=False))
        hashes[copy], small[copy] = hashes[copy - 1] ^ np.uint64(flipped), small[copy - 1]
    table = pd.DataFrame({"hashes": [hashes[place : place + 1] for place in range(pictures)], "small": list(small)})

    numbers = hashes.tolist()

    def loop() -> list[tuple[int, int]]:
        return [(one, other) for one in range(pictures) for other in range(one + 1, pictures)
                if (numbers[one] ^ numbers[other]).bit_count() <= MAX_HASH_DISTANCE
                and np.corrcoef(small[one].ravel(), small[other].ravel())[0, 1] >= MIN_CORRELATION]  # fmt: skip

    return lambda: sorted(find_near_pairs(table, np.arange(pictures), np.arange(pictures))), loop


def shortcuts(files: int) -> Sides:
    """How well each of five file properties tells the label: our trees, and scikit-learn's boosted trees as they come."""
    import pandas as pd
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.model_selection import cross_val_score

    from tfdetect.data.audit.shortcuts import grouped_folds, held_out_auc

    rng = np.random.default_rng(0)
    labels = rng.integers(2, size=files)
    strengths = np.linspace(0, 2, 5)
    values = pd.DataFrame(labels[:, None] * strengths + rng.normal(size=(files, 5))).to_numpy()
    folds = grouped_folds(labels, np.arange(files).astype(str))

    def loop() -> list[float]:
        trees = HistGradientBoostingClassifier()
        return [cross_val_score(trees, column[:, None], labels, cv=folds, scoring="roc_auc").mean() for column in values.T]

    return lambda: [held_out_auc(column[:, None], labels, folds) for column in values.T], loop


if __name__ == "__main__":
    sys.exit(main())
