"""Masks are found in tables, folders and beside FaceForensics++, and are cut to squares as their files are."""

import cv2
import numpy as np
import pytest
from planted import plant

from tfdetect.data.media.frames import Fit, Media
from tfdetect.data.prepare.clip_cache import ClipSpec
from tfdetect.errors import UserError
from tfdetect.workflow import masks


def test_a_table_names_masks_and_real_files_take_that_of_their_group(tmp_path):
    rows = "path,label,group,mask\na.png,fake,1,m.png\nb.png,0,1,\nc.png,real,2,\nd.png,1,1,\n"
    plant(tmp_path, ("files.csv", rows), "a.png", "b.png", "c.png", "d.png", "m.png")
    found = masks.Masks.find([tmp_path / "files.csv", tmp_path], None)
    mask = tmp_path / "m.png"
    assert [found.of(str(tmp_path / f"{name}.png")) for name in "abcd"] == [(mask, True), (mask, False), None, None]


def test_masks_in_a_folder_have_the_names_of_their_files(tmp_path):
    plant(tmp_path, "masks/deep/x.png")
    found = masks.Masks.find([], tmp_path / "masks")
    assert found.of("fake/x.mp4") == (tmp_path / "masks/deep/x.png", True) and found.of("fake/y.mp4") is None
    assert found.of("data/Real/x.jpg") == (tmp_path / "masks/deep/x.png", False), "its real twin"
    with pytest.raises(UserError, match="nothing is no folder with files"):
        masks.Masks.find([], tmp_path / "nothing")


def test_masks_beside_faceforensics_are_found(tmp_path):
    folder = tmp_path / "manipulated_sequences" / "Deepfakes"
    plant(folder, "c23/videos/000_003.mp4", "masks/videos/000_003.mp4", "c23/videos/001_002.mp4")
    found = masks.Masks.find([], None)
    assert found.of(str(folder / "c23/videos/000_003.mp4")) == (folder / "masks/videos/000_003.mp4", True)
    assert found.of(str(folder / "c23/videos/001_002.mp4")) is None


def test_a_mask_is_cut_to_the_squares_of_its_file(tmp_path):
    mask = np.zeros((64, 128, 3), np.uint8)
    mask[:32, :64, 2] = 255  # coloured, as some masks of FaceForensics++ are
    cv2.imwrite(str(tmp_path / "mask.png"), mask)
    media = Media(np.zeros((3, 32, 32, 3), np.uint8), (0, 5, 9), 10, 128, 64, "")
    forged = masks.read(tmp_path / "mask.png", ClipSpec(3, 32), media)
    assert forged.shape == (3, 32, 32) and forged[:, :16, :16].all() and forged.mean() == 0.25, "for each frame"
    crops = Media(np.zeros((2 * 2, 32, 32, 3), np.uint8), (0, 9), 10, 128, 64, "")
    spec = ClipSpec(2, 32, fit=Fit("crop", 2))
    forged = masks.read(tmp_path / "mask.png", spec, crops)
    assert forged.shape == (4, 32, 32) and forged[0].all() and not forged[1].all() and (forged[0] == forged[2]).all()
