"""What training says about the space that clips take."""

from tfdetect.data.layouts import detect
from tfdetect.data.prepare.clip_cache import Cache, ClipSpec
from tfdetect.settings import Data
from tfdetect.workflow import clip_space, dataset


def test_space_is_named_before_and_after_decoding(tmp_path, images, monkeypatch, capsys):
    cache, table = Cache(tmp_path / "cache", ClipSpec(1, 16)), detect.read(images).head(4)
    monkeypatch.setattr(clip_space, "free_space", lambda path: 10**10)
    clip_space.print_expected_size(table, cache, None)
    assert capsys.readouterr().out == f"The clips will take about 3.1 kB in {cache.folder}; 10 GB are free\n"
    monkeypatch.setattr(clip_space, "free_space", lambda path: 1000)
    dataset.decode(table, Data(workers=1), cache, table.head(0))
    out = capsys.readouterr().out
    assert "1.0 kB are free" in out and "They will not fit" in out and "lower --data.size (16)" in out
    assert f"The clips take 3.1 kB in {cache.folder}" in out
    clip_space.print_expected_size(table, cache, None)
    assert not capsys.readouterr().out, "nothing more is needed"
