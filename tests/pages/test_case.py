"""The page of a case report: what it says of unfamiliar files, intervals, faces and detectors that disagree."""

import json
import re

import numpy as np
import pytest

from tfdetect.data.origin.statement import Origin
from tfdetect.evaluation.single_file import Place
from tfdetect.pages import case
from tfdetect.pages.card import quote
from tfdetect.pages.case_content import Case, CaseFile, Finding, Model, Reencoded, file_caveats, meaning, sound_sentence

VERDICT = {"path": "a.jpg", "probability": 0.9, "label": "fake", "score": 1.25, "frames": 1, "note": "", "error": None,
           "source": None, "source_probability": None, "text": None, "verdict": "fake", "familiarity": 0.4, "unfamiliar": False,
           "unfamiliar_reason": None, "faces": None}  # fmt: skip
MODEL = Model("cnn", "saved_models/cnn", "1", "cnn: a small one", "saved_model", {"model.keras": "ab12"}, "cd34", 0.5,
              (0.3, 0.7), 0.5, "Scores became probabilities.", [("train", "real", "camera", 10)], "It is good.",
              ["cnn: do not use it at night."], ["It is small."],
              ([0.0, 1.0, 2.0], [4, 0], [1, 3]))  # fmt: skip


def shown(tmp_path, *pairs):
    """Return the page and the plain data of one file, with these models and findings."""
    file = CaseFile("a.jpg", "0" * 64, Origin("a.jpg", "0" * 64, 5, "jpeg"), "image", tuple(finding for _, finding in pairs),
                    np.zeros((4, 4, 3), np.uint8))  # fmt: skip
    found = Case((file,), tuple(model for model, _ in pairs), "2026-01-01T00:00:00Z", "predict", {"tfdetect": "0"})
    case.write(tmp_path / "case.html", found)
    return (tmp_path / "case.html").read_text(), json.loads(json.dumps(found.to_dict()))


def finding(**changes):
    verdict = {**VERDICT, **changes.pop("verdict", {})}
    return Finding(verdict, (0.8, 0.95), (Place("real", 40, 0.025, (0.001, 0.13)),), ((0.01, 0.08),), **changes)


def test_probability_interval_and_place_are_said_in_words(tmp_path):
    page, data = shown(tmp_path, (MODEL, finding()))
    assert "<b>0.900</b>" in page and "calibration 0.800 to 0.950" in page and "inconclusive 0.300 to 0.700" in page
    sentences = data["files"][0]["findings"][0]["meaning"]
    assert sentences == meaning(MODEL, finding()) and all(text in page for text in sentences)
    assert "Where 50 % of the files are fake, of 100 files like those of validation with this score about 90 are fake." in page
    assert "Of 40 real test files, 2.5 % have at least this score; of others like them 0.1 to 13 % (95 % interval)." in page
    assert "<li>cnn: do not use it at night.</li>" in page and "<li>It is small.</li>" in page
    assert "0.080 where 1 % are" in page and "p = 0.4" in page


def test_the_chart_shows_the_score_among_those_of_the_test_files(tmp_path):
    page, _ = shown(tmp_path, (MODEL, finding()))
    svg = re.search(r'<svg class="histogram".*?</svg>', page)[0]
    heights = [float(value) for value in re.findall(r'<rect[^>]* height="([\d.]+)"', svg)]
    assert heights == [60, 15, 45], "four reals in the first bin; one fake, three fakes"
    assert svg.count("<title>4 real test files, score 0 to 1</title>") == 1
    far, _ = shown(tmp_path, (MODEL, finding(verdict={"score": 4.0})))
    assert re.search(r'<line x1="630.0" x2="630.0"', far), "beyond all test files, at the right edge"


@pytest.mark.parametrize(("changes", "caveat"), [
    ({"verdict": {"verdict": "inconclusive", "unfamiliar": True, "unfamiliar_reason": "other content", "familiarity": 0.01}},
     "The file is unlike the training data (other content, p = 0.01)"),
    ({"used_in": "train"}, "trained on this very file, so its verdict says nothing"),
    ({"used_in": "validation"}, "calibrated on this very file"),
    ({"used_in": "test"}, "one of the run's test files"),
    ({"verdict": {"note": "damaged: 28 of 50 frames intact"}}, "While reading the file: damaged: 28 of 50 frames intact."),
    ({"stability": (Reencoded("blur(1)", "blur", "real", 0.1, -1.0), Reencoded("jpeg(90)", "JPEG", error="no face"))},
     "The verdict changes after 1 of 1 re-encoding."),
])  # fmt: skip
def test_caveats_say_what_to_be_careful_about(changes, caveat, tmp_path):
    assert not file_caveats(finding())
    assert caveat in " ".join(file_caveats(finding(**changes)))
    page, data = shown(tmp_path, (MODEL, finding(**changes)))
    assert caveat.replace("'", "&#x27;") in page and caveat in " ".join(data["files"][0]["findings"][0]["caveats"])


def test_what_makes_a_detector_doubtful_stands_beside_its_verdict(tmp_path):
    doubtful = Model(**{**vars(MODEL), "doubts": ["Not shown to be better than chance."]})
    page, _ = shown(tmp_path, (doubtful, finding()))
    assert "Not shown to be better than chance." in page.split("<h3>Careful</h3>")[1].split("</div>")[0]
    assert "<h3>Careful</h3>" not in shown(tmp_path, (MODEL, finding()))[0]


def test_detectors_that_disagree_are_said_to(tmp_path):
    other = Model(**{**vars(MODEL), "name": "clip", "histogram": None})
    page, _ = shown(tmp_path, (MODEL, finding()), (other, finding(verdict={"verdict": "real", "probability": 0.2})))
    assert "The detectors disagree." in page and "cnn calls this file fake" in page and "clip calls this file real" in page
    page, _ = shown(tmp_path, (MODEL, finding()), (other, finding(verdict={"verdict": "inconclusive"})))
    assert "The detectors disagree." in page and "clip cannot tell: files of both classes have such scores." in page
    page, _ = shown(tmp_path, (MODEL, finding()), (other, finding()))
    assert "disagree" not in page
    failed = Finding({**VERDICT, **dict.fromkeys(("verdict", "probability", "score")), "error": "no face found"})
    page, _ = shown(tmp_path, (MODEL, finding()), (other, failed))
    assert "clip could not judge this file: no face found." in page and "disagree" not in page


def test_each_face_has_its_score(tmp_path):
    faces = [{"face": 0, "box": [1, 2, 30, 40], "box_frame": 0, "score": 1.25, "probability": 0.9},
             {"face": 1, "box": [5, 6, 7, 8], "box_frame": 3, "score": -2.0, "probability": 0.1}]  # fmt: skip
    images = (np.zeros((8, 8, 3), np.uint8),) * 2
    page, data = shown(tmp_path, (MODEL, finding(verdict={"faces": faces}, seen=images)))
    assert "<figcaption>face 1</figcaption>" in page and "30 x 40 at 1, 2" in page and "-2.000" in page
    assert data["files"][0]["findings"][0]["verdict"]["faces"] == faces


def test_what_is_missing_is_said(tmp_path):
    page, data = shown(tmp_path, (MODEL, Finding(VERDICT, missing={"interval": "too few files"})))
    assert "Interval of the probability: too few files." in page and "no interval" in page
    assert data["files"][0]["findings"][0]["missing"] == {"interval": "too few files"}


@pytest.mark.parametrize(("tracks", "sentence"), [
    (None, "Only the pictures were judged. Sound was not."), (0, "It has no audio track."),
    (2, "It has 2 audio tracks. Only the pictures were judged. Sound was not.")])  # fmt: skip
def test_sound_is_said_not_to_be_judged(tracks, sentence):
    assert sound_sentence(CaseFile("a.mp4", "", Origin("a.mp4", audio_tracks=tracks), "video", ())) == sentence


def test_the_line_of_a_card_is_quoted_as_it_was_written(tmp_path):
    text = "---\nlicense: mit\n---\n\n**Better \\*than\\* chance.** AUC 0.9\n\n## Intended use\n\nFor films.\n\n### Not\n"
    assert quote(text) == {"headline": "Better *than* chance.", "use": "For films."} and quote("# mine") == {}
