"""sample: write the embedded data set."""

from pathlib import Path
from typing import Any

from tfdetect import config
from tfdetect.data.sample import Sample, write
from tfdetect.workflow.console import progress


def sample(out: str | Path, **settings: Any) -> Path:
    """Generate real and fake images or videos with a manifest.csv in the folder `out`, and return that folder.

    The keywords are flags of the command `sample`, such as `kind="image"` and `count=100`. Raises UserError for a setting that is
    not valid.
    """
    flags = config.keywords_to_flags(Sample(), settings)
    with config.parser_errors():
        spec = config.parse_flags(Sample, flags, "sample")  # without a default, because its sources depend on its kind
    return write_sample(Path(out), spec)


def write_sample(out: Path, spec: Sample) -> Path:
    """Write the files, and return their folder."""
    with progress("Drawing", 2 * spec.count) as step:
        write(spec, out, None, step)
    return out
