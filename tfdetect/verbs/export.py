"""export: re-export the SavedModel of a run."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro

from tfdetect import config
from tfdetect.api.export import export_run
from tfdetect.errors import UserError
from tfdetect.workflow import hub
from tfdetect.workflow.console import console


@dataclass(frozen=True)
class Export:
    """Re-export the SavedModel of a run, from its model.keras and calibration.json into its folder 1/, or that of its version."""

    run: tyro.conf.Positional[Path]
    """Folder of the run, such as saved_models/cnn."""
    trust: bool = False
    """Accept files that differ from SHA256SUMS, and write it again."""
    push_to_hub: str = ""
    """Instead of exporting: list what would be pushed to this repository of the Hugging Face Hub, such as me/cnn."""
    yes: bool = False
    """With --push_to_hub: push it."""
    private: bool = False
    """With --push_to_hub: make the repository private if it does not exist yet."""

    def __post_init__(self) -> None:
        if (self.yes or self.private) and not self.push_to_hub:
            raise UserError("--yes and --private belong to --push_to_hub REPOSITORY.")


def main(argv: Sequence[str]) -> int:
    """Parse the flags and export."""
    args = config.parse_flags(Export, argv, "export")
    if args.push_to_hub:
        return hub.run(args.run, args.push_to_hub, args.yes, args.private)
    folder, signatures = export_run(args.run, args.trust)
    from tfdetect.serving.export import SERVING_NOTES

    console.print(f"SavedModel  {folder}, described in {folder.parent / SERVING_NOTES}")
    for name, description in signatures.items():
        console.print(f"  {name}: {description}")
    return 0
