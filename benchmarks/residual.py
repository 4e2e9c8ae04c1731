"""Compare variants of the detector `residual` that isolate its parts, by AUC on held-out files.

    python benchmarks/residual.py DIR [TRIAL ...] [--json FILE]

The held-out files are the validation split and 90 files of each class of the training split, chosen by their hashes; the variants
are trained on the rest of the training split. The test split is not used. Print a Markdown table with the AUC and the minutes of
processor time of each trial; --json appends the same rows to a file.
"""

import json
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tyro

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that it runs from a checkout, installed or not

from tfdetect import config, models  # noqa: F401  (registers the detectors)
from tfdetect.models.detectors.residual import Residual, batch_norm

if TYPE_CHECKING:
    import pandas as pd

    from tfdetect.data.prepare.clip_cache import Cache


@dataclass(frozen=True)
class PixelResidual(Residual):
    """A common residual network: three convolutions with stride 2 on the pixels replace the DCT.

    With `highpass`, their input is the first to third differences of neighbouring pixels of Y, Cb and Cr, clipped to 6 levels.
    """

    highpass: bool = False

    def front_end(self, images: Any) -> Any:
        """Return features (batch, height / 8, width / 8, channels) of images (batch, height, width, 3) in -1..1."""
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
    """The fingerprint alone, without the network: ridge regression with one weight per DCT coefficient and position."""

    finest: int = 4  # maximum sum of a coefficient's two frequencies
    penalty: float = 0.1  # relative to the mean square norm of an image's coefficients
    mirror: bool = False  # mirror the held-out images
    shift: int = 0  # shift the held-out images to the right by this number of pixels, wrapping around the edge


TRIALS: dict[str, Residual | Ridge] = {
    "both": Residual(),
    "net": Residual(places=0),
    "net, pixels": PixelResidual(places=0),
    "net, high-pass": PixelResidual(places=0, highpass=True),
    "fingerprint": Ridge(),
    "fingerprint, all waves": Ridge(finest=14),
    "fingerprint, mirrored": Ridge(mirror=True),
    "fingerprint, moved by 8": Ridge(shift=8),
}


@dataclass(frozen=True)
class Options:
    """Compare variants of the detector `residual` that isolate its parts, by AUC on held-out files."""

    path: tyro.conf.Positional[Path]
    """Folder or manifest of the images."""
    trials: tyro.conf.Positional[tuple[str, ...]] = tuple(TRIALS)
    """Trials to run."""
    seed: int = 0
    """Seed of the trainings."""
    epochs: int = 48
    """Number of epochs; the AUC is that of the last one, because choosing the best would be optimistic."""
    json: Path | None = None
    """File to which each result is appended as a line of JSON."""
    cache_dir: Path = Path("cache")
    """Folder of the decoded images."""


def main() -> None:
    options = tyro.cli(Options)
    if unknown := [name for name in options.trials if name not in TRIALS]:
        sys.exit(f"There is no trial {unknown[0]!r}. Choose from: {', '.join(map(repr, TRIALS))}.")
    table, cache = load_data(options)
    print("| trial | seed | epochs | AUC | CPU minutes |\n|---|---|---|---|---|")
    for name in options.trials:
        start, trial = time.process_time(), TRIALS[name]
        auc = ridge_auc(trial, table, cache) if isinstance(trial, Ridge) else network_auc(trial, table, cache, options)
        row = {"trial": name, "seed": options.seed, "epochs": options.epochs, "auc": round(auc, 4),
               "minutes": round((time.process_time() - start) / 60, 1)}  # fmt: skip
        print(f"| {' | '.join(map(str, row.values()))} |", flush=True)
        if options.json:
            with options.json.open("a") as file:
                file.write(json.dumps(row) + "\n")


def load_data(options: Options) -> "tuple[pd.DataFrame, Cache]":
    """Return the manifest, in which the split "validation" marks the held-out files, and the cache of the decoded images."""
    from tfdetect.data import manifest
    from tfdetect.workflow import dataset

    data = replace(config.default_run(Residual).data, path=options.path, cache_dir=options.cache_dir)
    cache = dataset.cache_for(data, Residual)
    rows, excluded = dataset.separate_excluded(dataset.load_dataset(data, Residual()), cache, None)
    table = dataset.decode(manifest.split(rows), data, cache, excluded)
    train = table[table["split"] == "train"].sort_values("sha")
    table.loc[train.groupby("label").head(90).index, "split"] = "validation"
    return table, cache


def network_auc(detector: Residual, table: "pd.DataFrame", cache: "Cache", options: Options) -> float:
    """Train like scripts/train.py and return the AUC on the held-out files after the last epoch."""
    from tfdetect.training.fit import fit

    settings = replace(config.default_run(Residual).train, seed=options.seed, epochs=options.epochs,
                       patience=options.epochs)  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        fitted = fit(detector, table, cache, settings, Path(folder), Path(folder) / "model.keras", [])
    return float(fitted.history["val_auc"].iloc[-1])


def ridge_auc(trial: Ridge, table: "pd.DataFrame", cache: "Cache") -> float:
    """Fit ridge regression on the labels and return the AUC on the held-out files."""
    import numpy as np
    from keras import ops

    from tfdetect.evaluation.metrics import auc
    from tfdetect.models.layers.block_dct import BlockDCT

    dct = BlockDCT(Residual.reach, trial.finest, log_magnitude=False)

    def coefficients(sha: str, shift: int = 0, step: int = 1) -> np.ndarray:
        image = np.roll(cache.load(sha), shift, axis=2)[:, :, ::step]
        return np.ravel(ops.convert_to_numpy(dct(image / np.float32(127.5) - 1)))

    train, held_out = (table[table["split"] == name] for name in ("train", "validation"))
    x = np.stack([coefficients(sha) for sha in train["sha"]])
    x_held_out = np.stack([coefficients(sha, trial.shift, -1 if trial.mirror else 1) for sha in held_out["sha"]])
    x, x_held_out = x - x.mean(axis=0), x_held_out - x.mean(axis=0)
    kernel = x @ x.T
    kernel += trial.penalty * kernel.diagonal().mean() * np.eye(len(x))
    return auc(held_out["label"], x_held_out @ (x.T @ np.linalg.solve(kernel, 2.0 * train["label"].to_numpy() - 1)))


if __name__ == "__main__":
    main()
