"""What carries the detector `residual`: each design trained and judged alike. python benchmarks/residual.py DIR [TRIAL ...]

They are compared on the validation split and 90 files of each class of the training split, in an order that hangs on their
bytes, and learn from the rest of the training split. The test split is not looked at.
"""

import json
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

import tyro

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # runs from a checkout, installed or not

from tfdetect import config, models  # noqa: F401  (registers the detectors)
from tfdetect.models.detectors.residual import Residual, batch_norm


@dataclass(frozen=True)
class Pixels(Residual):
    """Three convolutions, each of which halves the sides, in place of the cosines: a common residual net.

    With `highpass` they see differences of neighbouring pixels, first to third, of Y, Cb and Cr, cut off at 6 levels.
    """

    highpass: bool = False

    def front_end(self, images):
        import numpy as np
        from keras import layers

        from tfdetect.models.layers.block_dct import RGB_TO_YCBCR

        x = images
        if self.highpass:
            across = np.zeros((3, 5, 5))
            across[:, 2] = (0, 0, -1, 1, 0), (0, 0.5, -1, 0.5, 0), (0, 1 / 3, -1, 1, -1 / 3)
            kernel = np.einsum("fyx,pc->yxcpf", [*across, *across.transpose(0, 2, 1)], RGB_TO_YCBCR).reshape(5, 5, 3, -1)
            filters = layers.Conv2D(18, 5, padding="same", use_bias=False, trainable=False)
            filters.build((None, None, None, 3))
            filters.set_weights([127.5 * kernel])
            x = layers.ReLU(max_value=2.0)(filters(x) / 6 + 1) - 1
        for width in (16, 32, self.widths[0]):
            x = layers.ReLU()(batch_norm()(layers.Conv2D(width, 5, strides=2, padding="same", use_bias=False)(x)))
        return x


@dataclass(frozen=True)
class Ridge:
    """No net: the fingerprint alone, one weight for each coefficient as it lies, in closed form."""

    finest: int = 4
    strength: float = 0.1  # of the penalty, in mean squares of a picture's coefficients
    mirrored: bool = False  # the held pictures
    moved: int = 0  # the held pictures, by so many pixels to the right and round the edge


TRIALS = {
    "both": Residual(),
    "net": Residual(places=0),
    "net, pixels": Pixels(places=0),
    "net, high-pass": Pixels(places=0, highpass=True),
    "fingerprint": Ridge(),
    "fingerprint, all waves": Ridge(finest=14),
    "fingerprint, mirrored": Ridge(mirrored=True),
    "fingerprint, moved by 8": Ridge(moved=8),
}


@dataclass(frozen=True)
class Asked:
    """Train and judge designs of `residual`; the figures are added to the file --json, a line each."""

    path: tyro.conf.Positional[Path]
    trials: tyro.conf.Positional[tuple[str, ...]] = tuple(TRIALS)
    seed: int = 0
    epochs: int = 48
    json: Path | None = None
    cache_dir: Path = Path("cache")


def main() -> None:
    """A row for each trial: AUC on the held files at the last epoch, since a choice of epoch flatters."""
    asked = tyro.cli(Asked)
    if not set(asked.trials) <= set(TRIALS):
        sys.exit(f"Trials: {', '.join(TRIALS)}.")
    table, cache = files(asked)
    print("| trial | seed | epochs | AUC | CPU minutes |\n|---|---|---|---|---|")
    for name in asked.trials:
        start, trial = time.process_time(), TRIALS[name]
        found = ridge(trial, table, cache) if isinstance(trial, Ridge) else net(trial, table, cache, asked)
        row = {"trial": name, "seed": asked.seed, "epochs": asked.epochs, "auc": round(found, 4),
               "minutes": round((time.process_time() - start) / 60, 1)}  # fmt: skip
        print(f"| {' | '.join(map(str, row.values()))} |", flush=True)
        if asked.json:
            with asked.json.open("a") as lines:
                lines.write(json.dumps(row) + "\n")


def files(asked: Asked):
    """The manifest, in which the held files stand as validation, and the decoded pictures."""
    from tfdetect.data import manifest
    from tfdetect.workflow import dataset

    data = replace(config.default_run(Residual).data, path=asked.path, cache_dir=asked.cache_dir)
    cache = dataset.cache_for(data, Residual)
    rows, excluded = dataset.separate_excluded(dataset.load_dataset(data, Residual()), cache, None)
    table = dataset.decode(manifest.split(rows), data, cache, excluded)
    train = table[table["split"] == "train"].sort_values("sha")
    table.loc[train.groupby("label").head(90).index, "split"] = "validation"
    return table, cache


def net(detector: Residual, table, cache, asked: Asked) -> float:
    """AUC on the held files, trained as scripts/train.py does."""
    from tfdetect.training.fit import fit

    settings = replace(config.default_run(Residual).train, seed=asked.seed, epochs=asked.epochs, patience=asked.epochs)
    with tempfile.TemporaryDirectory() as folder:
        fitted = fit(detector, table, cache, settings, Path(folder), Path(folder) / "model.keras", [])
    return float(fitted.history["val_auc"].iloc[-1])


def ridge(trial: Ridge, table, cache) -> float:
    """AUC on the held files of the weights that ridge regression on the labels finds."""
    import numpy as np
    from keras import ops

    from tfdetect.evaluation.metrics import auc
    from tfdetect.models.layers.block_dct import BlockDCT

    front = BlockDCT(Residual.reach, trial.finest, log_magnitude=False)

    def found(sha, moved, step):
        picture = np.roll(np.load(cache.clip_path(sha)), moved, axis=2)[:, :, ::step]
        return np.ravel(ops.convert_to_numpy(front(picture / np.float32(127.5) - 1)))

    train, held = (table[table["split"] == name] for name in ("train", "validation"))
    x = np.stack([found(sha, 0, 1) for sha in train["sha"]])
    others = np.stack([found(sha, trial.moved, -1 if trial.mirrored else 1) for sha in held["sha"]])
    x, others = x - x.mean(axis=0), others - x.mean(axis=0)
    kernel = x @ x.T
    kernel += trial.strength * kernel.diagonal().mean() * np.eye(len(x))
    return auc(held["label"], others @ (x.T @ np.linalg.solve(kernel, 2.0 * train["label"].to_numpy() - 1)))


if __name__ == "__main__":
    main()
