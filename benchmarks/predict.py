"""How fast `predict` is, beside what its parts could do alone: all files decoded, then all clips scored at the best batch size.

    python benchmarks/predict.py [--images 10000] [--videos 100]

The first side decodes the files in as many processes as `predict` and drops the frames. The second scores as many clips, ready in
memory, with the same SavedModel, at the batch size that a first look finds fastest. `predict` must do both, on the same cores.
The start is left out everywhere: the clock of a side that decodes starts with its first result, and counts the files after it.
All sides see the same files of the embedded sample; the detectors are untrained, which costs the same.
"""

import itertools
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from side_by_side import Report, Timed, cpu_seconds, options_parser, timed

SCRIPTS = Path(__file__).resolve().parents[1] / "scripts"
BATCHES, TRIED = (1, 2, 4, 8, 16, 32, 64), 256  # and the clips on which each size is tried
CASES = {"images": "residual", "videos": "cnn_lstm"}  # detectors
QUICK_SHARE = {"images": 100, "videos": 10}


def make_run(name: str, folder: Path, *flags: str) -> Path:
    """Train a detector for no epoch on a small sample, and return the folder of the run."""
    subprocess.run([sys.executable, SCRIPTS / "train.py", name, "--train.epochs", "0", "--data.sample", "20", "--stress", "0",
                    "--data.cache_dir", folder / "cache", "--out", folder, "--name", name, *flags],
                   check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip
    return folder / name


class Case:
    """The files of a kind, and a loaded detector."""

    def __init__(self, kind: str, count: int, size: int, folder: Path) -> None:
        import tfdetect
        from tfdetect.data.sample import Sample, write

        self.detector = tfdetect.load(make_run(CASES[kind], folder))
        spec = Sample(kind.removesuffix("s"), -(-count // 2), size=size, frames=48)
        self.files = sorted(map(str, write(spec, folder / kind).parent.glob("*/*.*")))[:count]
        self.predictor = self.detector.predictor
        self.clips = [self.predictor.model_frames(self.predictor.spec.read(path)) for path in self.files[:64]]

    def decode(self) -> Timed:
        """Decode all files as `predict` does."""
        from tfdetect.data.worker_pool import map_unordered

        results = map_unordered(enumerate(self.files), self.predictor.spec.try_read)
        return after_start((path for (_, path), _ in results), self.files)

    def score(self, batch: int, clips: int) -> Timed:
        """Score this many clips, in batches that are ready."""
        import numpy as np

        frames = np.stack(list(itertools.islice(itertools.cycle(self.clips), batch)))
        frames = frames.reshape(-1, 1, *frames.shape[2:]) if self.predictor.is_frame_detector else frames
        rounds = max(2, clips // batch)
        scored = timed(lambda: [self.predictor.predict_clips(frames) for _ in range(rounds)])
        factor = clips / (rounds * batch)
        return Timed(scored.wall * factor, scored.cpu * factor)

    def predict(self) -> Timed:
        """Predict all files, in order."""
        from tfdetect.settings import DecodeOverrides

        return after_start((verdict.path for verdict in self.detector.predict_each(self.files, DecodeOverrides())), self.files)

    def fastest_batch(self) -> tuple[int, dict[str, float]]:
        """Return the batch size with the fewest seconds, and the clips a second of each size."""
        clips = min(len(self.files), TRIED)
        self.score(BATCHES[0], clips)
        rates = {batch: clips / min(self.score(batch, clips).wall for _ in range(2)) for batch in BATCHES}
        return max(rates, key=lambda batch: rates[batch]), {str(batch): round(rate, 1) for batch, rate in rates.items()}


    def largest_difference(self, batch: int) -> float:
        """Return how far a score of a clip on its own is from that in a batch, over up to 64 clips."""
        import numpy as np

        frames = np.stack(self.clips)
        frames = frames.reshape(-1, 1, *frames.shape[2:]) if self.predictor.is_frame_detector else frames
        scores = [np.concatenate([self.predictor.predict_clips(frames[start : start + size])[0]
                                  for start in range(0, len(frames), size)]) for size in (1, batch)]  # fmt: skip
        return float(np.abs(scores[0] - scores[1]).max())


def after_start(results, files: list[str]) -> Timed:
    """Return the seconds from the first of the results on, scaled to all files; the CPU seconds are those of everything, since
    those of the other processes are known only when they have ended."""
    before = cpu_seconds()
    next(results)
    start = time.perf_counter()
    seen = 1 + sum(1 for _ in results)
    assert seen == len(files), f"{seen} of {len(files)} files"
    return Timed((time.perf_counter() - start) * len(files) / (len(files) - 1), cpu_seconds() - before, seen)


def compare(report: Report, kind: str, case: Case) -> None:
    """Compare `predict` on the files of a kind with what its parts take alone."""
    batch, rates = case.fastest_batch()
    ours = case.predictor.batch
    difference = case.largest_difference(ours)
    report.facts[kind] = {"detector": CASES[kind], "fastest_batch": batch, "clips_per_second_by_batch": rates,
                          "batch_of_predict": ours, "largest_score_difference_to_batch_1": difference}  # fmt: skip
    print(f"\n{kind}: {report.facts[kind]}")
    sides = {"decoding alone": case.decode, f"network alone, batches of {batch}": lambda: case.score(batch, len(case.files)),
             "predict": case.predict}  # fmt: skip
    times = report.compare(kind, sides, len(case.files), kind)
    decode, network, predict = times.values()
    for measure in ("wall", "cpu"):
        seconds = [[getattr(one, measure) for one in rounds] for rounds in (decode, network, predict)]
        ratio = median((a + b) / c for a, b, c in zip(*seconds, strict=True))
        report.add_line(f"predict on {kind}, {measure} seconds of its parts alone over its own", ratio, 0.8, 0.95, case=kind)


def main() -> None:
    """Measure images, then videos."""
    parser = options_parser(__doc__, __file__)
    parser.add_argument("--images", type=int, default=10_000, help="JPEG files of 256 x 256 pixels")
    parser.add_argument("--videos", type=int, default=100, help="H.264 files of 48 frames, 256 x 256 pixels")
    options = parser.parse_args()
    report = Report(__file__, options, packages=["tensorflow", "numpy", "opencv-python-headless", "av"], seeds={"sample": 0})
    with tempfile.TemporaryDirectory() as name:
        for kind, count in (("images", options.images), ("videos", options.videos)):
            if count:
                count = max(10, count // QUICK_SHARE[kind]) if options.quick else count
                compare(report, kind, Case(kind, count, 256, Path(name)))
    report.write()


if __name__ == "__main__":
    main()
