"""Files that wait to be scored together, and their results in the order of the files."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from tfdetect.data.media.frames import Media
from tfdetect.data.worker_pool import WorkerFailure
from tfdetect.serving.verdict import Verdict

File = tuple[int, str, Media | WorkerFailure]  # number, path and frames


@dataclass
class Group:
    """Files that wait to be scored together."""

    files: list[File]
    clips: int
    since: float  # when the first of them was decoded, by time.monotonic


def score_groups(groups: Iterable[list[File]], score: Callable[[Sequence[str], Sequence[Media | WorkerFailure]], list[Verdict]],
            ) -> Iterator[tuple[int, Verdict]]:  # fmt: skip
    """Yield (number, verdict) of each file."""
    for group in groups:
        numbers, paths, media = zip(*group, strict=True)
        yield from zip(numbers, score(paths, media), strict=True)


def sort_results(results: Iterable[tuple[int, Any]]) -> Iterator[Any]:
    """Yield the second of each pair, in the order of the first, which counts from 0."""
    pending: dict[int, Any] = {}
    next_number = 0
    for number, result in results:
        pending[number] = result
        while next_number in pending:
            yield pending.pop(next_number)
            next_number += 1
