"""sample: write the embedded data set."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import tyro

from tfdetect import config
from tfdetect.data.sample import Sample, write
from tfdetect.workflow.console import console, progress


@dataclass(frozen=True)
class WriteSample:
    """Generate real and fake images or videos, with a manifest.csv."""

    out: Path
    """Folder to write to."""
    sample: tyro.conf.OmitArgPrefixes[Sample] = field(default_factory=Sample)


def main(argv: Sequence[str]) -> int:
    """Parse the flags and write the files."""
    args = config.parse_flags(WriteSample, argv, "sample.py")
    spec = args.sample
    with progress("Drawing", 2 * spec.count) as step:
        write(spec, args.out, None, step)
    console.print(f"{spec.count} real and {spec.count} fake {spec.kind}s with manifest.csv in {args.out}")
    return 0
