"""sample: write the embedded data set."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro

from tfdetect import config
from tfdetect.api.sample import write_sample
from tfdetect.data.sample import Sample
from tfdetect.workflow.console import console


@dataclass(frozen=True)
class WriteSample:
    """Generate real and fake images or videos, with a manifest.csv."""

    # No default for `sample`: it would fix the sources, which depend on the kind.

    out: Path
    """Folder to write to."""
    sample: tyro.conf.OmitArgPrefixes[Sample]
    """Settings of the embedded data set; equal settings give equal files."""


def main(argv: Sequence[str]) -> int:
    """Parse the flags and write the files."""
    args = config.parse_flags(WriteSample, argv, "sample")
    folder, spec = write_sample(args.out, args.sample), args.sample
    console.print(f"{spec.count} real and {spec.count} fake {spec.kind}s with manifest.csv in {folder}")
    return 0
