"""The settings of a run: data, training, and the detector's own. The docstrings of fields are the help texts of flags.

A help text breaks where its docstring does, so each line is a sentence or a value.
"""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Generic, Literal, TypeVar

from tfdetect import corruption_spec, split_settings
from tfdetect.detector import Detector
from tfdetect.errors import UserError, require_minimum
from tfdetect.limits import Check, Decoder, Decoding, LimitOverrides, Limits
from tfdetect.protocol_settings import ProtocolSettings, check_study, flag
from tfdetect.verdict_settings import EvaluateSettings, check_faces

D = TypeVar("D", bound=Detector)


@dataclass(frozen=True)
class FileSettings:
    """Which files are read, and the limits for reading them."""

    layout: str = "auto"
    """Folder layout of the data set, such as faceforensics or class_folders; auto recognises it."""
    sources: tuple[str, ...] = ()
    """Use only fakes of these sources (generators or manipulations), and all reals; by default all sources."""
    fake: tuple[str, ...] = ("fake",)
    """Names of the folders with fakes, ignoring case; if set, all other class folders count as real."""
    labels: Literal["check", "as_given"] = "check"
    """Refuse (check) or accept (as_given) a manifest that labels files under real/ as fake and files under fake/ as real."""
    group: str = "auto"
    """Rule that groups related files, such as the frames of one video; a group is never divided between splits.
    auto: given by the data set, or found by file names and by comparing images.
    folder: the folder that contains the file.
    stem: the file name without its trailing number.
    file: no groups.
    REGEX: first group of the match, or else the whole match, in the path below --data.path."""
    workers: int | None = None
    """Number of decoding processes; by default one per core."""
    timeout: float = 120.0
    """Decoding timeout per file in seconds, extended for large files; a file that takes longer fails."""
    decoder: Decoder = "auto"
    """Decoder of videos.
    auto: PyAV, which reads each file once, or OpenCV for codecs that PyAV lacks.
    pyav: PyAV only.
    decord, opencv: slower; PyAV checks each file first, and reads those that they cannot."""
    check: Check = "used"
    """Which frames of a video must decode without an error; its container and packets are examined in any case.
    used: those that are taken, and those that they depend on; other frames may be damaged.
    all: every frame, which takes about twice as long."""
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        require_minimum(1, "data", self, "workers")
        if self.decoder == "decord" and not find_spec("decord"):
            raise UserError("--data.decoder decord needs decord, which is not installed here; by default, PyAV reads videos.")
        if not self.timeout > 0:
            raise UserError(f"--data.timeout must be above 0, got {self.timeout}.")

    @property
    def decoding(self) -> Decoding:
        """How videos are decoded."""
        return Decoding(self.decoder, self.check)


@dataclass(frozen=True)
class ClipSettings(FileSettings):
    """Which files are read, and how a file becomes a clip."""

    frames: int = 8
    """Number of frames taken from each video; an image has one frame."""
    size: int = 256
    """Width and height in pixels of the squares that every frame becomes."""
    fit: Literal["squeeze", "shortest_side", "crop", "pad"] = "squeeze"
    """How a frame becomes a square.
    squeeze: resized, whatever its aspect ratio.
    shortest_side: its shorter side resized, its longer side cropped to the centre.
    crop: the centre at native resolution; a small frame is extended by reflection.
    Training on images with --data.cache tfrecord takes a random crop in each epoch instead.
    pad: its longer side resized, its shorter side extended by reflection."""
    crops: int = 1
    """Number of crops of each frame with --data.fit crop, whose scores are combined by --evaluate.aggregate.
    1: the centre.
    2 to 5: the centre and the corners.
    6 or more: an even grid over the frame."""
    fps: float | None = None
    """Frames per second, taken from the middle of the video; by default frames are spread evenly over the whole video."""
    faces: Literal["none", "yunet", "all"] = "none"
    """What a detector sees of a file (docs/faces.md). Files without a face fail.
    none: the whole image.
    yunet: its largest face, found by YuNet, cropped, and tracked through videos.
    all: each of up to 8 faces, the largest first; after that one, those of 24 pixels or more.
    The file is as fake as its most fake face (--evaluate.aggregate).
    Training uses the largest face of each file, since the label of a fake file does not say which of its faces is fake."""
    face_model: Path | None = None
    """YuNet ONNX file; by default downloaded on first use."""
    cache: Literal["npy", "tfrecord"] = "npy"
    """Storage format of decoded clips: memory-mapped arrays (npy), or TFRecord, which keeps images in encoded form."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_minimum(1, "data", self, "frames", "size", "crops")
        if self.crops > 1 and self.fit != "crop":
            raise UserError(f"--data.crops {self.crops} needs --data.fit crop; {self.fit} makes one square of each frame.")
        if self.crops > 1 and self.faces != "none":
            raise UserError(f"--data.crops {self.crops} needs --data.faces none; of a face, use --data.crops 1.")
        if self.fps is not None and not self.fps > 0:
            raise UserError(f"--data.fps must be above 0, got {self.fps}.")


@dataclass(frozen=True)
class DecodeOverrides:
    """Limits for decoding files; by default as in training."""

    workers: int | None = None
    """Number of decoding processes; by default as in training."""
    timeout: float | None = None
    """Decoding timeout per file in seconds, extended for large files; by default as in training."""
    check: Check | None = None
    """Which frames of a video must decode without an error: those that are used, or all; by default as in training."""
    limits: LimitOverrides = field(default_factory=LimitOverrides)

    def __post_init__(self) -> None:
        require_minimum(1, "data", self, "workers")
        if self.timeout is not None and not self.timeout > 0:
            raise UserError(f"--data.timeout must be above 0, got {self.timeout}.")

    def apply_to(self, data: Data) -> Data:
        """Return `data` with the values given here replaced."""
        return dataclasses.replace(data, workers=self.workers or data.workers, timeout=self.timeout or data.timeout,
                                   check=self.check or data.check, limits=self.limits.apply_to(data.limits))  # fmt: skip


@dataclass(frozen=True)
class DaskSettings:
    """Where --runner dask runs."""

    address: str | None = None
    """Address of the scheduler, such as tcp://host:8786; by default, processes are started on this machine."""

    def require_runner(self, runner: str) -> None:
        """Raise UserError if there is an address but another runner."""
        if self.address is not None and runner != "dask":
            raise UserError(f"--dask.address needs --runner dask, got --runner {runner}.")


# The settings that decide the pixels of a clip, and whether there is one.
CLIP_KEYS = ("frames", "size", "fit", "crops", "fps", "faces", "face_model", "cache", "decoder", "check")
PREPARED_KEYS = (*CLIP_KEYS, "group")  # the settings that are stored with a prepared folder


@dataclass(frozen=True)
class Data(ProtocolSettings, ClipSettings):
    """Which files are read, and how a file becomes a clip."""

    path: Path | None = None
    """Data set; by default the embedded sample is generated and used. It is one of these:
    a public data set;
    a folder with real/ and fake/, also inside train/, val/ and test/;
    a folder made by prepare;
    a manifest (CSV, .xlsx or Parquet) with the columns path,label[,split,group,source,text]."""
    cache_dir: Path = Path("cache")
    """Folder for decoded clips and the embedded sample; safe to delete as long as the original files exist.
    Do not put folders made by prepare in it."""
    max_failed: float = 0.1
    """Maximum share of files that cannot be used; training does not start above it."""
    sample: int = 400
    """Number of groups in the embedded sample, each with one real and one fake file."""
    train_sources: tuple[str, ...] = ()
    """Train and validate only on fakes of these sources, and on all reals; by default all sources."""
    test_sources: tuple[str, ...] = ()
    """Test only on fakes of these sources, which may differ from those in training, and on all reals.
    If set, the run also writes Results.csv and Final_Prediction.txt."""
    make_fakes: int = 0
    """Number of self-blended fakes to make of each real photograph or video of faces (docs/sbi.md).
    Training and validation then use these instead of the data set's own fakes, the test only if it has no fakes."""
    keep_fakes: bool = False
    """make_fakes: train and validate on the data set's own fakes as well."""
    split: str = "70/10/20"
    """Percentages of the groups for training, validation and test; files whose split the data set gives keep it."""
    hold_out: tuple[str, ...] = ("auto",)
    """Sources of fakes (generators or manipulations) to test on only, which tells how the detector does on fakes of others.
    auto: the middle-sized one, if there are four or more in training and the test has no other (docs/data.md).
    none: no source.
    NAME ...: these sources."""

    near_duplicates: Literal["auto", "refuse", "drop", "keep"] = "auto"
    """What to do with validation and test files that look like training files of other groups.
    auto: refuse if the splits come with the data set, else keep.
    refuse: list them and do not train.
    drop: train without these training files and their groups.
    keep: train on all, and say so in the report."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_minimum(1, "data", self, "sample")
        split_settings.check(self.split, self.hold_out)
        require_minimum(0, "data", self, "make_fakes")
        if not 0 <= self.max_failed <= 1:
            raise UserError(f"--data.max_failed must be within 0..1, got {self.max_failed}.")
        self.check_protocol()


@dataclass(frozen=True)
class Train:
    """How the detector is trained."""

    epochs: int = 20
    """Maximum number of epochs; 0 evaluates the initial weights."""
    batch: int = 32
    """Global batch size, in clips, divided among all devices."""
    learning_rate: float = 1e-3
    """Learning rate of the Adam optimizer."""
    schedule: Literal["constant", "cosine"] = "constant"
    """Learning rate schedule.
    constant: no change.
    cosine: one epoch of linear warm-up, then cosine decay to zero."""
    patience: int = 5
    """Early-stopping patience, in validation rounds; the weights of the best epoch are kept in any case."""
    eval_every: int = 1
    """Validate every N epochs, and after the last one."""
    monitor: Literal["val_auc", "val_ap", "val_loss"] = "val_auc"
    """Validation metric that selects the best epoch: ROC AUC, average precision, both exact and per file, or loss.
    Ties go to the lower loss."""
    threshold: str = "youden"
    """Rule that selects the decision threshold on validation files.
    youden: best balanced accuracy; without fakes, 95 % of the reals pass.
    f1: best F1 score.
    quantile:0.8: this quantile of the scores of reals.
    fpr:0.01: false positive rate of at most this value.
    pooled_test_quantile:0.8: this quantile of the test scores, only in recipes of published tables."""
    balance: Literal["none", "weights", "resample", "focal"] = "weights"
    """Class balancing: class weights, oversampling of the rarer class (resample), focal loss, or none."""
    seed: int = 0
    """Random seed of initial weights, file order, dropout and augmentation; it does not change the splits."""
    seeds: int = 1
    """Number of trainings that differ in their seed, counted up from --train.seed, with one report on their spread."""
    strategy: Literal["auto", "single", "mirrored", "multiworker", "tpu"] = "auto"
    """tf.distribute strategy; auto uses all GPUs of this machine, and multiworker reads TF_CONFIG."""
    precision: Literal["float32", "mixed_float16", "mixed_bfloat16"] = "float32"
    """Keras dtype policy; mixed precision is faster on recent GPUs."""
    xla: bool = False
    """Compile the training step with XLA."""
    tracker: Literal["none", "mlflow", "wandb"] = "none"
    """Where the run is also logged (docs/tracking.md), besides logs/, which TensorBoard shows.
    mlflow: MLflow, in MLFLOW_TRACKING_URI.
    wandb: Weights & Biases, offline unless WANDB_MODE or WANDB_API_KEY is set."""
    augment: str = ""
    """Augmentation of training clips, such as "flip|jpeg(30,100,p=0.5)|blur(0,3,p=0.5)"; see docs/augment.md."""

    def __post_init__(self) -> None:
        require_minimum(0, "train", self, "epochs")
        require_minimum(1, "train", self, "batch", "patience", "eval_every", "seeds")
        if not self.learning_rate > 0:
            raise UserError(f"--train.learning_rate must be above 0, got {self.learning_rate}.")
        if not re.fullmatch(r"youden|f1|(quantile|fpr|pooled_test_quantile):(0?\.\d+|0|1|1\.0*)", self.threshold):
            raise UserError("--train.threshold must be youden, f1, quantile:SHARE or fpr:SHARE with a share in 0..1, got "
                            f"{self.threshold!r}.")  # fmt: skip
        corruption_spec.check_flag(self.augment, "--train.augment")

    @property
    def makes_face_fakes(self) -> bool:
        """Whether the augmentation makes fakes of real faces, so that training needs no fake files."""
        return any(step.name == "sbi" for step in corruption_spec.parse(self.augment).steps)


@dataclass(frozen=True)
class RunOf(Generic[D]):
    """Train, evaluate and export a detector."""

    detector: D
    data: Data = field(default_factory=Data)
    train: Train = field(default_factory=Train)
    evaluate: EvaluateSettings = field(default_factory=EvaluateSettings)
    name: str | None = None
    """Name of the run folder inside --out; by default the detector's name, followed by a number if it is taken."""
    out: Path = Path("saved_models")
    """Folder for runs."""
    from_run: Annotated[Path | None, flag("from", "from_run")] = None
    """Fine-tune this run on --data.path as a new version of it, or with --name as another run (docs/adapt.md).
    Its settings are the defaults, with a tenth of its learning rate."""
    rehearse: Literal["auto", "old", "none"] = "auto"
    """Train on the old training files of --from as well (old), or not; auto does for heads on stored features."""
    resume: bool = False
    """Resume the run called --name; train a finished run further with a higher --train.epochs or --train.patience."""
    overwrite: bool = False
    """Replace the run called --name; the old run is deleted once the data of the new one are read."""
    trust: bool = False
    """Use a run that this one starts from, or goes on with, even if its files differ from its SHA256SUMS."""
    profile: bool = False
    """Print where the time of decoding and training went, and write a profile of 20 steps for TensorBoard into logs/."""
    stress: int | None = None
    """Number of test files that the report's section "What it learnt" compresses, resizes and blurs; 0 omits the section.
    By default 400, or 100 (20 videos) for detectors on stored features, which are slower here."""
    search: str = ""
    """Search the settings that are best on validation files, such as "train.learning_rate=1e-4..1e-2 detector.dropout=0,0.3"."""
    trials: int = 20
    """Number of settings that --search tries."""

    def __post_init__(self) -> None:
        detector, balance, augment = self.detector, self.train.balance, self.train.augment
        if self.name is not None and not re.fullmatch(r"(?=.*\S)[^-./\\\0][^/\\\0]*", self.name, re.DOTALL):
            raise UserError(f"--name must be a plain folder name, got {self.name!r}; use --out for the parent folder.")
        if self.data.size < detector.min_size:
            raise UserError(f"{detector.name} needs --data.size {detector.min_size} or more, got {self.data.size}.")
        if self.stress is not None and self.stress < 0:
            raise UserError(f"--stress must be at least 0, got {self.stress}.")
        if self.data.crops > 1 and detector.input_kind == "clip":
            raise UserError(f"--data.crops {self.data.crops} needs a detector of single frames; {detector.name} takes clips.")
        if self.resume and self.overwrite:
            raise UserError("--resume and --overwrite cannot be combined: give one of them, to keep or to replace the run.")
        if (self.resume or self.overwrite) and self.name is None:
            raise UserError("--resume and --overwrite need --name, the name of the run to resume or to replace.")
        if detector.caches_features and bool(augment) != (detector.views > 1):
            raise UserError(f"{detector.name} trains on stored features of each image and of views - 1 augmented copies: give "
                            "--train.augment and 2 or more --detector.views, or neither; got --train.augment "
                            f"{augment!r} and --detector.views {detector.views}.")  # fmt: skip
        if detector.trains_on == "real" and balance not in ("none", "weights"):
            raise UserError(f"{detector.name} trains on reals only, so --train.balance {balance} has no classes to balance; "
                            "use none.")  # fmt: skip
        if balance == "focal" and not detector.supports_focal_loss:
            raise UserError(f"--train.balance focal needs a loss on scores, but the score of this {detector.name} is not trained "
                            "by gradient descent; use none, weights or resample.")  # fmt: skip
        if self.evaluate.fpr is not None and self.train.threshold != "youden":
            raise UserError(f"--evaluate.fpr {self.evaluate.fpr:g} and --train.threshold {self.train.threshold} both choose the "
                            "threshold: give one of them.")  # fmt: skip
        check_faces(self)
        check_study(self)
        # Steps that change labels would teach a one-class detector fakes as reals, and their fakes have no source.
        if detector.trains_on == "real" or detector.caches_features or detector.attribute != "none":
            corruption_spec.check_flag(augment, "--train.augment", labels=False)

    @property
    def threshold_rule(self) -> str:
        """The rule that chooses the threshold on validation files, such as "youden" or "fpr:0.01"."""
        return self.train.threshold if self.evaluate.fpr is None else f"fpr:{self.evaluate.fpr:g}"


Run = RunOf[Detector]  # a run of any detector
