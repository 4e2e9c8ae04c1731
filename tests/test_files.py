"""Sizes of files, on disk and in words."""

import os

import pytest

from tfdetect import files


@pytest.mark.parametrize(
    "number, text",
    [(0, "0 B"), (812, "812 B"), (1000, "1.0 kB"), (4096, "4.1 kB"), (9949, "9.9 kB"), (9951, "10 kB"), (999_499, "999 kB"),
     (999_500, "1.0 MB"), (23_400_000, "23 MB"), (10**12, "1.0 TB"), (12_345 * 10**12, "12,345.0 TB")],
)  # fmt: skip
def test_sizes_in_words(number, text):
    assert files.format_bytes(number) == text


def test_every_file_is_found_once_and_links_are_not_followed(tmp_path):
    (tmp_path / "a" / "b").mkdir(parents=True)
    for name in ("x", "a/y", "a/b/z"):
        (tmp_path / name).write_bytes(bytes(5000))
    (tmp_path / "a" / "loop").symlink_to(tmp_path)
    found = {os.path.relpath(path, tmp_path): status.st_size for path, status in files.walk(tmp_path)}
    assert {name: size for name, size in found.items() if name != "a/loop"} == {"x": 5000, "a/y": 5000, "a/b/z": 5000}
    assert set(found) == {"x", "a/y", "a/b/z", "a/loop"} and list(files.walk(tmp_path / "none")) == []


def test_size_on_disk_is_in_whole_blocks(tmp_path):
    assert [files.disk_size(length) for length in (0, 1, 4096, 4097)] == [0, 4096, 4096, 8192]
    assert files.free_space(tmp_path / "not" / "yet") == pytest.approx(files.free_space(tmp_path), rel=0.1)
