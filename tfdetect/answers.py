"""What a server answers, as the client hands it on."""

import typing
from base64 import b64decode
from dataclasses import dataclass, field, fields, is_dataclass
from types import UnionType
from typing import Any, TypeVar

from tfdetect.serving.verdict import Verdict

T = TypeVar("T")


@dataclass(frozen=True)
class Model:
    """A model that is served."""

    name: str
    version: int
    detector: str = ""  # its name, such as "cnn_lstm"
    input: str = ""  # "image" for a detector of single frames, "clip" for one of motion
    faces: str = ""  # which faces it looks at, "none" for whole pictures
    threshold: float = 0.5  # the probability from which on files are called fake
    band: tuple[float, float] | None = None  # probabilities between which a verdict is inconclusive
    explains: bool = False
    headline: str = ""  # how good it is, and on what that was measured
    not_for: tuple[str, ...] = ()  # what it is not fit for
    caveats: tuple[str, ...] = ()  # what makes all of its verdicts doubtful
    date: str = ""


@dataclass(frozen=True)
class Server:
    """A server, its models and its limits."""

    version: str
    models: tuple[Model, ...]
    limits: dict[str, float | None] = field(default_factory=dict)  # bytes of a request, pixels, frames, seconds, files
    keeps: tuple[str, ...] | None = None  # columns of its log; None if it keeps nothing
    needs_token: bool = False
    loading: tuple[str, ...] = ()  # names of models that cannot be asked yet


@dataclass(frozen=True)
class Finding:
    """What a model found about a file."""

    model: str
    version: int
    threshold: float
    band: tuple[float, float] | None
    seconds: float
    verdict: Verdict
    meaning: tuple[str, ...] = ()  # what the probability means, in sentences
    caveats: tuple[str, ...] = ()  # what to be careful about in this verdict


@dataclass(frozen=True)
class ScoredFile:
    """A file, and what each model found about it; `error` says why no model could judge it."""

    path: str
    name: str
    sha256: str = ""
    bytes: int = 0
    kind: str | None = None  # "image" or "video"
    error: str | None = None
    findings: tuple[Finding, ...] = ()


@dataclass(frozen=True)
class HeatMap:
    """Which regions of a picture drive its score."""

    image: bytes  # PNG with transparency, of the size of the picture
    method: str
    note: str = ""
    result: str = ""  # what its check found, in a sentence
    passed: bool = False


@dataclass(frozen=True)
class Peak:
    """A peak of a timeline."""

    time: float  # seconds
    probability: float
    image: bytes  # PNG


@dataclass(frozen=True)
class Timeline:
    """The scores of a video over time."""

    times: tuple[float, ...]  # seconds
    probabilities: tuple[float, ...]
    scores: tuple[float, ...]
    threshold: float
    peaks: tuple[Peak, ...] = ()
    description: str = ""


@dataclass(frozen=True)
class Explanation:
    """What drives the score of a file."""

    name: str
    sha256: str
    kind: str
    model: str
    version: int
    verdict: Verdict
    picture: bytes | None = None  # PNG of the frame that is explained, as the detector saw it
    heat_map: HeatMap | None = None
    faces: tuple[dict[str, Any], ...] | None = None
    face_note: str | None = None
    timeline: Timeline | None = None


@dataclass(frozen=True)
class LogRow:
    """A verdict of a model on a file, as a server logs it (docs/log.md)."""

    time: str  # UTC, ISO 8601 with microseconds
    sha256: str  # of the file, in hexadecimal
    bytes: int
    model: str
    version: int
    model_hash: str  # SHA-256 of the run's SHA256SUMS, which stands for all files that decide a verdict
    verdict: str  # "real", "fake" or "inconclusive"; "failed" for a file that could not be judged
    probability: float | None  # of being fake, 0..1
    seconds: float  # from the file's arrival to the verdict
    request: str  # "score", "explain", "case", or "predict" of TensorFlow Serving's contract
    who: str  # the name of the token that asked, "" without one


@dataclass(frozen=True)
class LoggedVerdict(LogRow):
    """The same with its place in the log."""

    id: int = 0


@dataclass(frozen=True)
class LogCheck:
    """Whether the rows of a log are as they were written."""

    rows: int
    first_changed: int | None  # the id of the first row that does not fit to those before it
    chain: str  # of the last row: keep it, and a later check shows that no row up to it was replaced
    known: bool | None = None  # whether a row has the chain that was asked for


def build(kind: type[T], content: Any, path: str = "") -> T:
    """Return JSON as a value of this type; `path` is that of the file on this machine. Keys that it does not have are left out: a
    newer server may say more.

    Raises LookupError, TypeError, AttributeError or ValueError for content of another shape.
    """
    found: Any = content
    if content is None:
        return found
    if isinstance(kind, UnionType):
        return build(next(each for each in typing.get_args(kind) if each is not type(None)), content, path)
    if is_dataclass(kind):
        hints, content = typing.get_type_hints(kind), {"path": path, **content}
        return kind(**{each.name: build(hints[each.name], content[each.name], path) for each in fields(kind)
                       if each.name in content})  # fmt: skip
    if kind is bytes:  # a data URI
        found = b64decode(content.partition(",")[2])
    elif typing.get_origin(kind) is tuple:
        found = tuple(build(typing.get_args(kind)[0], each, path) for each in content)
    return found
