"""Shortcuts are looked for without reading a file that was decoded before."""

import pandas as pd
import pytest
from in_process import decode_here

from tfdetect.data import manifest
from tfdetect.data.audit import properties
from tfdetect.data.layouts import detect
from tfdetect.data.prepare import decode
from tfdetect.data.prepare.clip_cache import Cache, ClipSpec
from tfdetect.settings import Data
from tfdetect.workflow import scoring

pytestmark = pytest.mark.usefixtures("light")


@pytest.fixture
def prepared(tmp_path, images):
    cache = Cache(tmp_path / "cache", ClipSpec(1, 16))
    return decode.prepare(manifest.split(detect.read(images)), cache, runner=decode_here), cache


def test_properties_come_from_the_cache(prepared, monkeypatch):
    table, cache = prepared
    by_reading = scoring.find_shortcuts(table, Data())
    monkeypatch.setattr(properties, "measure", None)  # nothing is read
    found = scoring.find_shortcuts(table.assign(path="gone/" + table["path"].str.rpartition("/")[2]), Data(), cache)
    assert found.aucs.keys() == by_reading.aucs.keys() >= {"bytes", "thumbnail", "all_container", "all"}
    exact = {*properties.CONTAINER, "all_container"} & found.aucs.keys()  # thumbnails are resized otherwise
    assert {name: found.aucs[name] for name in exact} == {name: by_reading.aucs[name] for name in exact}


def test_the_extension_is_that_of_the_file_and_not_of_a_copy_that_was_decoded_first(prepared):
    table, cache = prepared
    renamed = table.assign(path=table["path"].str.replace(".jpg", ".PNG"))
    assert set(scoring.collect_properties(renamed, Data(), cache)["extension"]) == {".png"}


def test_only_files_that_the_cache_knows_nothing_about_are_read(prepared, monkeypatch):
    table, cache = prepared
    known = cache.facts(table["sha"])
    monkeypatch.setattr(Cache, "facts", lambda self, shas: [None, None, *known[2:]])
    read = []

    def collect(files, *settings, **more):
        read.append(list(files["path"]))
        return properties.collect(files, *settings, **more)

    monkeypatch.setattr(scoring, "collect", collect)
    table.loc[1, "path"] = "gone.jpg"
    found = scoring.collect_properties(table, Data(), cache)
    assert read == [[table["path"][0]]] and list(found["error"]) == ["", "the file does not exist", *[""] * (len(table) - 2)]
    pd.testing.assert_frame_equal(found.loc[:0, properties.CONTAINER],
                                  scoring.collect_properties(table, Data(), cache).loc[:0, properties.CONTAINER])  # fmt: skip
