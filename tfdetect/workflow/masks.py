"""The masks of forged regions: where they are, and what of them the frames show that a heat-map is compared with."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tfdetect.data.manifest import REAL_WORDS
from tfdetect.data.media.frames import Media
from tfdetect.data.media.sniff import MediaError, failure_reason
from tfdetect.data.prepare.clip_cache import ClipSpec
from tfdetect.errors import UserError
from tfdetect.workflow.verdicts import TABLE_SUFFIXES, paths_in_table

if TYPE_CHECKING:
    from tfdetect.serving.predictor import Predictor

COMPRESSIONS = ("raw", "c0", "c23", "c40")  # folders of FaceForensics++ beside `masks`
BRIGHT = 128  # grey level from which on a pixel of a mask, in its brightest channel, is forged


@dataclass(frozen=True)
class Masks:
    """Finds the mask of each file, an image or a video: in a table's column, in a folder by its name, or beside it as in FF++."""

    by_path: Mapping[str, tuple[str, bool]]
    """Path of a file -> (path of its mask, whether it is the file that was forged), of tables with a column `mask`."""
    by_stem: Mapping[str, Path]

    @classmethod
    def find(cls, files: Iterable[Path], folder: Path | None) -> "Masks":
        """Raises UserError if `folder` has no file."""
        by_path: dict[str, tuple[str, bool]] = {}
        for table in files:
            if table.suffix.lower() in TABLE_SUFFIXES:
                by_path |= _of_table(table)
        by_stem = {path.stem: path for path in sorted(folder.rglob("*")) if path.is_file()} if folder else {}
        if folder and not by_stem:
            raise UserError(f"--masks {folder} is no folder with files; expected an image or a video for each file, of its name.")
        return cls(by_path, by_stem)

    def of(self, path: str) -> tuple[Path, bool] | None:
        """Return the mask of a file and whether it is the forged one, not its real twin; None if it has none.

        Of files that share the name of a mask in the folder, those in a folder `real` or the like are twins.
        """
        if path in self.by_path:
            mask, is_forged = self.by_path[path]
            return Path(mask), is_forged
        file = Path(path)
        if file.stem in self.by_stem:
            return self.by_stem[file.stem], file.parent.name.lower() not in REAL_WORDS
        for part in set(file.parts) & set(COMPRESSIONS):
            beside = Path(*("masks" if each == part else each for each in file.parts))
            if beside.is_file():
                return beside, True
        return None

    def region(self, path: str, predictor: "Predictor", media: Media) -> tuple[np.ndarray | None, dict[str, Any]]:
        """Return the forged pixels of the frames that the detector scores, and what the results say of the mask; (None, {}) if
        the file has none, or the run sees faces."""
        found = self.of(path)
        if not found or predictor.spec.faces:
            return None, {}
        mask, is_forged = found
        try:
            forged = read(mask, predictor.spec, media)
        except (MediaError, OSError) as error:
            return None, {"mask": str(mask), "mask_error": failure_reason(error)}
        forged = np.repeat(forged, predictor.spec.repeat_count(len(forged)), axis=0)
        return forged, {"mask": str(mask), "forged": is_forged}


def read(path: Path, spec: ClipSpec, media: Media) -> np.ndarray:
    """Return the forged pixels of the clip `media`, (frames, size, size) bool, by the mask of its file.

    The mask is cut to squares as the clip was; one that is an image, or has other frames, stands for all frames, or for those at
    the same share of its length. Raises MediaError if it cannot be read.
    """
    mask = replace(spec, faces=None, plan=None).read(path)
    frames = mask.frames.max(axis=-1) >= BRIGHT
    per_frame = len(media.frames) // len(media.indices)
    wanted = np.linspace(0, len(frames) // per_frame - 1, len(media.indices)).round().astype(int)
    return frames.reshape(-1, per_frame, *frames.shape[1:])[wanted].reshape(-1, *frames.shape[1:])


def _of_table(table: Path) -> dict[str, tuple[str, bool]]:
    """Return the masks of a table: of each row that names one, and of each real file in whose group a fake has one."""
    from tfdetect.data import manifest, tables

    rows = manifest.read_unchecked(table)
    if "mask" not in rows or "path" not in rows:
        return {}
    rows = rows[rows["path"] != ""].assign(path=paths_in_table(table))
    given = rows[rows["mask"] != ""]
    found = dict(zip(given["path"], tables.resolve_paths(table.parent, given["mask"]), strict=True))
    masks = {path: (mask, True) for path, mask in found.items()}
    if not {"group", "label"} <= set(rows):
        return masks
    of_group = {group: found[path] for group, path in zip(given["group"], given["path"], strict=True) if group}
    real_words = [word for word, label in manifest.LABELS.items() if label == 0]
    twins = rows[(rows["mask"] == "") & rows["label"].str.strip().str.lower().isin(real_words)]
    masks |= {path: (of_group[group], False) for path, group in zip(twins["path"], twins["group"], strict=True)
              if group in of_group}  # fmt: skip
    return masks
