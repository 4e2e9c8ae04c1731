"""--data.decoder and --data.check from the flags to the reader, in `prepare`, `audit` and prediction."""

import json

import pytest
from stamped import write

from tfdetect import cli, config
from tfdetect.data.media.read import read_media
from tfdetect.data.prepare.clip_cache import Cache, ClipSpec
from tfdetect.limits import Decoding
from tfdetect.settings import Data, DecodeOverrides
from tfdetect.workflow import dataset

ALL = Decoding(check="all")


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """A data set with a video that is damaged where two frames do not need it."""
    folder = tmp_path_factory.mktemp("videos")
    for kind in ("real", "fake"):
        (folder / kind).mkdir()
        write(folder / kind / f"{kind}.mp4", count=60, g="12", bf="0")
    path = folder / "fake" / "fake.mp4"
    data = bytearray(path.read_bytes())
    middle = data.find(b"mdat") + len(data) // 2 - 400
    data[middle : middle + 200] = b"\x55" * 200
    path.write_bytes(data)
    assert read_media(path, 2).note == "" and "damaged" in read_media(path, 2, decoding=ALL).note
    return folder


def test_flags_decide_the_key_of_the_cache_and_what_is_checked(tmp_path, videos):
    keys = [Decoding(decoder, check).key for decoder in ("auto", "pyav", "decord", "opencv") for check in ("used", "all")]
    assert len(set(keys)) == 8 and keys[0] == ""
    notes = {}
    for check in ("used", "all"):
        data = config.parse(["cnn_lstm", "--data.check", check, "--data.decoder", "pyav", "--data.frames", "2"], "t").data
        spec = dataset.clip_spec(data, tmp_path)
        assert spec.decoding == Decoding("pyav", check) and spec.key.endswith(Decoding("pyav", check).key)
        notes[check] = Cache(tmp_path, spec).decode_file(str(videos / "fake" / "fake.mp4")).result["note"]
    assert notes["used"] == "" and notes["all"].startswith("damaged")


def test_a_prepared_folder_brings_its_check(tmp_path, videos):
    out = tmp_path / "x"
    flags = ["--out", str(out), "--data.size", "16", "--data.frames", "2", "--data.check", "all", "--data.workers", "1"]
    assert cli.main(["prepare", str(videos), *flags]) == 0
    assert "damaged" in (out / "manifest.csv").read_text()
    assert config.parse(["cnn", "--data.path", str(out)], "t").data.check == "all"
    content = json.loads((out / "prepared.json").read_text())
    assert content["data"]["check"] == "all"
    del content["data"]["check"], content["data"]["decoder"]
    (out / "prepared.json").write_text(json.dumps(content))
    assert config.parse(["cnn", "--data.path", str(out)], "t").data.check == "used", "one that an older version made"


@pytest.mark.parametrize("check", ["used", "all"])
def test_audit_and_equalise_say_which_frames_they_checked(tmp_path, videos, capsys, check):
    flags = ["--data.check", check, "--data.workers", "1"]
    assert cli.main(["audit", str(videos), "--out", str(tmp_path), *flags]) == 0
    assert json.loads((tmp_path / "audit.json").read_text())["check"] == check
    assert cli.main(["prepare", str(videos), "--out", str(tmp_path / "x"), "--equalise", "--data.size", "16", *flags]) == 0
    assert " ".join(capsys.readouterr().out.split()).count(f"(--data.check {check})") == 2


def test_the_check_of_a_run_can_be_replaced_in_prediction():
    trained = Data(check="all", decoder="opencv")
    assert DecodeOverrides().apply_to(trained).decoding == Decoding("opencv", "all")
    assert DecodeOverrides(check="used").apply_to(trained).decoding == Decoding("opencv", "used")


def test_decord_that_is_not_installed_is_refused_at_once(monkeypatch, capsys):
    monkeypatch.setattr("tfdetect.settings.find_spec", lambda name: None)
    with pytest.raises(SystemExit) as error:
        cli.main(["train", "cnn", "--data.decoder", "decord"])
    assert error.value.code == 2
    assert "needs decord, which is not installed" in " ".join(capsys.readouterr().err.split())


def test_clip_spec_passes_the_decoding_to_faces_and_equalised_copies(monkeypatch, tmp_path, videos):
    seen = []
    monkeypatch.setattr("tfdetect.data.prepare.clip_cache.read_media", lambda *_, decoding, **__: seen.append(decoding) or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        ClipSpec(2, 16, decoding=ALL).read(videos / "real" / "real.mp4")
    assert seen == [ALL]
