"""--profile: print where the time of a command went, and write a profile for TensorBoard."""

import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tfdetect import stages
from tfdetect.workflow.console import console, print_columns, printable

MEANING = {
    "read": "reading and hashing files", "decode": "decoding to frames", "face": "finding and cropping faces",
    "resize": "resizing", "describe": "properties of the file, for shortcuts", "write": "writing clips",
    "copy": "copying clips from the cache into batches", "augment": "augmentation", "step": "the network",
    "wait": "waiting for the next file or batch",
}  # fmt: skip


@contextmanager
def profiled(active: bool, logs: Path, with_trace: bool = True) -> Iterator[None]:
    """If active, measure the stages in the block, print them, and write a profile into `logs`: TensorFlow's trace of this
    process, or the stages alone, for work that only other processes do."""
    if not active:
        yield
        return
    from tfdetect.training import trace

    start = time.monotonic()
    with ExitStack() as stack:
        stack.enter_context(stages.measuring())
        if with_trace:
            stack.enter_context(trace.trace(logs))
        yield
    seconds = stages.take()
    print_stages(seconds, time.monotonic() - start)
    trace.write_stages(logs, seconds)
    console.print(f"Profile {printable(str(logs))} (tensorboard --logdir {printable(str(logs))})")


def print_stages(seconds: Mapping[str, float], wall: float) -> None:
    """Print the stages, the longest first. They may add up to more than the time that has passed, over processes and threads."""
    total = sum(seconds.values())
    rows = [[f"{value:.2f}", f"{100 * value / total:.0f} %", name, MEANING.get(name, "")]
            for name, value in sorted(seconds.items(), key=lambda item: -item[1])]  # fmt: skip
    print_columns(["seconds", "share", "stage", "what"], rows, right=("seconds", "share"))
    console.print(f"{total:.1f} s in {wall:.1f} s, all processes and threads added up")
