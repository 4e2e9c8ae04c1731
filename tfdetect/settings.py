"""The settings of a run: data, training, and the detector's own. Their docstrings are the help text of the flags."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

from tfdetect import corruption_spec
from tfdetect.detector import Detector
from tfdetect.errors import UserError
from tfdetect.limits import LimitOverrides, Limits

D = TypeVar("D", bound=Detector)


@dataclass(frozen=True)
class FileSettings:
    """Which files are looked at, and how much of each at most."""

    layout: str = "auto"
    """How the folder is laid out, such as faceforensics or class_folders; by default it is recognised."""
    sources: tuple[str, ...] = ()
    """Keep the fakes of these generators or manipulations only, and all reals."""
    fake: tuple[str, ...] = ("fake",)
    """Names of the class folders that are fake, in any letter case; when you name your own, all others are real."""
    labels: Literal["check", "as_given"] = "check"
    """Refuse a table in which the files under real/ are labelled fake and those under fake/ real, or take it as it is."""
    group: str = "auto"
    """What belongs together and never stands on both sides of a split. auto: what the data set says, or names and a look at some
    pictures. folder: the folder that a file lies in. stem: its name without the number at its end. file: each file by itself.
    Or a regular expression, whose first group, or else all that it fits of the path below --data.path, is the group."""
    workers: int | None = None
    """Processes that decode; by default one for each core."""
    timeout: float = 120.0
    """Seconds that one file may take to decode, to which long videos add time of their own; one that takes longer is a
    failure."""
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        _require_at_least(1, "data", self, "workers")
        if not self.timeout > 0:
            raise UserError(f"--data.timeout must be above 0, got {self.timeout}.")


@dataclass(frozen=True)
class ClipSettings(FileSettings):
    """Which files are looked at, and how a file becomes a clip."""

    frames: int = 8
    """Frames taken from each video. An image is one frame."""
    size: int = 256
    """Width and height in pixels to which every frame is resized."""
    fps: float | None = None
    """Take frames at this rate from the middle of the video; by default they are spread over the whole of it."""
    faces: Literal["none", "yunet"] = "none"
    """Look at the whole picture, or at its largest face, followed through a video; without a face a file is a failure."""
    face_model: Path | None = None
    """YuNet's ONNX file; without it, it is fetched on first use."""
    cache: Literal["npy", "tfrecord"] = "npy"
    """How decoded clips are kept: memory-mappable arrays, or TFRecord (images keep their encoded bytes there)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _require_at_least(1, "data", self, "frames", "size")
        if self.fps is not None and not self.fps > 0:
            raise UserError(f"--data.fps must be above 0, got {self.fps}.")


@dataclass(frozen=True)
class DecodeOverrides:
    """How much work a file may be, and on how many cores; by default as in training."""

    workers: int | None = None
    """Processes that decode; by default one for each core."""
    timeout: float | None = None
    """Seconds that one file may take to decode, to which long videos add time of their own; by default as in training."""
    limits: LimitOverrides = field(default_factory=LimitOverrides)

    def __post_init__(self) -> None:
        _require_at_least(1, "data", self, "workers")
        if self.timeout is not None and not self.timeout > 0:
            raise UserError(f"--data.timeout must be above 0, got {self.timeout}.")

    def apply_to(self, data: Data) -> Data:
        """The settings of a run, for this work."""
        return dataclasses.replace(data, workers=self.workers or data.workers, timeout=self.timeout or data.timeout,
                                   limits=self.limits.apply_to(data.limits))  # fmt: skip


CLIP_KEYS = ("frames", "size", "fps", "faces", "face_model", "cache")  # what of a Reading decides the clips
PREPARED_KEYS = (*CLIP_KEYS, "group")  # what of it a prepared folder keeps


@dataclass(frozen=True)
class Data(ClipSettings):
    """What is looked at, and how a file becomes a clip."""

    path: Path | None = None
    """Folder of a public data set, or with real/ and fake/ in it (or train/, val/, test/ with those), or made by prepare;
    or a manifest: CSV or Parquet with the columns path,label[,split,group,source,text]. Without it, the embedded sample
    is made and used."""
    cache_dir: Path = Path("cache")
    """Where decoded clips and the embedded sample are kept; safe to delete while the originals are there: they are decoded
    again. A folder that `prepare` made is no cache: keep those elsewhere."""
    max_failed: float = 0.1
    """Train only if at most this part of the files could not be used."""
    sample: int = 400
    """Groups (one real and one fake file each) of the embedded sample."""
    train_sources: tuple[str, ...] = ()
    """Train and validate on the fakes of these generators or manipulations only; by default of all. Reals stay."""
    test_sources: tuple[str, ...] = ()
    """Test on the fakes of these only, which may be others. With it, a run also leaves Results.csv and Final_Prediction.txt."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _require_at_least(1, "data", self, "sample")
        if not 0 <= self.max_failed <= 1:
            raise UserError(f"--data.max_failed must be within 0..1, got {self.max_failed}.")


@dataclass(frozen=True)
class Train:
    """How it is trained."""

    epochs: int = 20
    """At most so many times over the training files; 0 judges the weights that the detector starts from."""
    batch: int = 32
    """Clips a step, over all devices together."""
    learning_rate: float = 1e-3
    """Adam's learning rate."""
    schedule: Literal["constant", "cosine"] = "constant"
    """Keep that rate, or raise it over the first of the epochs and let it fall to nothing along a cosine by the last."""
    patience: int = 5
    """Stop after so many judged epochs without a better one; the best epoch is kept either way."""
    eval_every: int = 1
    """Judge validation after so many epochs, and after the last; the best of these is kept."""
    monitor: Literal["val_auc", "val_ap", "val_loss"] = "val_auc"
    """What of the validation files picks the epoch: AUC or area under precision and recall, exact and over files, or loss; of
    equals the lower loss."""
    threshold: str = "youden"
    """What is called fake, read off validation: youden (best balanced accuracy), f1 (best F1), quantile:0.8 (above that part of
    the reals) or fpr:0.01 (at most that part of them flagged). Without fakes in validation youden passes 95 % of the reals.
    Recipes of published tables may also say pooled_test_quantile:0.8, which reads it off the test's scores."""
    balance: Literal["none", "weights", "resample", "focal"] = "weights"
    """Make up for uneven classes: count the rarer one more, draw it more often, or by the focal loss; or not at all."""
    seed: int = 0
    """Fixes initial weights, order of files, dropout and augmentation; the split of the files does not depend on it."""
    strategy: Literal["auto", "single", "mirrored", "multiworker", "tpu"] = "auto"
    """tf.distribute: auto takes all GPUs there are; multiworker reads TF_CONFIG."""
    precision: Literal["float32", "mixed_float16", "mixed_bfloat16"] = "float32"
    """Keras dtype policy. The mixed ones are faster on recent GPUs."""
    xla: bool = False
    """Compile the training step with XLA."""
    augment: str = ""
    """What training clips go through, such as "flip|jpeg(30,100,p=0.5)|blur(0,3,p=0.5)"; docs/augment.md lists the steps."""

    def __post_init__(self) -> None:
        _require_at_least(0, "train", self, "epochs")
        _require_at_least(1, "train", self, "batch", "patience", "eval_every")
        if not self.learning_rate > 0:
            raise UserError(f"--train.learning_rate must be above 0, got {self.learning_rate}.")
        if not re.fullmatch(r"youden|f1|(quantile|fpr|pooled_test_quantile):(0?\.\d+|0|1|1\.0*)", self.threshold):
            raise UserError(f"--train.threshold must be youden, f1, quantile:PART or fpr:PART, with a part of 0..1; got "
                             f"{self.threshold!r}.")  # fmt: skip
        corruption_spec.check(self.augment, "--train.augment")


@dataclass(frozen=True)
class Run(Generic[D]):
    """One training, from files to a served model."""

    detector: D
    data: Data = field(default_factory=Data)
    train: Train = field(default_factory=Train)
    name: str | None = None
    """Folder of the result inside --out; by default the detector's name, with a number if that is taken."""
    out: Path = Path("saved_models")
    """Where results go."""
    resume: bool = False
    """Go on with the run of that --name; a finished one is trained further, with a higher --train.epochs or --train.patience."""
    overwrite: bool = False
    """Delete the run of that --name first."""

    def __post_init__(self) -> None:
        if self.name is not None and not re.fullmatch(r"(?=.*\S)[^-./\\\0][^/\\\0]*", self.name, re.DOTALL):
            raise UserError(f"--name must be a plain folder name, got {self.name!r}; --out says where it goes.")
        if self.data.size < self.detector.least_size:
            least = self.detector.least_size
            raise UserError(f"{self.detector.name} needs --data.size {least} at the least, got {self.data.size}.")
        if self.resume and self.overwrite:
            raise UserError("--resume and --overwrite exclude each other: keep the run or delete it.")
        if (self.resume or self.overwrite) and self.name is None:
            raise UserError("--resume and --overwrite need --name: which run is meant?")
        views = getattr(self.detector, "views", 1)
        if self.detector.caches_features and bool(self.train.augment) != (views > 1):
            raise UserError("Stored features are of pictures as they are and, with more --detector.views, of augmented ones: "
                             f"they and --train.augment need each other, got {views} and {self.train.augment!r}.")  # fmt: skip
        if self.detector.trains_on == "real" and self.train.balance not in ("none", "weights"):
            raise UserError(f"{self.detector.name} learns from reals alone: there are no classes for --train.balance "
                             f"{self.train.balance} to balance.")  # fmt: skip
        if self.train.balance == "focal" and not self.detector.supports_focal_loss:
            raise UserError(f"--train.balance focal weighs a loss of scores, and this {self.detector.name} has none, "
                            "as gradients do not train its score; give none, weights or resample.")  # fmt: skip
        # A label that changed would teach a one-class detector fakes as real, and has no source.
        if self.detector.trains_on == "real" or self.detector.caches_features or getattr(self.detector, "attribute", "none") != "none":
            corruption_spec.check(self.train.augment, "--train.augment", labels=False)


def _require_at_least(least: int, prefix: str, settings: Any, *names: str) -> None:
    for name in names:
        value = getattr(settings, name)
        if value is not None and value < least:
            raise UserError(f"--{prefix}.{name} must be at least {least}, got {value}.")
