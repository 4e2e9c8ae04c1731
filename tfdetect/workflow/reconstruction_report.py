"""A detector that gives pictures back: what the report and TensorBoard show of that besides its scores."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tfdetect.data.prepare.clip_cache import Cache
from tfdetect.evaluation import predictions
from tfdetect.models import autoencoder
from tfdetect.plots import features, reconstruction
from tfdetect.training.fit import Fitted
from tfdetect.training.tensorboard import ReconstructionImages
from tfdetect.workflow import results

SHOWN = 10  # pictures of each class
LOOKED = 500  # files of latent and spectra at most
BATCH = 32


def tensorboard_callback(logs: Path, table: pd.DataFrame, cache: Cache) -> ReconstructionImages:
    """What TensorBoard shows in training, of validation files."""
    held = table[table["split"] == "validation"]
    rows = pd.concat(part.head(SHOWN // 2) for _, part in held.groupby("label"))
    return ReconstructionImages(logs, frames(rows, cache)[:, None])


def frames(rows: pd.DataFrame, cache: Cache) -> np.ndarray:
    """The middle frame of each file, (files, size, size, 3) uint8."""
    clips = (cache.load(sha) for sha in rows["sha"])
    return np.stack([clip[len(clip) // 2] for clip in clips])


def report_extras(model: Any, predicted: pd.DataFrame, threshold: float, fitted: Fitted, table: pd.DataFrame, cache: Cache) -> results.ReportExtras:
    """Scores, epochs, thresholds, pictures, spectra and the latent; a warning where the latent tells nothing.

    `model` is the reloaded one; of each file its middle frame is shown. `predicted` has probabilities of validation and test,
    `table` the usable files.
    """
    part = autoencoder.reconstruction_model(model)
    test = table[table["split"] == "test"].reset_index(drop=True)
    test = test.iloc[features.balanced_sample(test["label"], LOOKED)].reset_index(drop=True)
    labels, (pictures, again, latent) = test["label"].to_numpy(), through(model, part, test, cache)
    figures = {**judged(predicted, threshold, fitted),
               "Spectrum of the error, test files": reconstruction.radial_spectrum(pictures - again, labels),
               "t-SNE of the latent, test files": features.tsne(latent[0], labels)}  # fmt: skip
    for label, name in enumerate(("real", "fake")):
        rows = np.flatnonzero(labels == label)[:SHOWN]
        title = f"{name.capitalize()} test files, and what comes back"
        figures |= {title: reconstruction.gallery(pictures[rows], again[rows], title)} if len(rows) else {}
    tables = {"Judged epochs, validation files": reconstruction.average_precision_table(fitted.judged)} if fitted.judged else {}
    if len(latent) < 2:
        return results.ReportExtras(figures, tables)
    held = table[(table["split"] == "validation") & (table["label"] == 0)].head(LOOKED)
    kl = divergence(*through(model, part, held, cache)[2][:2])
    figures["KL of the latent, real validation files"], tables["The latent, real validation files"] = reconstruction.latent_kl(kl)
    return results.ReportExtras(figures, tables, collapse(kl), {"latent_kl": float(kl.sum())})


def through(model: Any, part: Any, rows: pd.DataFrame, cache: Cache) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
    """(pictures uint8, what comes back, 0..255 or so, [mean, log variance]) of files."""
    pictures, out = frames(rows, cache), []
    for start in range(0, len(rows), BATCH):
        out.append([np.asarray(each) for each in part.predict_on_batch(pictures[start : start + BATCH, None])])
    _, again, *latent = (np.concatenate(each) for each in zip(*out, strict=True))
    return pictures, autoencoder.to_pixels(model, again), latent


def judged(predicted: pd.DataFrame, threshold: float, fitted: Fitted) -> dict[str, Any]:
    """Figures of scores: their densities, each judged epoch, each threshold."""
    files = {name: predictions.by_file(predicted[predicted["split"] == name]) for name in predictions.SPLITS}
    parts = {name: (rows["label"], rows["probability"]) for name, rows in files.items()}
    out = {"Scores, test files": reconstruction.score_densities(files["test"]["score"], files["test"]["label"]),
           "F1 over the threshold": reconstruction.f1_over_threshold(parts, threshold)}  # fmt: skip
    if fitted.judged:
        by_epoch = reconstruction.precision_recall_by_epoch(fitted.judged, fitted.best_epoch)
        out["Precision and recall at each judged epoch, validation files"] = by_epoch
    return out


def divergence(mean: np.ndarray, log_variance: np.ndarray) -> np.ndarray:
    """(latent numbers,) mean KL of each from the standard normal distribution, in nats."""
    return (0.5 * (mean**2 + np.exp(log_variance) - 1 - log_variance)).mean(axis=0)


def collapse(kl: np.ndarray) -> tuple[str, ...]:
    """A sentence where the posterior has collapsed."""
    if not reconstruction.has_collapsed(kl):
        return ()
    active = int((kl > reconstruction.ACTIVE_KL).sum())
    return (f"THE POSTERIOR HAS COLLAPSED: {active} of {len(kl)} latent numbers tell anything of a real picture (KL above "
            f"{reconstruction.ACTIVE_KL} nats), so all pictures come back nearly alike. Try --detector.warmup, --detector.free_bits "
            "or a smaller --detector.beta.",)  # fmt: skip
