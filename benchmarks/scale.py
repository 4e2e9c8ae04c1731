"""Say what a million videos and a hundred million images cost, at the rates that the other benchmarks have measured.

    python benchmarks/scale.py

Prints the table of docs/scale.md: storage, core hours by the CPU seconds in the JSON files beside this script, and GPU hours by
the images per second of gpu.py, with JAX in mixed_bfloat16. Only the size of the index is measured here, on 4,000 images.
"""

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that it runs from a checkout, installed or not

HERE = Path(__file__).parent
VIDEOS, IMAGES = 1_000_000, 100_000_000
INDEXED = 4000


def main() -> None:
    index = index_bytes()
    video, image, predict, train = (load(name) for name in ("video", "images", "predict", "train"))
    clip, photo = 16 * 224**2 * 3, 256**2 * 3
    rows = [
        ("clips of 1 million videos, 16 x 224 x 224 pixels", f"{VIDEOS * clip / 1e12:.1f} TB in {shards(VIDEOS * clip):,} files"),
        ("clips of 100 million images, 256 x 256 pixels", f"{IMAGES * photo / 1e12:.1f} TB in {shards(IMAGES * photo):,} files"),
        ("their index", f"{VIDEOS * index / 1e9:.1f} GB and {IMAGES * index / 1e9:.0f} GB ({index:.0f} bytes per file)"),
        *((f"prepare, 1 million videos of 10 s, {codec}", hours(VIDEOS, seconds)) for codec, seconds in video_seconds(video)),
        *((f"prepare, 100 million JPEG images, {case}", hours(IMAGES, seconds)) for case, seconds in our_seconds(image)),
        *((f"predict, {count:,} {kind} like those of the embedded sample", hours(count, seconds_of(predict, kind, "predict")))
          for kind, count in (("videos", VIDEOS), ("images", IMAGES))),
        ("an epoch of cnn_lstm over 1 million clips of 20 x 64 x 64", hours(VIDEOS, dict(our_seconds(train))["cnn_lstm"])),
        *(gpu_row(case, content) for name in ("gpu_jax", "gpu_jax2") for case, content in load(name)["cases"].items()
          if "bfloat16" in case),
    ]  # fmt: skip
    print("| what | cost |\n|---|---|")
    for name, cost in rows:
        print(f"| {name} | {cost} |")


def load(name: str) -> dict[str, Any]:
    """Return the results of another benchmark."""
    return dict(json.loads((HERE / f"{name}.json").read_text()))


def our_seconds(results: dict[str, Any]) -> list[tuple[str, float]]:
    """Return (case, CPU seconds per item) of the side that is ours, of every case but those that measure a start."""
    found = []
    for case, content in results["cases"].items():
        ours = [side for name, side in content["sides"].items() if name.startswith("tfdetect") or name == "prepare"]
        if ours and not case.endswith("start"):
            found.append((case, ours[0]["cpu"] / content["items"]))
    return found


def video_seconds(results: dict[str, Any]) -> list[tuple[str, float]]:
    """Return (codec, CPU seconds per video of 10 s)."""
    return [(case.partition(",")[0], seconds) for case, seconds in our_seconds(results) if case.endswith(", 10 s")]


def seconds_of(results: dict[str, Any], case: str, side: str) -> float:
    """Return the CPU seconds per item of one side of a case."""
    content = results["cases"][case]
    return float(content["sides"][side]["cpu"]) / int(content["items"])


def gpu_row(case: str, content: dict[str, Any]) -> tuple[str, str]:
    """Return what a hundred million images cost on the card that gpu.py was run on: the features of CLIP, or an epoch."""
    seconds = content["sides"]["tfdetect"]["wall"] / content["items"]
    what = "features of" if case.startswith("clip") else "an epoch of"
    return f"GPU: {what} {case.partition(',')[0]} over 100 million images", f"{IMAGES * seconds / 3600:,.1f} GPU hours " \
        f"({1 / seconds:,.0f} images/s)"  # fmt: skip


def hours(count: int, seconds: float) -> str:
    """Return what so many items of so many CPU seconds cost."""
    return f"{count * seconds / 3600:,.0f} core hours ({1000 * seconds:.3g} ms each)"


def shards(size: int) -> int:
    """Return the number of shards of so many bytes."""
    from tfdetect.data.prepare.shards import SHARD_BYTES

    return -(-size // SHARD_BYTES)


def index_bytes() -> float:
    """Return the bytes of the index per file."""
    import pandas as pd
    from prepare_cost import write_images

    from tfdetect.data.prepare.clip_cache import Cache, ClipSpec
    from tfdetect.data.prepare.clip_index import INDEX_NAME
    from tfdetect.data.prepare.decode import prepare

    with tempfile.TemporaryDirectory() as folder:
        write_images(Path(folder), INDEXED)
        cache = Cache(Path(folder, "cache"), ClipSpec(1, 16))
        prepare(pd.DataFrame({"path": [str(path) for path in sorted(Path(folder).rglob("*.png"))]}), cache)
        return os.path.getsize(cache.folder / INDEX_NAME) / INDEXED


if __name__ == "__main__":
    main()
