"""The Python interface: the words of the flags, DataFrames and paths, one sentence for a mistake, and what a notebook shows."""

import ast
import copy
import json
import pickle
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import tfdetect
from tfdetect import cli, config
from tfdetect.api.load import TrainedDetector
from tfdetect.detector import find
from tfdetect.pages import html
from tfdetect.settings import RunOf
from tfdetect.workflow import console

pytestmark = pytest.mark.usefixtures("light")
SMALL = {"data.size": 32, "sample": 20, "epochs": 1, "batch": 8, "width": 4}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("python")
    return tfdetect.train("cnn", cache_dir=folder / "cache", out=folder / "saved_models", name="small", **SMALL)


@pytest.fixture(scope="module")
def images(run):
    return sorted(Path(path) for path in run.predictions.loc[run.predictions["split"] == "test", "path"])


def test_import_is_fast_and_lists_its_functions():
    code = ("import sys, time; start = time.perf_counter(); import tfdetect; seconds = time.perf_counter() - start;"
            "assert not {'keras', 'tensorflow', 'numpy', 'pandas', 'tyro'} & set(sys.modules), 'imported';"
            "assert {'train', 'load', 'audit'} <= set(dir(tfdetect)); print(seconds)")  # fmt: skip
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert float(out) < 0.5  # 0.1 on an idle machine
    with pytest.raises(AttributeError, match=r"no attribute 'trian'; it has .*train"):
        tfdetect.trian  # noqa: B018


def test_every_function_is_documented_and_is_there():
    for name in tfdetect.__all__:
        assert (getattr(tfdetect, name).__doc__ or "").strip(), name
        assert name == "UserError" or name in cli.VERBS or name == "load"


def test_a_run_has_metrics_tables_and_paths(run):
    assert run.report.is_file() and run.figures and run.folder.name == "small"
    assert run.metrics["test"]["auc"] == pytest.approx(0.5, abs=0.5)
    assert list(run.history["epoch"]) == [1] and {"path", "label", "score"} <= set(run.predictions)
    assert run.run.data.size == 32 and run.run.detector.width == 4 and run.run.train.batch == 8


def test_a_loaded_detector_predicts_as_the_command_does(run, images, capsys):
    detector = tfdetect.load(run.folder)
    table = detector.predict([*images, "missing.jpg"], workers=1)
    assert list(table["path"]) == [*map(str, images), "missing.jpg"]
    assert table["error"].isna().tolist() == [True] * len(images) + [False] and "No such file" in table["error"].iloc[-1]
    assert set(table["label"].dropna()) <= {"real", "fake"}
    capsys.readouterr()
    assert cli.main(["predict", str(run.folder), str(images[0]), "--json", "--workers", "1"]) == 0
    assert json.loads(capsys.readouterr().out)["score"] == table["score"].iloc[0]
    stored = run.predictions.set_index("path")["score"]
    np.testing.assert_allclose(table["score"].iloc[:-1], stored[list(map(str, images))], atol=1e-5)


def test_score_takes_frames_of_any_size(run, rng):
    frames = rng.integers(0, 256, (40, 2, 50, 61, 3), dtype=np.uint8)
    table = run.score(frames)
    assert len(table) == 40 and list(table) == ["score", "probability", "label"]
    single = run.score(frames[3:4, :1])["score"][0], run.score(frames[3:4, 1:])["score"][0]
    assert table["score"][3] == pytest.approx(np.mean(single), abs=1e-5), "a frame detector scores the mean of the frames"
    assert ((table["label"] == "fake") == (table["probability"] >= run.predictor.threshold)).all()
    for wrong in (frames[0], frames.astype(np.float32), frames[..., :1], frames[:0], [[1, 2]]):
        with pytest.raises(tfdetect.UserError, match=r"uint8 clips \(batch, frames, height, width, 3\).* got "):
            run.score(wrong)
    with pytest.raises(tfdetect.UserError, match="of one size"):
        run.score([frames[0], frames[0, :, :9]])


def test_evaluate_explain_and_audit_return_pages_and_tables(run, images, tmp_path):
    results = run.evaluate(out=tmp_path / "evaluation")
    assert results.report == tmp_path / "evaluation" / "report.html"
    assert results.metrics["test"]["auc"] == run.metrics["test"]["auc"]
    explanation = run.explain([images[0], "missing.jpg"], out=tmp_path / "explained", cells=2, workers=1)
    assert explanation.page.is_file() and explanation.failed == 1 and len(explanation.table) == 2
    assert "hottest_tenth" in explanation.table and "&lt;img" in explanation._repr_html_()
    findings = tfdetect.audit(images[0].parents[1], out=tmp_path / "audit", workers=1)
    assert findings.page.is_file() and len(findings.files) == 40 and {"label", "split", "aspect", "error"} <= set(findings.files)
    assert list(findings.warnings) == ["property", "auc", "kind", "advice"] and findings.leaks.empty
    assert "<iframe" in findings._repr_html_()
    assert len({findings, copy.copy(findings), explanation, copy.copy(explanation)}) == 2, "equal folders, equal results"


def test_a_notebook_shows_the_head_of_the_report(run):
    page = run.report.read_text()
    head = html.head(page)
    assert "Summary" in head and "test AUC" in head and head.endswith("</body></html>")
    assert "<img" not in head and len(head) < len(page) and head.count("<section") == head.count("</section>")
    assert "&lt;h2&gt;Summary" in run._repr_html_() and str(run.report) in run._repr_html_()


def test_a_notebook_shows_no_note_as_an_error(capsys, monkeypatch):
    console.print_note("for a terminal")
    monkeypatch.setitem(sys.modules, "ipykernel", sys)
    console.print_note("for a notebook")
    assert capsys.readouterr() == ("for a notebook\n", "for a terminal\n")


def test_prepare_sample_and_manifest_return_what_they_wrote(tmp_path):
    folder = tfdetect.sample(tmp_path / "sample", kind="image", count=4, size=32)
    prepared = tfdetect.prepare(folder, tmp_path / "prepared", size=32, workers=1)
    assert (prepared / "prepared.json").is_file()
    table = tfdetect.manifest(folder / "real", tmp_path / "mine.csv")
    assert len(table) == 4 and (tmp_path / "mine.csv").is_file()
    with pytest.raises(FileExistsError, match="mine.csv already exists"):
        tfdetect.manifest(folder / "real", tmp_path / "mine.csv")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sice": 64}, "There is no setting 'sice'. Perhaps you meant size"),
        ({"epochs": "many"}, "^--train.epochs: .*'many'$"),
        ({"epochs": -1}, "^--train.epochs must be at least 0, got -1.$"),
        ({"monitor": "val_acc"}, "^invalid choice 'val_acc'"),
        ({"data.sise": 3}, "data.size"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_sentence(settings, message):
    with pytest.raises(tfdetect.UserError, match=message) as error:
        tfdetect.train("cnn", **settings)
    assert "\n" not in str(error.value) and "─" not in str(error.value)


def test_unknown_detectors_and_runs_are_named(tmp_path):
    with pytest.raises(tfdetect.UserError, match="Perhaps you meant cnn"):
        tfdetect.train("cnm")
    with pytest.raises(tfdetect.UserError, match="name a detector"):
        tfdetect.train()
    with pytest.raises(FileNotFoundError, match="No run folder"):
        tfdetect.load(tmp_path / "nothing")


def test_keywords_are_the_last_parts_of_flags():
    default = config.default_run(find("cnn"))
    assert isinstance(default, RunOf)
    flags = config.keywords_to_flags(default, {"frames": 3, "limits.frames": 5, "sources": ("a", "b"), "xla": True})
    assert flags == ["--data.frames", "3", "--data.limits.frames", "5", "--data.sources", "a", "b", "--train.xla"]
    assert config.keywords_to_flags(default, {"train.xla": False}) == ["--train.no_xla"]
    with pytest.raises(tfdetect.UserError, match="data.path and path are the same setting"):
        tfdetect.train("cnn", "A", path="B")


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("size", np.int64(64), ["--data.size", "64"]),
        ("xla", np.False_, ["--train.no_xla"]),
        ("sources", np.array(["a", "b"]), ["--data.sources", "a", "b"]),
        ("sources", {"a"}, ["--data.sources", "a"]),
        ("sources", (name for name in "ab"), ["--data.sources", "a", "b"]),
        ("cache_dir", Path("-x"), ["--data.cache_dir=-x"]),
        ("path", b"a\xff", ["--data.path", "a\udcff"]),
    ],
)  # fmt: skip
def test_values_of_any_kind_are_taken_as_they_are(name, value, words):
    assert config.keywords_to_flags(config.default_run(find("cnn")), {name: value}) == words


def test_a_value_is_never_taken_for_a_flag(tmp_path):
    with pytest.raises(tfdetect.UserError, match="begins like a flag"):
        tfdetect.train("cnn", sources=["a", "--overwrite"])
    with pytest.raises(tfdetect.UserError, match="plain folder name, got '--help'"):
        tfdetect.train("cnn", name="--help")


def test_a_detector_can_be_copied_and_sent_to_another_process(run, images):
    score = run.predict(images[0], workers=1)["score"][0]
    for other in (copy.deepcopy(run), pickle.loads(pickle.dumps(run))):
        assert other == run and other.predict(images[0], workers=1)["score"][0] == score


@pytest.mark.parametrize("files", [None, [5], "", ["a.jpg", ""], b"a.jpg"])
def test_only_paths_are_files(run, files):
    with pytest.raises(tfdetect.UserError, match="Expected the path of"):
        run.predict(files)


def test_names_need_not_be_utf_8(run):
    assert run.predict(["a\udcff.jpg", "b.jpg"], workers=1)["path"].tolist() == ["a\udcff.jpg", "b.jpg"]


@pytest.mark.parametrize("page", ["README.md", "docs/python.md"])
def test_documented_calls_exist(page):
    blocks = re.findall(r"```python\n(.*?)```", (Path(__file__).parents[2] / page).read_text(), re.S)
    nodes = [node for block in blocks for node in ast.walk(ast.parse(block)) if isinstance(node, ast.Attribute)]
    called = {node.attr for node in nodes if isinstance(node.value, ast.Name) and node.value.id == "tfdetect"}
    assert {"train", "load"} <= called <= set(tfdetect.__all__)
    used = {node.attr for node in nodes if isinstance(node.value, ast.Name) and node.value.id in ("run", "detector")}
    assert "predict" in used and all(hasattr(TrainedDetector, name) for name in used)
