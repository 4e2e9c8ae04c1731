"""The model card: front matter that the Hub accepts, and the figures and limits of the report."""

import pandas as pd
import yaml
from huggingface_hub import ModelCard

from tests.pages.test_report import table
from tfdetect.evaluation import metrics
from tfdetect.pages import card
from tfdetect.pages.content import Report

ODD = "# my: 'run' <b>"


def text_of(folder, **content):
    rows = table(60, 60, 1.0)
    found = {"data": rows.assign(frames=1), "settings": {"data": {"path": "/home/me/faces"}}, **content}
    card.write(folder / "README.md", Report(ODD, {"test": metrics.summarise(rows, 0.5)}, "cnn: Four convolutions.", **found))
    return (folder / "README.md").read_text()


def test_the_front_matter_has_the_results_and_no_licence(tmp_path):
    test, text = metrics.summarise(table(60, 60, 1.0), 0.5), text_of(tmp_path)
    front = yaml.safe_load(text.split("---\n")[1])
    assert front["pipeline_tag"] == "image-classification" and "cnn" in front["tags"] and "license" not in front
    assert front["model-index"][0]["name"] == ODD
    [result] = front["model-index"][0]["results"]
    assert {row["type"]: row["value"] for row in result["metrics"]} == {"roc_auc": round(test["auc"], 4),
                                                                      "accuracy": round(test["accuracy"], 4)}  # fmt: skip
    assert result["dataset"]["name"] == "faces" and "/home/me" not in text


def test_the_hub_reads_it(tmp_path):
    text_of(tmp_path)
    data = ModelCard.load(tmp_path / "README.md").data
    assert data.library_name == "keras" and data.model_name == ODD
    assert [result.metric_type for result in data.eval_results] == ["roc_auc", "accuracy"]


def test_it_says_what_it_is_not_for_and_how_it_is_used(tmp_path):
    text = text_of(tmp_path, warnings=["Few *files*."], shortcuts={"all": 0.99}, versions={"keras": "3.15"})
    assert "**Not shown to be better than file properties" in text and "- on files that were all saved the same way" in text
    assert r"- Few \*files\*." in text and "| keras | 3.15 |" in text and "probability of at least 0.500" in text
    assert "predict" in text and r"<b>" not in text.split("---\n", 2)[2].replace(r"\<b\>", "")


def test_videos_and_a_test_without_an_auc(tmp_path):
    rows = table(0, 60, 1.0)
    data = pd.DataFrame({"split": ["test"], "label": [1], "source": ["x"], "group": ["g"], "frames": ["8"]})
    test = metrics.summarise(rows.drop(columns="probability"), None)
    found = card.front_matter(Report("r", {"test": test}, "cnn: x", data=data))
    assert found.pipeline_tag == "video-classification" and "model-index" not in found.to_dict()


def test_it_names_neither_files_nor_folders(tmp_path):
    paths = ["/home/me/Ann Lee.jpg", "b.jpg"]
    rows = table(60, 60, 1.0).assign(frames=1)
    data = pd.concat([rows, rows.iloc[:2].assign(path=paths)])
    told = ["e.g. /home/me/Ann Lee.jpg and b.jpg: run python '/home/my dir/scripts/audit.py' DIR --write_groups, "
            "see https://keras.io/api/layers and /opt/w/clip.h5 (16/9).", "Two\nlines."]  # fmt: skip
    text = text_of(tmp_path, data=data, warnings=told)
    assert ("e.g. \\[a file\\] and \\[a file\\]: run tfdetect audit DIR --write\\_groups, see https://keras.io/api/layers and "
            "clip.h5 (16/9).") in text  # fmt: skip
    assert not any(name in text for name in ("Ann", "/home", "/opt"))
