"""prepare: check and decode a data set into a folder that training reads."""

from collections.abc import Sequence

from tfdetect import config
from tfdetect.api.prepare import Prepare, prepare_data
from tfdetect.workflow.console import console, print_command


def main(argv: Sequence[str]) -> int:
    """Parse the flags, prepare the data set, and print the next command."""
    args, beam_options = config.parse_flags(Prepare, argv, "prepare", unknown=True)
    if beam_options and args.runner in ("local", "dask"):
        config.parse_flags(Prepare, argv, "prepare")  # exits with a message about the unknown flags
    folder = prepare_data(args, beam_options)
    if args.dry_run:
        return 0
    console.print(f"\nPrepared  {folder}\nNext:")
    print_command("train", "cnn", "--data.path", folder)
    return 0
