"""explain: heat-maps of images and videos by a trained frame detector and a clip detector."""

import html
import json

import keras
import numpy as np
import pandas as pd
import pytest

from tfdetect import cli
from tfdetect.api import explain
from tfdetect.data.media.frames import evenly_spaced
from tfdetect.data.sample import Scene
from tfdetect.pages import explanation
from tfdetect.serving.predictor import Verdict
from tfdetect.workflow import explaining

pytestmark = pytest.mark.usefixtures("light")


@pytest.fixture(scope="module")
def cnn_lstm(train):
    return train("cnn_lstm")


@pytest.mark.parametrize("name, method", [("cnn", "integrated_gradients"), ("cnn_lstm", "integrated_gradients")])
def test_explain_writes_a_page_with_a_map_of_each_frame_shown(name, method, request, images, videos, tmp_path, capsys):
    artifact, out = request.getfixturevalue(name), tmp_path / "out"
    files = [str(next((images / "fake").iterdir())), str(next((videos / "fake").iterdir())), str(tmp_path / "none.jpg")]
    argv = ["explain", str(artifact.folder), *files, "--out", str(out), "--cells", "4", "--frames", "2", "--timeline", "8"]
    assert cli.main([*argv, "--overlay", "2"]) == 1
    printed = capsys.readouterr().out
    page, rows = (out / "explanation.html").read_text(), json.loads((out / "explanation.json").read_text())
    other = sum(row["method"] != method for row in rows)  # a map that fails its check is replaced
    instead = f" ({other} with occlusion, since that map failed its check)" if other else ""
    assert "No such file or directory" in printed and f"2 files explained with method {method}{instead}, 1 failed" in printed
    assert page.count(explaining.INSTEAD.format(method).replace("'", "&#x27;")) == 2 * other  # caption and alternative text
    assert page.count("score by") == 2 * 4 and page.count('<svg class="timeline"') == 1 and "timeline" not in rows[0]
    assert explanation.METHOD_NOTES[method] in html.unescape(page) and 'src="overlay-2.mp4"' in page
    line = rows[1]["timeline"]
    assert (line["frames"], line["frames_per_window"], len(line["points"])) == ((8, 1, 8) if name == "cnn" else (8, 4, 5))
    if name == "cnn":  # predict took four of these frames
        frames = [line["points"][at]["score"] for at in evenly_spaced(8, 4)]
        assert rows[1]["score"] == pytest.approx(np.mean(frames), abs=1e-5)
    assert (out / rows[1]["overlay"]).stat().st_size > 1000
    assert set(rows[0]["areas"]) == {rows[0]["method"], "occlusion", "random"}
    if rows[0]["method"] == "integrated_gradients":
        assert rows[0]["attributed"] == pytest.approx(rows[0]["difference"], rel=0.05, abs=0.02)
    assert [row["path"] for row in rows] == files and rows[2]["error"] and "hottest_tenth" not in rows[2]
    assert cli.main(["predict", str(artifact.folder), files[1], "--json"]) == 0
    assert rows[1]["score"] == pytest.approx(json.loads(capsys.readouterr().out)["score"], abs=1e-6)
    assert all(np.isfinite([row["hottest_tenth"], row["elsewhere"]]).all() for row in rows[:2])


def test_explain_compares_maps_with_masks_and_real_twins(cnn, images, tmp_path, capsys):
    """The masks of a table, whose real files take that of the fake of their group; a fake without one is not measured."""
    rows = pd.read_csv(images / "manifest.csv", keep_default_na=False).iloc[:8]
    rows["path"] = [str(images / path) for path in rows["path"]]
    names = {group: f"{group}.png" for group in rows["group"].unique()[:3]}
    for group, name in names.items():
        scene = Scene.draw(np.random.default_rng([0, int(group[-5:])]), 32)
        keras.utils.save_img(tmp_path / name, 255 * np.repeat(scene.mask(32, np.zeros(2), 1.0), 3, axis=2), scale=False)
    rows["mask"] = [names.get(row.group, "") if row.label else "" for row in rows.itertuples()]
    rows.to_csv(tmp_path / "files.csv", index=False)
    argv = ["explain", str(cnn.folder), str(tmp_path / "files.csv"), "--out", str(tmp_path / "out"), "--method", "occlusion"]
    assert cli.main(argv) == 0
    found = json.loads((tmp_path / "out" / "explanation.json").read_text())
    expected = [bool(row.label) if row.group in names else None for row in rows.itertuples()]
    assert [row.get("forged") for row in found] == expected
    assert all(0 <= row["pixel_auc"] <= 1 and 0 <= row["pointed"] <= 1 for row in found if "forged" in row)
    page = (tmp_path / "out" / "explanation.html").read_text()
    assert "Do the heat-maps find the forgery?" in page and "real twins" in page


def test_the_caption_of_a_figure_says_how_hiding_changes_the_score():
    verdict = Verdict("a.jpg", 0.75, "fake", 1.25, frames=2, note="damaged")
    text = explain.caption(verdict, {"hottest_tenth": 0.083, "elsewhere": -0.375})
    assert text.startswith("fake, probability 0.750, score 1.250, 2 frames (damaged). Hiding the hottest tenth ")
    assert "lowers the score by 0.083" in text and text.endswith("elsewhere raises the score by 0.375.")


def test_impossible_explanations_are_refused(cnn, images, tmp_path, capsys):
    call = ["explain", str(cnn.folder), "--out", str(tmp_path / "out")]
    assert cli.main([*call, str(images), "--method", "error"]) == 2
    assert "cnn reconstructs nothing: use --method occlusion" in capsys.readouterr().err
    assert cli.main([*call, str(images), "--masks", str(tmp_path / "none")]) == 2
    assert "none is no folder with files" in capsys.readouterr().err
    assert cli.main([*call, *[str(images / "fake")] * 11]) == 2
    assert "220 files are too many for one page; give at most 200" in capsys.readouterr().err
    assert cli.main([*call, str(images), "--cells", "33"]) == 2
    assert "--cells 33 is more than the 32 pixels per side that the run uses" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
