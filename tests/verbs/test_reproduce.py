"""Recipes: listed, found, parsed, run, and compared with the published figures."""

import json
import re
import shutil
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import pytest
import yaml
from scipy.special import logit

from tfdetect import cli, config
from tfdetect.api import reproduce
from tfdetect.artifact import Artifact
from tfdetect.detector import REGISTRY
from tfdetect.errors import UnknownSource
from tfdetect.evaluation import predictions
from tfdetect.evaluation.calibration import Calibration, fit
from tfdetect.workflow import recipe as recipes

pytestmark = pytest.mark.usefixtures("light")
ALL = sorted(reproduce.RECIPES.glob("*.yaml"))
KNOWN = [path for path in ALL if config.read_yaml(path)[0] in REGISTRY]
TINY = ["--data.sample", "30", "--data.size", "32", "--data.frames", "4", "--train.epochs", "1"]


def call(capsys, *argv):
    """(exit code, stdout, stderr as one line) of `tfdetect reproduce ARGV`."""
    code = cli.main(["reproduce", *map(str, argv)])
    out, err = capsys.readouterr()
    return code, out, " ".join(err.split())


def test_help_lists_each_recipe_on_a_line(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    code, out, _ = call(capsys, "--help")
    assert code == 0 and all(re.search(rf"^  {path.stem} +\w", out, re.M) for path in ALL) and len(ALL) >= 7
    assert call(capsys) == (2, out, "")


def test_an_unknown_recipe_gets_a_suggestion(capsys):
    code, _, err = call(capsys, "glem_cnn_lstn")
    assert code == 2 and "Perhaps you meant glem_cnn_lstm" in err


@pytest.mark.parametrize("path", ALL, ids=lambda path: path.stem)
def test_every_recipe_states_figures_protocol_and_data(path):
    recipe = recipes.read(path)
    assert recipe.names and {"data", "measured_on"} <= set(recipe.protocol)
    figures = [recipe.figures, *recipe.by_source.values()]
    assert all(value is None or (isinstance(value, float) and 0 <= value <= 1) for row in figures for value in row.values())
    assert f"| `{path.stem}` |" in (reproduce.RECIPES.parent / "docs" / "recipes.md").read_text()


@pytest.mark.parametrize("path", KNOWN, ids=lambda path: path.stem)
def test_every_recipe_is_a_run(path):
    run = config.parse(["--config", str(path)], "t")
    there = recipes.read(path).protocol
    assert there.get("frames", run.data.frames) == run.data.frames
    for name, here in (("epochs", run.train.epochs), ("size", run.data.size), ("batch", run.train.batch)):
        assert not isinstance(there.get(name), int) or there[name] == here
    small = reproduce.parse(recipes.read(path), [], stand_in=True)
    assert (small.data.sample, small.data.faces) == (100, "none") and small.train.epochs <= 3
    assert small.data.size == run.data.size and getattr(small.detector, "weights", None) in (None, "none")
    assert getattr(small.detector, "preset", "tiny") == "tiny"
    assert {*small.data.train_sources, *small.data.test_sources} <= {"swap", "upsample"}


def test_missing_data_are_named_with_source_and_layout(capsys):
    code, _, err = call(capsys, "glem_cnn")
    assert code == 2 and "--data.path" in err and "face images" in err and "not published" in err and "real/ and fake/" in err
    code, _, err = call(capsys, "glem_cnn", "--stand-in", "--data.path", "x")
    assert code == 2 and "exclude each other" in err


@pytest.mark.parametrize(
    "change, message",
    [
        ({"published": None}, "is not a recipe"),
        ({"dataset": {"name": "x"}}, "'where' is missing"),
        ({"published": {"title": "t", "source": "s", "protocol": {}, "test_acuracy": 0.5}}, "unknown test_acuracy"),
        ({"published": {"title": "t", "source": "s", "protocol": {"epoch": 5}}}, "unknown epoch"),
        ({"published": {"title": "t", "source": "s", "protocol": {}, "facts": {"sped": 5}}}, "unknown sped"),
        ({"trian": {"epochs": 5}}, "--trian.epochs"),
    ],
)
def test_a_wrong_recipe_is_refused(capsys, tmp_path, change, message):
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump({**yaml.safe_load((reproduce.RECIPES / "glem_cnn.yaml").read_text()), **change}))
    try:
        code, _, err = call(capsys, path, "--data.path", tmp_path)
    except SystemExit as stop:  # raised by tyro for an unknown setting
        code, err = stop.code, capsys.readouterr().err
    assert code == 2 and message in re.sub(r"[│\s]+", " ", err)


def test_a_stand_in_prints_and_saves_both_rows(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    code, out, _ = call(capsys, "--stand-in", "glem_cnn_lstm", *TINY, "--name", "mine")
    assert code == 0 and "published: not measured" in out and "0.9872" in out and "ours: measured on the" in out
    assert "Ours on the embedded sample, not on the published data" in out
    assert re.search(r"│ size +│ 64 +│ 32 ", out), "setting, published, ours"
    artifact = Artifact(Path("saved_models") / "mine")
    comparison = json.loads(artifact.comparison.read_text())
    test = json.loads(artifact.metrics.read_text())["test"]
    published, ours = comparison["rows"]
    assert (published["test_accuracy"], published["test_loss"]) == (0.9872, 0.0883)
    assert (ours["test_accuracy"], ours["test_loss"]) == (test["accuracy"], test["log_loss"])
    differences = {row["what"]: (row["published"], row["ours"]) for row in comparison["differences"]}
    assert comparison["stand_in"] and "embedded sample" in differences["data"][1]
    assert differences["size"] == (64, 32) and differences["frames"] == (20, 4) and differences["seed"] == ("not stated", 0)
    assert "42 train, 6 validation, 12 test" in differences["files"][1] and "1 of at most 1" in differences["epochs"][1]
    page = artifact.report.read_text()
    assert "Published figures and ours" in page and "Differences between the protocols" in page
    assert "published: not measured here" in page


@pytest.mark.slow
def test_a_stand_in_reads_texts_and_warns_of_its_random_backbone(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    code, out, _ = call(capsys, "--stand-in", "clip_triplet_svm_cyclegan_product", *TINY)
    assert code == 0 and "0.9541" in out and "THE BACKBONE IS RANDOM" in out
    comparison = json.loads(Path("saved_models/clip/comparison.json").read_text())
    test = json.loads(Path("saved_models/clip/metrics.json").read_text())["test"]
    ours = {row["figure"]: row["ours"] for row in comparison["figures"]}
    assert ours["test macro precision"] == test["macro"]["precision"] == comparison["rows"][1]["test_macro_precision"]
    train = json.loads(Path("saved_models/clip/metrics.json").read_text())["train"]
    assert ours["train macro f1"] == train["macro"]["f1"] > 0 and train["n"] == 42 and comparison["stand_in"]
    components = json.loads(Path("saved_models/clip/metrics.json").read_text())["principal_components"]
    share = {name: row["variance share of the first component"] for name, row in components.items()}
    assert ours["share of the first principal component, test files"] == share["embedding"] != share["features"]
    weights = next((row["published"], row["ours"]) for row in comparison["differences"] if row["what"] == "weights")
    assert weights == ("clip_vit_base_patch32", "tiny: random") and "batch" in comparison["same"]
    assert "a photo of a " in Path("saved_models/clip/manifest.csv").read_text()


def test_a_stand_in_across_manipulations_compares_the_recall_of_fakes(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    code, *_ = call(capsys, "--stand-in", "clip_logistic_cross_manipulation", *TINY)
    comparison = json.loads(Path("saved_models/clip/comparison.json").read_text())
    test = json.loads(Path("saved_models/clip/metrics.json").read_text())["test"]
    published, ours = (row["test_frame_recall"] for row in comparison["rows"])
    assert code == 0 and published == 0.776 and ours == test["per_class"]["fake"]["recall"]
    assert test["by_source"]["upsample"]["n_fake"] == test["n_fake"] > 0
    assert next(row["ours"] for row in comparison["differences"] if row["what"] == "epochs") == "none"


def test_a_recipe_by_path_with_sources_parameters_and_validation(capsys, monkeypatch, tmp_path, images):
    """Equal items of the protocols are not listed as differences. Data without the recipe's sources are other data."""
    monkeypatch.chdir(tmp_path)
    tree = yaml.safe_load((reproduce.RECIPES / "glem_cnn.yaml").read_text())
    tree["published"] |= {"validation_frame_auc": 0.9, "by_source": {"swap": {"test_accuracy": 0.5}, "gan": {"test_ap": 0.6},
                                                                        "camera + swap": {"test_ap": None}}}  # fmt: skip
    tree["published"]["protocol"] |= {"size": 32, "seed": 0, "parameters": 1}
    tree["data"]["train_sources"] = ["progan"]
    Path("own.yaml").write_text(yaml.safe_dump(tree))
    shutil.copytree(images, "set")
    flags = ["--data.path", "set", "--data.size", "32", "--train.epochs", "1", "--detector.width", "4"]
    code, out, _ = call(capsys, "own.yaml", *flags)
    assert code == 0 and "all of their sources are used" in out and "The same in both: size, seed, batch." in out
    assert "The data are not the published ones: no fakes of progan." in out
    assert "(the data are not the published ones: no fakes of progan)" in Path("saved_models/cnn/report.html").read_text()
    comparison = json.loads(Path("saved_models/cnn/comparison.json").read_text())
    metrics = json.loads(Path("saved_models/cnn/metrics.json").read_text())
    rows = {row["row"]: row for row in comparison["rows"]}
    here = "measured on other data"
    assert not comparison["stand_in"] and len(rows) == 7
    assert rows[f"ours, camera + swap: {here}"]["test_ap"] > 0 and "published, camera + swap: not measured here" not in rows
    assert rows[f"ours: {here}"]["validation_frame_auc"] == metrics["validation"]["by_frame"]["auc"]
    assert rows["published, gan: not measured here"]["test_ap"] == 0.6 and rows[f"ours, gan: {here}"]["test_ap"] is None
    assert rows[f"ours, swap: {here}"]["test_accuracy"] is None, "all reals are of another source"
    figures = {row["figure"]: (row["published"], row["ours"]) for row in comparison["figures"]}
    assert figures["test ap, gan"] == (0.6, None) and figures["time per step"] == ("74 to 78 ms", None)
    assert figures["test accuracy"] == (0.8395, metrics["test"]["accuracy"])
    assert figures["test ap"] == (None, metrics["test"]["ap"]), "over all files, even if it was published by source only"
    parameters = next(row["ours"] for row in comparison["differences"] if row["what"] == "parameters")
    assert 10_000 < parameters < 100_000


def test_only_data_with_none_of_the_sources_run_with_all_sources(tmp_path):
    recipe = recipes.read(reproduce.RECIPES / "clip_logistic_cross_manipulation.yaml")
    run = reproduce.parse(recipe, ["--data.path", str(tmp_path)], stand_in=False)
    data = reproduce.use_all_sources(recipe, run, UnknownSource("no", ["fake"])).data
    assert (data.train_sources, data.test_sources, data.path) == ((), (), tmp_path)
    own = reproduce.parse(recipe, ["--data.path", str(tmp_path), "--data.train_sources", "gan"], stand_in=False)
    for refused, known in ((run, ["NeuralTextures"]), (run, ["faceswap", "x"]), (own, ["fake"])):
        with pytest.raises(UnknownSource, match="no"):
            reproduce.use_all_sources(recipe, refused, UnknownSource("no", known))


@pytest.mark.parametrize("name, sources, reason", [
    ("clip_triplet_svm_progan", "fake", "1 train files instead of 28,000; 0 validation files instead of 3,999; 1 test files "
                                        "instead of 8,001"),
    ("glem_torch", "fake", "0 validation files instead of 3,000"),
    ("wang2020", "fake", "none of the sources biggan"), ("wang2020", "biggan", ""), ("resnet50_levels", "fake", "")])  # fmt: skip
def test_numbers_of_files_and_sources_show_other_data(tmp_path, name, sources, reason):
    Artifact(tmp_path).manifest.write_text(f"path,split,source,error\na,train,camera,\nb,test,{sources},\nc,test,x,damaged\n")
    recipe = recipes.read(reproduce.RECIPES / f"{name}.yaml")
    run = reproduce.parse(recipe, ["--data.path", str(tmp_path)], stand_in=False)
    found = recipes.find_other_data(recipe, run, Artifact(tmp_path))
    assert found.startswith(reason) and bool(found) == bool(reason)


def test_train_accepts_a_recipe_as_config():
    run = config.parse(["--config", str(reproduce.RECIPES / "glem_cnn.yaml"), "--data.size", "32"], "t")
    assert (run.detector.name, run.data.size, run.train.epochs) == ("cnn", 32, 10)


@pytest.fixture(scope="module")
def one_class(tmp_path_factory):
    """A finished stand-in of a recipe whose threshold is read off all test scores, and its output."""
    folder = tmp_path_factory.mktemp("pooled")
    tree = yaml.safe_load((reproduce.RECIPES / "glem_cnn.yaml").read_text())
    tree["train"] |= {"threshold": "pooled_test_quantile:0.8"}
    tree["published"] |= {"test_accuracy": 0.528, "test_real_precision": 0.519, "test_real_recall": 0.828, "test_real_f1": None}
    tree["published"]["protocol"]["threshold"] = "score 0.383"
    (folder / "one_class.yaml").write_text(yaml.safe_dump(tree))
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(StringIO()) as out:
        patch.chdir(folder)
        assert cli.main(["reproduce", "one_class.yaml", "--stand-in", *TINY, "--train.epochs", "0", "--detector.width", "4"]) == 0
    return Artifact(folder / "saved_models" / "cnn"), out.getvalue()


def test_a_threshold_read_off_the_test_is_marked_everywhere(one_class):
    artifact, out = one_class
    page, metrics = artifact.report.read_text(), json.loads(artifact.metrics.read_text())
    assert page.index("THE THRESHOLD HAS SEEN THE TEST SET") < page.index("<h2>Summary")
    assert metrics["threshold_rule"] == "pooled_test_quantile:0.8"
    assert "tfdetect reproduce RECIPE" in artifact.config.read_text().splitlines()[0]
    assert re.search("^test: AUC .* fake files; threshold has seen the test set$", out, re.M)
    assert re.search("^validation: .* fake files$", out, re.M)
    comparison = json.loads(artifact.comparison.read_text())
    assert comparison["rows"][1]["row"] == "ours: measured on the stand-in; threshold has seen the test set"
    sides = {row["what"]: row["ours"] for row in comparison["differences"]}
    assert "test files, which chose the threshold" in sides["measured on"]


def test_a_fifth_of_the_test_files_is_called_fake(one_class):
    """Of 12 files, the quantile lies between the ninth and the tenth. Slope and intercept are fitted on validation."""
    artifact, _ = one_class
    test = json.loads(artifact.metrics.read_text())["test"]
    assert (test["confusion"]["tp"] + test["confusion"]["fp"], test["n"]) == (3, 12)
    rows = predictions.read(artifact.predictions)
    validation = rows[rows["split"] == "validation"]
    kept = Calibration.from_dict(json.loads(artifact.calibration.read_text()))
    fitted = fit(validation["score"], validation["label"])
    assert (kept.slope, kept.intercept) == pytest.approx((fitted.slope, fitted.intercept), rel=1e-3)
    called = rows[rows["split"] == "test"].eval("score >= @kept.score_threshold")
    assert called.sum() == 3, "the threshold in units of the score decides alike"


def test_figures_of_reals_and_the_threshold_as_a_score_are_compared(one_class):
    artifact, _ = one_class
    test = json.loads(artifact.metrics.read_text())["test"]
    comparison = json.loads(artifact.comparison.read_text())
    ours = comparison["rows"][1]
    for name, value in test["per_class"]["real"].items():
        assert ours[f"test_real_{name}"] == value > 0
    calibration = json.loads(artifact.calibration.read_text())
    message = next(row["ours"] for row in comparison["differences"] if row["what"] == "threshold")
    cut = (logit(calibration["threshold"]) - calibration["intercept"]) / calibration["slope"]
    assert message.startswith("80 % quantile of all test scores") and "so it has seen the test set" in message
    assert message.endswith(f": probability {calibration['threshold']:.4g}, score {cut:.4g}")


def test_such_a_run_stays_marked_when_evaluated_and_can_predict(one_class, capsys, monkeypatch):
    artifact, _ = one_class
    monkeypatch.chdir(artifact.folder.parents[1])
    assert cli.main(["evaluate", str(artifact.folder)]) == 0
    assert "threshold has seen the test set" in " ".join(capsys.readouterr().out.split())
    again = Artifact(artifact.folder / "evaluations" / "own_test")
    assert "THE THRESHOLD HAS SEEN THE TEST SET" in again.report.read_text()
    assert json.loads(again.metrics.read_text())["threshold_rule"] == "pooled_test_quantile:0.8"
    assert cli.main(["predict", str(artifact.folder), predictions.read(artifact.predictions)["path"].iloc[0]]) == 0


def test_train_refuses_a_threshold_read_off_the_test(one_class, capsys, monkeypatch):
    artifact, _ = one_class
    monkeypatch.chdir(artifact.folder.parents[1])
    flags = ["cnn", "--train.threshold", "pooled_test_quantile:0.8"]
    for argv in (flags, ["--config", "one_class.yaml"], ["--config", str(artifact.config), "--name", "again"]):
        assert cli.main(["train", *argv]) == 2
        err = capsys.readouterr().err
        assert err.count("\n") == 1 and "uses the test scores" in err and "Give quantile:0.8" in err
    assert [path.name for path in artifact.folder.parent.iterdir()] == ["cnn"]
