"""What the report and TensorBoard show of an autoencoder besides its scores: reconstructions, their errors, the latent space."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from tfdetect.data.prepare.clip_cache import Cache
from tfdetect.detector import Detector, ReportContext, ReportExtras
from tfdetect.evaluation import predictions
from tfdetect.models import autoencoder
from tfdetect.plots import features, reconstruction
from tfdetect.training.tensorboard import ReconstructionImages
from tfdetect.workflow.scoring import clip_loader

if TYPE_CHECKING:
    from collections.abc import Callable

SHOWN_PER_CLASS = 10  # images in a gallery
MAX_FILES = 500  # whose latents and error spectra are shown
BATCH = 32


def training_callbacks(detector: Detector, logs: Path, table: pd.DataFrame, cache: Cache) -> list[ReconstructionImages]:
    """Return the callback that shows reconstructions of validation files in TensorBoard; none for other detectors."""
    if not detector.reconstructs:
        return []
    validation = table[table["split"] == "validation"]
    rows = pd.concat(files.head(SHOWN_PER_CLASS // 2) for _, files in validation.groupby("label"))
    return [ReconstructionImages(logs, middle_frames(rows, clip_loader(rows, cache))[:, None])]


def report_extras(detector: Detector, context: ReportContext) -> ReportExtras:
    """Return score densities, epochs, thresholds, reconstructions, error spectra and the latent space; nothing for a detector
    that does not reconstruct. The middle frame of each file is shown."""
    if not detector.reconstructs:
        return ReportExtras()
    part = autoencoder.reconstruction_model(context.model)
    test = context.files[context.files["split"] == "test"].reset_index(drop=True)
    test = test.iloc[features.balanced_sample(test["label"], MAX_FILES)].reset_index(drop=True)
    labels, (images, reconstructions, latent) = test["label"].to_numpy(), reconstruct(context, part, test)
    figures = {**score_figures(context),
               "Spectrum of the error, test files": reconstruction.radial_spectrum(images - reconstructions, labels),
               "t-SNE of the latent, test files": features.tsne(latent[0], labels)}  # fmt: skip
    for label, name in enumerate(("real", "fake")):
        rows = np.flatnonzero(labels == label)[:SHOWN_PER_CLASS]
        title = f"{name.capitalize()} test files and their reconstructions"
        figures |= {title: reconstruction.gallery(images[rows], reconstructions[rows], title)} if len(rows) else {}
    epochs = context.validation_scores
    tables = {"Validation by epoch": reconstruction.average_precision_table(epochs)} if epochs else {}
    reals = context.files[(context.files["split"] == "validation") & (context.files["label"] == 0)].head(MAX_FILES)
    if len(latent) < 2 or reals.empty:
        return ReportExtras(figures, tables)
    kl = latent_kl(*reconstruct(context, part, reals)[2][:2])
    figures["KL of the latent, real validation files"], tables["The latent, real validation files"] = reconstruction.latent_kl(kl)
    return ReportExtras(figures, tables, collapse_warning(kl), {"latent_kl": float(kl.sum())})


def middle_frames(rows: pd.DataFrame, load_clip: "Callable[[str], np.ndarray]") -> np.ndarray:
    """Return the middle frame of each file, (files, size, size, 3) uint8."""
    clips = map(load_clip, rows["path"])
    return np.stack([clip[len(clip) // 2] for clip in clips])


def reconstruct(context: ReportContext, part: Any, rows: pd.DataFrame) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
    """Return (images uint8, reconstructions in about 0..255, [latent mean, latent log variance]) of files."""
    images, out = middle_frames(rows, context.load_clip), []
    for start in range(0, len(rows), BATCH):
        out.append([np.asarray(output) for output in part.predict_on_batch(images[start : start + BATCH, None])])
    _, reconstructions, *latent = (np.concatenate(outputs) for outputs in zip(*out, strict=True))
    return images, autoencoder.to_pixels(context.model, reconstructions), latent


def score_figures(context: ReportContext) -> dict[str, Any]:
    """Return figures of scores: their densities, precision and recall by epoch, F1 by threshold."""
    splits = context.predictions.groupby("split")
    files = {name: predictions.by_file(rows) for name, rows in splits if name in predictions.SPLITS}
    pairs = {name: (rows["label"], rows["probability"]) for name, rows in files.items()}
    out = {"Scores, test files": reconstruction.score_densities(files["test"]["score"], files["test"]["label"]),
           "F1 by threshold": reconstruction.f1_over_threshold(pairs, context.threshold)}  # fmt: skip
    if context.validation_scores and context.best_epoch is not None:
        by_epoch = reconstruction.precision_recall_by_epoch(context.validation_scores, context.best_epoch)
        out["Precision and recall by epoch, validation files"] = by_epoch
    return out


def latent_kl(mean: np.ndarray, log_variance: np.ndarray) -> np.ndarray:
    """Return the mean KL divergence of each latent dimension from the standard normal distribution, (dimensions,) in nats."""
    import keras

    from tfdetect.models.layers.autoencoder import kl_divergence

    return keras.ops.convert_to_numpy(kl_divergence(mean, log_variance)).mean(axis=0)


def collapse_warning(kl: np.ndarray) -> tuple[str, ...]:
    """Warn of posterior collapse."""
    if not reconstruction.has_collapsed(kl):
        return ()
    active = int((kl > reconstruction.ACTIVE_KL).sum())
    return (f"POSTERIOR COLLAPSE: {active} of {len(kl)} latent dimensions are active (KL above {reconstruction.ACTIVE_KL} nats "
            "on real images), so all reconstructions look nearly alike. Try --detector.warmup, --detector.free_bits or a smaller "
            "--detector.beta.",)  # fmt: skip
