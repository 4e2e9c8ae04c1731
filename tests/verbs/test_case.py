"""predict --case: the page and the JSON file, for images, videos, files that cannot be read, and two detectors side by side."""

import hashlib
import json
import os
import re
import subprocess
from dataclasses import replace

import pytest
from PIL import Image

import tfdetect
from tfdetect import cli
from tfdetect.errors import UserError
from tfdetect.pages import case as page
from tfdetect.pages.case_content import NAMES
from tfdetect.workflow import case, explaining
from tfdetect.workflow.robustness_grids import GRIDS

pytestmark = pytest.mark.usefixtures("light")


@pytest.fixture(scope="module")
def runs(tmp_path_factory, videos):
    folder = tmp_path_factory.mktemp("case")
    settings = {"data.size": 32, "data.frames": 4, "epochs": 0, "cache_dir": folder / "cache", "out": folder / "runs"}
    return [tfdetect.train(name, videos, name=name, **settings, **own)
            for name, own in (("cnn", {"width": 4}), ("cnn_lstm", {}))]  # fmt: skip


@pytest.fixture(scope="module")
def files(tmp_path_factory, images, videos):
    """A picture that a generator has signed, a video that the runs were trained on, and one that is none."""
    folder = tmp_path_factory.mktemp("files")
    picture, broken = folder / os.fsdecode(b"<b>a\xff.png"), folder / "broken.jpg"
    text = Image.Exif()
    text[0x0131] = "Stable Diffusion"
    Image.open(sorted((images / "fake").iterdir())[0]).save(picture, exif=text)
    broken.write_bytes(b"\xff\xd8\xff\xe0" + b"\0" * 40)
    return [picture, videos, broken]


@pytest.fixture(scope="module")
def report(runs, files, light, tmp_path_factory):
    """A case report of both runs: the page, and what the JSON says."""
    out = tmp_path_factory.mktemp("report") / "case.html"
    trained = next(path for path, split in _splits(runs[0]).items() if split == "train")
    words = [str(run.folder) for run in runs] + [str(files[0]), trained, str(files[2])]
    assert cli.main(["predict", *words, "--case", str(out)]) == 1, "one file is broken"
    return out.read_text(), json.loads(out.with_suffix(".json").read_text())


def _splits(run):
    from tfdetect.data import manifest

    rows = manifest.read_unchecked(run.artifact.manifest)
    return dict(zip(rows["path"], rows["split"], strict=True))


def test_every_file_has_its_hash_its_origin_and_what_each_detector_found(report, files):
    html, data = report
    picture, video, broken = data["files"]
    assert picture["sha256"] == hashlib.sha256(files[0].read_bytes()).hexdigest() and picture["sha256"] in html
    assert [each["model"] for each in picture["findings"]] == ["cnn", "cnn_lstm"] == [model["name"] for model in data["models"]]
    assert picture["origin"]["statements"][0]["kind"] == "generator" and "Stable Diffusion" in html
    assert [picture["kind"], video["kind"], broken["kind"]] == ["image", "video", "image"]
    assert html.count("It has no audio track.") == 1 and [row["sound"] for row in data["files"]].count(None) == 2, "of the video"
    assert all(model["card"]["use"].startswith("It is meant to help a person judge") for model in data["models"])
    assert html.count(f"Its model card says: <q>{data['models'][0]['card']['headline']} It is meant to help") >= 1
    assert all(len(model["hashes"]["README.md"]) == 64 for model in data["models"])
    for finding in (*picture["findings"], *video["findings"]):
        assert f"{finding['verdict']['probability']:.3f}" in html and finding["heat_map"]["check"]["hottest_tenth"] is not None
        assert [place["label"] for place in finding["places"]] == ["real", "fake"] and finding["places"][0]["files"] == 4
        assert (finding["timeline"] is None) == (finding in picture["findings"])
        assert finding["interval"] is None and "and there are 2 and 2" in finding["missing"]["interval"]
    assert all(finding["verdict"]["error"] and not finding["stability"] for finding in broken["findings"])
    assert "could not judge this file" in html and broken["sha256"] in html


def test_scores_after_re_encoding_are_those_of_files_that_were_re_encoded(report, runs, files, tmp_path):
    picture, video, _ = report[1]["files"]
    for file, grid in ((picture, "case"), (video, "case_video")):
        assert [row["corruption"] for row in file["findings"][1]["stability"]] == list(GRIDS[grid])
    image = Image.open(files[0]).convert("RGB")
    image.save(tmp_path / "jpeg.jpg", quality=70)
    [row] = [row for row in picture["findings"][0]["stability"] if row["corruption"] == "jpeg(70)"]
    again = runs[0].predict(tmp_path / "jpeg.jpg")
    assert row["score"] == pytest.approx(again["score"][0], abs=1e-5) and row["verdict"] == again["verdict"][0]
    assert len({row["score"] for row in picture["findings"][0]["stability"]}) > 3


def test_a_training_file_is_said_to_be_one(report):
    html, data = report
    picture, video, _ = data["files"]
    assert [each["used_in"] for each in video["findings"]] == ["train", "train"] and not picture["findings"][0]["used_in"]
    assert html.count("was trained on this very file, so its verdict says nothing") == 2


def test_the_detector_is_named_by_hashes_that_other_programs_compute(report, runs):
    models = report[1]["models"]
    listed = "find . -type f | LC_ALL=C sort | xargs sha256sum | sha256sum"
    found = subprocess.run(listed, shell=True, cwd=runs[0].artifact.saved_model, capture_output=True, text=True, check=True)
    assert models[0]["hashes"]["1/ (SavedModel)"] == found.stdout.split()[0]
    assert models[1]["hashes"]["model.keras"] == hashlib.sha256(runs[1].artifact.model.read_bytes()).hexdigest()
    assert all("cnn: do not use it " in text for text in models[0]["unfit"]) and models[0]["unfit"]
    assert models[0]["training"] and models[0]["settings"] != models[1]["settings"]


def test_the_page_loads_nothing_and_shows_names_as_text(report):
    html, _ = report
    assert not re.search(r"""(?:src|href|url)\s*[=(]\s*["']?(?!data:)(?:https?:)?//|<b>a""", html)
    assert r"&lt;b&gt;a\udcff.png" in html and "default-src 'none'" in html and html.count("<script") == 1


def test_python_gives_the_same_and_says_what_is_missing(runs, files, light, tmp_path, monkeypatch):
    found = runs[0].case(files[0], tmp_path / "a.html")
    assert found.failed == 0 and found.page.exists() and "iframe" in found._repr_html_()
    [finding] = found.case.files[0].findings
    assert finding.missing.keys() >= {"interval"} and "Not in this report" in found.page.read_text()
    runs[0].artifact.predictions.rename(tmp_path / "predictions.csv")
    monkeypatch.setattr(explaining, "explain_clip", lambda *_, **__: (_ for _ in ()).throw(MemoryError))
    try:
        [less] = runs[0].case(files[0], tmp_path / "b.html").case.files[0].findings
    finally:
        (tmp_path / "predictions.csv").rename(runs[0].artifact.predictions)
    assert less.places == () and less.heat_map is None and less.verdict == finding.verdict
    assert less.missing["heat_map"] == "not enough memory" and less.missing["places"] == case.GONE == less.missing["interval"]
    monkeypatch.undo()
    json_text = (tmp_path / "a.json").read_text()
    runs[0].case(files[0], tmp_path / "a.html")
    assert re.sub(r'"date": "[^"]*"', "", json_text) == re.sub(r'"date": "[^"]*"', "", (tmp_path / "a.json").read_text())


def test_a_verdict_that_changes_is_marked(runs, files, tmp_path):
    report = runs[0].case(files[0], tmp_path / "a.html").case
    [finding] = report.files[0].findings
    other = {"real": "fake", "fake": "real"}[finding.stability[0].verdict]
    changed = replace(finding, stability=(replace(finding.stability[0], verdict=other), *finding.stability[1:]))
    before = len(finding.changes)
    assert len(changed.changes) in (before + 1, before - 1)
    page.write(tmp_path / "b.html", replace(report, files=(replace(report.files[0], findings=(changed,)),)))
    text = (tmp_path / "b.html").read_text()
    assert text.count("(changed)") == len(changed.changes)


def test_long_videos_are_not_encoded_anew(runs, videos, tmp_path, monkeypatch):
    monkeypatch.setattr(case, "MAX_PIXELS", 8 * 32 * 32 - 1)
    [finding] = runs[0].case(sorted((videos / "fake").iterdir())[0], tmp_path / "a.html").case.files[0].findings
    assert finding.stability == () and "encoded anew" in finding.missing["stability"] and finding.verdict["score"] is not None


def test_a_heat_map_that_fails_its_check_is_replaced_by_occlusion(runs, files, tmp_path, monkeypatch):
    from tfdetect.explain import heatmaps

    check, calls = heatmaps.deletion_check, []

    def fail_first(*args, **options):
        calls.append(check(*args, **options))
        return (0.0, 1.0) if len(calls) == 1 else calls[-1]

    monkeypatch.setattr(heatmaps, "deletion_check", fail_first)
    heat = runs[0].case(files[0], tmp_path / "a.html").case.files[0].findings[0].heat_map
    assert heat.method == "occlusion" and len(calls) == 2 and (heat.check["hottest_tenth"], heat.check["elsewhere"]) == calls[1]
    assert heat.result.startswith(f"{explaining.INSTEAD.format('integrated_gradients')} Hiding the hottest tenth")


def test_the_heat_map_is_that_of_explain(runs, files, tmp_path):
    heat = runs[0].case(files[0], tmp_path / "a.html").case.files[0].findings[0].heat_map
    row = runs[0].explain(files[0], out=tmp_path / "explained").rows[0]
    assert heat.method == row["method"]
    assert {name: row[name] for name in heat.check} == pytest.approx(heat.check)


def test_an_interrupted_report_holds_the_finished_files_and_names_the_others(runs, images, tmp_path, monkeypatch):
    paths, find = sorted((images / "real").iterdir())[:3], case.find

    def interrupted(judge, path, *rest):
        if path == str(paths[1]):
            raise KeyboardInterrupt
        return find(judge, path, *rest)

    monkeypatch.setattr(case, "find", interrupted)
    with pytest.raises(KeyboardInterrupt):
        runs[0].case(paths, tmp_path / "a.html")
    data = json.loads((tmp_path / "a.json").read_text())
    assert [file["path"] for file in data["files"]] == [str(paths[0])] and data["left_out"] == list(map(str, paths[1:]))
    page = (tmp_path / "a.html").read_text()
    assert "interrupted before these files were judged" in page and f"<li>{paths[2]}</li>" in page


def test_a_file_that_changes_meanwhile_is_not_reported(runs, images, tmp_path, monkeypatch):
    path = tmp_path / "a.jpg"
    path.write_bytes(next((images / "real").iterdir()).read_bytes())
    find = case.find
    monkeypatch.setattr(case, "find", lambda *args: path.write_bytes(path.read_bytes() + b"more") and find(*args))
    with pytest.raises(UserError, match="changed while it was judged"):
        runs[0].case(path, tmp_path / "a.html")
    assert not (tmp_path / "a.html").exists()


def test_calls_that_cannot_be_answered(runs, files, images, tmp_path, capsys):
    call = ["predict", str(runs[0].folder)]
    assert cli.main([*call, str(images), "--case", str(tmp_path / "a.html")]) == 2
    assert "40 files are too many for a case report: give at most 20" in capsys.readouterr().err
    assert cli.main([*call, str(files[0]), "--case", str(tmp_path / "a.pdf")]) == 2
    assert "--case writes a page, such as case.html" in capsys.readouterr().err
    with pytest.raises(UserError, match="leave out --json"):
        cli_predict(case=tmp_path / "a.html", json=True)
    assert not list(tmp_path.iterdir())


def cli_predict(**flags):
    from pathlib import Path

    from tfdetect.verbs.predict import Predict

    return Predict(Path("run"), (Path("a.jpg"),), **flags)


def test_each_re_encoding_has_a_name():
    assert set(NAMES) == {*GRIDS["case"], *GRIDS["case_video"]} and len(GRIDS["case"]) == len(GRIDS["case_video"]) == 6
