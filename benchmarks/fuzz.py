"""Run `prepare` on thousands of damaged files and check that every one is accounted for.

    python benchmarks/fuzz.py [--count 2000] [--seed 0] [--workers 2] [--from DIR]

Encode small images in every format and small videos in several codecs and containers, and mutate them; with the same library
versions, the same seed gives the same files. Each file must be read or fail with a reason, whatever its decoder does, and both
values of --data.check must agree, unless `all` alone sees damage. Print counts, reasons, time and peak memory. The exit code is 1
if a file is unaccounted for, or if the checks disagree otherwise.
"""

import re
import resource
import struct
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import tyro
from fuzz_files import intact_files

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that it runs from a checkout, installed or not

if TYPE_CHECKING:
    import pandas as pd

    from tfdetect.data.prepare.clip_cache import Cache

CHUNK = 500  # maximum number of files on disk
MAX_BYTES = 4_000_000  # of a file of --from; larger ones only take longer


def flip(data: bytearray, rng: np.random.Generator, _: bytes) -> None:
    """Flip up to 16 bits."""
    for position in rng.integers(0, len(data), rng.integers(1, 17)):
        data[position] ^= 1 << int(rng.integers(8))


def overwrite(data: bytearray, rng: np.random.Generator, _: bytes) -> None:
    """Overwrite a range with zeros, ones or noise."""
    start, end = random_range(data, rng)
    fill = (bytes(end - start), b"\xff" * (end - start), rng.bytes(end - start))
    data[start:end] = fill[rng.integers(3)]


def truncate(data: bytearray, rng: np.random.Generator, _: bytes) -> None:
    """Cut off the end."""
    del data[int(len(data) * rng.random()) :]


def remove(data: bytearray, rng: np.random.Generator, _: bytes) -> None:
    """Remove a range."""
    start, end = random_range(data, rng)
    del data[start:end]


def repeat(data: bytearray, rng: np.random.Generator, _: bytes) -> None:
    """Insert up to three copies of a range behind it."""
    start, end = random_range(data, rng)
    data[end:end] = data[start:end] * int(rng.integers(1, 4))


def splice(data: bytearray, rng: np.random.Generator, other: bytes) -> None:
    """Replace a range, or everything from its start, by a range of another file."""
    start, end = random_range(data, rng)
    first, last = random_range(other, rng)
    data[start : len(data) if rng.integers(2) else end] = other[first:last]


def falsify(data: bytearray, rng: np.random.Generator, __: bytes) -> None:
    """Write extreme numbers where a size, count or time is likely: near the name of a box or chunk, or in the first bytes."""
    names = [match.start() for match in re.finditer(rb"[A-Za-z]{4}", data)]
    for _ in range(int(rng.integers(1, 4))):
        start = int(rng.choice(names)) + int(rng.integers(-4, 40)) if names and rng.integers(3) else int(rng.integers(0, 200))
        width = int(rng.choice((1, 2, 4, 8)))
        limit = 256**width
        number = int(rng.choice(np.array((0, 1, limit // 2 - 1, limit // 2, limit - 1, limit // 256), dtype=object)))
        start = max(0, min(start, len(data) - width))
        data[start : start + width] = number.to_bytes(width, "big" if rng.integers(2) else "little")


MUTATIONS: tuple[Callable[[bytearray, np.random.Generator, bytes], None], ...]
MUTATIONS = (flip, overwrite, truncate, remove, repeat, splice, falsify, falsify)  # the last one twice as often


def random_range(data: bytes | bytearray, rng: np.random.Generator) -> tuple[int, int]:
    """Return the start and end of a range of the data, mostly a short one near the start."""
    start = int(len(data) * rng.random() ** 2)  # headers are parsed most
    return start, min(len(data), start + 1 + int(len(data) * rng.random() ** 4))


def fix_png_checksums(data: bytearray) -> None:
    """Correct the checksums of a PNG file, so that its mutated chunks reach the decoder."""
    start = 8
    while start + 12 <= len(data):
        end = start + 8 + struct.unpack_from(">I", data, start)[0]
        if end + 4 > len(data):
            return
        struct.pack_into(">I", data, end, zlib.crc32(data[start + 4 : end]))
        start = end + 4


def mutate(originals: dict[str, bytes], number: int, seed: int) -> tuple[str, bytes]:
    """Return the name and content of mutated file `number` of a seed. The name lists the mutations."""
    rng = np.random.default_rng((seed, number))
    names = sorted(originals)
    name = names[number % len(names)]
    data, applied = bytearray(originals[name]), []
    for _ in range(int(rng.choice((1, 1, 2, 3)))):
        mutation = MUTATIONS[rng.integers(len(MUTATIONS))]
        mutation(data, rng, originals[names[rng.integers(len(names))]])
        applied.append(mutation.__name__)
        data = data or bytearray(1)
    if data.startswith(b"\x89PNG") and rng.integers(4):
        fix_png_checksums(data)
    suffix = (Path(name) if rng.integers(4) else Path(names[rng.integers(len(names))])).suffix
    return f"{number:06d}-{Path(name).stem}-{'-'.join(applied)}{suffix}", bytes(data)


def write(originals: dict[str, bytes], numbers: Sequence[int], seed: int, folder: Path) -> list[str]:
    """Write these mutated files of a seed and return their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, data in (mutate(originals, number, seed) for number in numbers):
        (folder / name).write_bytes(data)
        paths.append(str(folder / name))
    return paths


@dataclass(frozen=True)
class Options:
    """Run `prepare` on thousands of damaged files and check that every one is accounted for."""

    count: int = 2000
    """Number of mutated files."""
    seed: int = 0
    """Seed of the mutations."""
    frames: int = 8
    """Number of frames of a video; the fewer, the more of it need not be intact."""
    workers: int | None = None
    """Number of processes that decode; by default one per core."""
    timeout: float = 20.0
    """Seconds per file."""
    folder: Annotated[Path | None, tyro.conf.arg(name="from")] = None
    """Folder of further images and videos to mutate."""
    keep: Path | None = None
    """Folder in which the mutated files are kept."""


def run(paths: Sequence[str], cache: "Cache", workers: int | None, timeout: float) -> "pd.DataFrame":
    """Prepare the files and return their rows. Raises SystemExit if a file, or the clip of one, is unaccounted for."""
    import pandas as pd

    from tfdetect.data.prepare.decode import prepare

    rows = prepare(pd.DataFrame({"path": paths}), cache, workers, seconds=timeout)
    frames = [0 if error else len(cache.load(sha)) for sha, error in zip(rows["sha"], rows["error"], strict=True)]
    contradictory = (rows["error"] == "") == (rows["frames"] == 0)
    if list(rows["path"]) != list(paths) or frames != list(rows["frames"]) or contradictory.any():
        raise SystemExit("files are unaccounted for")
    return rows


def holds_frames(path: str, clip: np.ndarray) -> bool:
    """Return whether all frames of a clip are among the intact ones of the video. False timestamps may change their order."""
    from tfdetect.data.media.read import read_media
    from tfdetect.limits import Decoding

    whole = read_media(path, read_media(path).total, size=clip.shape[1], decoding=Decoding(check="all"))
    return {frame.tobytes() for frame in clip} <= {frame.tobytes() for frame in whole.frames}


def compare_checks(used: "pd.DataFrame", whole: "pd.DataFrame", used_cache: "Cache", whole_cache: "Cache") -> int:
    """Return how many videos only the check of all frames calls damaged, or takes in another order.

    Raises SystemExit if another video is read differently.
    Images are not compared: a decoder of them may show what was in memory before, in place of what is damaged.
    """
    from tfdetect.data.media.sniff import image_format

    count = 0
    for one, other in zip(used.itertuples(), whole.itertuples(), strict=True):
        facts = [(row.error, row.note, row.frames) for row in (one, other)]
        same = facts[0] == facts[1] and (one.error or (used_cache.load(one.sha) == whole_cache.load(other.sha)).all())
        timeouts = any(text.startswith("decoding took longer") for text in (one.error, other.error))
        is_image = bool(image_format(Path(one.path).read_bytes()[:64]))
        is_clean, is_damaged = not one.error and "damaged" not in one.note, bool(other.error) or "damaged" in other.note
        if not (same or timeouts or is_image or (is_clean and (is_damaged or holds_frames(one.path, used_cache.load(one.sha))))):
            raise SystemExit(f"{one.path}: {facts[0]} with --data.check used, {facts[1]} with all")
        count += not (same or is_image)
    return count


def main() -> None:
    import pandas as pd

    from tfdetect.data.media.sniff import is_media
    from tfdetect.data.prepare.clip_cache import Cache, ClipSpec
    from tfdetect.limits import Decoding

    options = tyro.cli(Options)
    originals, start, tables, seen_by_all = intact_files(), time.monotonic(), [], 0
    for path in sorted(options.folder.rglob("*")) if options.folder else ():
        if path.is_file() and is_media(path) and path.stat().st_size <= MAX_BYTES:
            originals[f"{path.parent.name}-{path.name}"] = path.read_bytes()
    for first in range(0, options.count, CHUNK):
        with tempfile.TemporaryDirectory() as temporary, nullcontext(options.keep or Path(temporary)) as folder:
            paths = write(originals, range(first, min(first + CHUNK, options.count)), options.seed, folder)
            caches = [Cache(Path(temporary) / "cache", ClipSpec(options.frames, 32, decoding=Decoding(check=check)))
                      for check in ("used", "all")]  # fmt: skip
            used, whole = (run(paths, cache, options.workers, options.timeout) for cache in caches)
            seen_by_all += compare_checks(used, whole, *caches)
            tables.append(used)
    print_report(pd.concat(tables), options, len(originals), time.monotonic() - start)
    print(f"{seen_by_all} files are damaged where none of the {options.frames} frames needs them, as --data.check all says")


def print_report(table: "pd.DataFrame", options: Options, num_originals: int, seconds: float) -> None:
    """Print what became of the files. Raises SystemExit if rows are missing."""
    from tfdetect.data.prepare.decode import summarise_failures

    failures = table["error"]
    lines = {
        "read": ((failures == "") & (table["note"] == "")).sum(),
        "read, with a note on damage or repeated frames": ((failures == "") & (table["note"] != "")).sum(),
        "failed, with a reason": (failures != "").sum(),
        "  of them: a decoder crashed": failures.str.contains("crashed").sum(),
        "  of them: out of time": failures.str.contains("decoding took longer").sum(),
        "  of them: out of memory": failures.str.contains("memory").sum(),
    }
    print(f"{len(table)} mutations of {num_originals} intact files, seed {options.seed}")
    for text, count in lines.items():
        print(f"{count:7d} {text}")
    for reason, count, example in summarise_failures(table):
        print(f"{count:7d} x {reason}   ({Path(example).name})")
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024
    print(f"{seconds:.0f} s; peak memory of the largest worker {peak} MB")
    if len(table) != options.count:
        raise SystemExit(f"{options.count - len(table)} files are unaccounted for")


if __name__ == "__main__":
    main()
