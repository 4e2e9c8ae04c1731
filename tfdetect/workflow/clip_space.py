"""Say how much space the clips of a data set will take, whether the disk has it, and what they took."""

from typing import TYPE_CHECKING

from tfdetect import installation
from tfdetect.files import format_bytes, free_space
from tfdetect.workflow.console import console, printable

if TYPE_CHECKING:
    import pandas as pd

    from tfdetect.data.prepare.clip_cache import Cache


def print_expected_size(table: "pd.DataFrame", cache: "Cache", seconds: float | None) -> None:
    """Print about how much space the clips will take that are not in the cache yet, and whether the disk has it."""
    from tfdetect.data.prepare.decode import estimate_size

    if expected := estimate_size(table, cache, seconds):
        free = free_space(cache.folder)
        console.print(f"The clips will take about {format_bytes(expected)} in {printable(str(cache.folder))}; "
                      f"{format_bytes(free)} are free")  # fmt: skip
        if expected > free:
            console.print("They will not fit, and decoding will stop when the disk is full: free some space, for example with "
                          f"{installation.command('cache')}, use another disk, or lower --data.size ({cache.spec.size}) or, for "
                          f"videos, --data.frames ({cache.spec.frames}).")  # fmt: skip


def print_size(table: "pd.DataFrame", cache: "Cache") -> None:
    """Print how much space the clips of a prepared manifest take."""
    from tfdetect.data.prepare.decode import size_on_disk

    console.print(f"The clips take {format_bytes(size_on_disk(table, cache))} in {printable(str(cache.folder))}")
