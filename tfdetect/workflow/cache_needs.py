"""What the runs in some folders need from a cache, to be resumed, trained further or evaluated again."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tfdetect import artifact as artifacts
from tfdetect import config, versions
from tfdetect.artifact import Artifact
from tfdetect.errors import UserError
from tfdetect.workflow.console import counter


@dataclass
class Needs:
    """What runs need, in case of doubt too much: settings are told apart by storage format, frames, size and frame rate only."""

    hashes: dict[str, set[str] | None] = field(default_factory=dict)
    """The hashes of the files that are needed as clips, by settings such as npy-8x256; None stands for all files."""
    folders: set[str] = field(default_factory=set)
    """Folders of the files."""
    samples: bool = False
    """Whether any embedded sample may be needed."""
    everything: bool = False
    """Whether all clips may be needed."""

    def hashes_for(self, key: str) -> set[str] | None:
        """Return the hashes of the files that are needed as clips with these settings, such as npy-8x256-2fps; None for all."""
        needed = [hashes for settings, hashes in self.hashes.items() if key == settings or key.startswith(f"{settings}-")]
        return None if self.everything or None in needed else set().union(*filter(None, needed))

    def has_folder(self, path: Path) -> bool:
        """Return whether files in this folder are needed."""
        places = {os.path.abspath(path), os.path.realpath(path)}
        return any(folder == place or folder.startswith(f"{place}{os.sep}") for folder in self.folders for place in places)

    def add(self, artifact: Artifact) -> None:
        """Add what a run needs: anything if a training is about to replace it, or to train it further, with settings that are not
        in its folder yet. Raises UserError if its settings or manifest cannot be read."""
        from tfdetect.data import manifest
        from tfdetect.data.prepare.clip_cache import ClipSpec

        if artifact.is_finished and artifacts.is_locked(artifact):
            self.everything = self.samples = True
        content = config.load_yaml(artifact.config)
        try:
            data: dict[str, Any] = dict(content["data"])
            key = f"{data['cache']}-{ClipSpec(data['frames'], data['size'], data['fps']).key}"
            self.folders |= {str(data["path"])} if data["path"] else set()
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"{artifact.config} has no valid settings of clips ({error}).") from error
        if not artifact.manifest.exists():  # still decoding, or interrupted in it
            self.hashes[key], self.samples = None, self.samples or not data["path"]
            return
        table = manifest.read_unchecked(artifact.manifest)
        self.folders |= set(table["path"].map(os.path.dirname))
        known = self.hashes.setdefault(key, set())
        if known is not None and "sha" in table:
            known |= set(table["sha"])


def find_needs(runs: Sequence[Path], training_only: bool) -> Needs:
    """Return what the runs in these folders need; with `training_only`, those that are being trained at the moment.

    Raises UserError if a run cannot be read, or if all runs are asked for and there is none: nothing would then be needed.
    """
    found = [Artifact(version) for root in runs if root.is_dir() for folder in artifacts.find_runs(root)
             for version in (folder, *versions.older(folder))]  # fmt: skip
    if not found and not training_only:
        raise UserError(f"There is no run in {', '.join(map(str, runs))}, so nothing would count as needed: give the "
                        "folders of your runs with --runs, or choose by age alone, such as --older_than 30d.")  # fmt: skip
    needs = Needs()
    with counter("Reading what the runs need", "run") as step:
        for artifact in found:
            step(1)
            if training_only and not artifacts.is_locked(artifact):
                continue
            try:
                needs.add(artifact)
            except (OSError, UserError) as error:
                raise UserError(f"It is not known what the run {artifact.folder} needs: {error} Move or delete it, or choose by "
                                "age alone, such as --older_than 30d.") from error  # fmt: skip
    return needs
