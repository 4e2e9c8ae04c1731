"""Flags and YAML are two forms of one run."""

import dataclasses
import sys
import threading
import time

import pytest
import yaml

from tfdetect import config, models  # noqa: F401
from tfdetect.detector import REGISTRY, Detector, find, register
from tfdetect.errors import UserError
from tfdetect.settings import Train


@pytest.mark.parametrize("name", sorted(REGISTRY))
def test_round_trip(tmp_path, name):
    balance = "focal" if config.default_run(find(name)).detector.supports_focal_loss else "none"
    run = config.parse([name, "--data.size", "96", "--data.fake", "a", "b", "--train.xla", "--train.balance", balance], "t")
    config.write_yaml(run, tmp_path / "c.yaml")
    reread = config.parse(["--config", str(tmp_path / "c.yaml")], "t")
    assert config.run_to_dict(reread) == config.run_to_dict(run)
    assert reread.data.fake == ("a", "b") and reread.train.xla and reread.train.balance == balance


@pytest.mark.parametrize("text", ["", "flip|brightness(-9,9,p=0.5)|jpeg(30,100)"])
def test_augmentation_survives_the_round_trip(tmp_path, text):
    config.write_yaml(config.parse(["cnn", "--train.augment", text], "t"), tmp_path / "c.yaml")
    assert config.parse(["--config", str(tmp_path / "c.yaml")], "t").train.augment == text


def test_the_aggregate_is_kept_and_a_run_from_before_it_loads(tmp_path):
    config.write_yaml(config.parse(["cnn", "--evaluate.aggregate", "top:3"], "t"), tmp_path / "c.yaml")
    assert config.parse(["--config", str(tmp_path / "c.yaml")], "t").evaluate.aggregate == "top:3"
    content = yaml.safe_load((tmp_path / "c.yaml").read_text())
    (tmp_path / "c.yaml").write_text(yaml.safe_dump({key: value for key, value in content.items() if key != "evaluate"}))
    assert config.parse(["--config", str(tmp_path / "c.yaml")], "t").evaluate.aggregate == "mean"


def test_flags_override_yaml(tmp_path):
    config.write_yaml(config.parse(["cnn", "--data.size", "48", "--train.epochs", "3"], "t"), tmp_path / "c.yaml")
    run = config.parse(["--config", str(tmp_path / "c.yaml"), "--train.epochs", "7", "--name", "x"], "t")
    assert (run.data.size, run.train.epochs, run.name) == (48, 7, "x")


def test_a_detector_overrides_the_common_defaults():
    run = config.parse(["cnn_lstm"], "t")
    assert (run.data.frames, run.data.size, run.train.batch) == (16, 64, 8)


@pytest.mark.parametrize("place", ["flag", "yaml"])
def test_a_misspelt_key_is_refused_with_a_suggestion(tmp_path, capsys, place):
    argv = ["cnn", "--data.sizze", "48"]
    if place == "yaml":
        (tmp_path / "c.yaml").write_text(yaml.safe_dump({"detector": {"name": "cnn"}, "data": {"sizze": 48}}))
        argv = ["--config", str(tmp_path / "c.yaml")]
    with pytest.raises(SystemExit) as stop:
        config.parse(argv, "t")
    text = capsys.readouterr().err
    assert stop.value.code == 2 and "--data.sizze" in text and "--data.size" in text


def test_an_unknown_detector_is_refused_with_a_suggestion():
    with pytest.raises(ValueError, match="Perhaps you meant cnn_lstm"):
        find("cnn_lstn")


@pytest.mark.parametrize(
    "argv, message",
    [
        (["cnn", "--data.size", "0"], "--data.size must be at least 1"),
        (["cnn", "--train.learning_rate", "-1"], "--train.learning_rate must be above 0"),
        (["cnn", "--train.augment", "flip|jpg(80)"], "'jpg(80)' is not a known corruption. Perhaps you meant jpeg"),
        (["cnn", "--name", "a/b"], "plain folder name"),
        (["cnn", "--resume"], "need --name"),
        (["cnn", "--name", "a", "--resume", "--overwrite"], "--resume and --overwrite cannot be combined"),
        (["cnn_lstm", "--detector.freeze"], "frame_model"),
        (["cnn", "--evaluate.aggregate", "top:0"], "--evaluate.aggregate must be mean, median, max or top:K"),
    ],
)
def test_invalid_values_are_refused(argv, message, capsys):
    try:
        config.parse(argv, "t")
    except ValueError as error:
        assert message in str(error)
    except SystemExit as stop:  # tyro prints what the dataclass raised
        assert stop.code == 2 and message in " ".join(capsys.readouterr().err.replace("│", " ").split())
    else:
        pytest.fail("accepted")


@pytest.mark.parametrize("text", ["- 1", "detector: cnn", "a: [", ""])
def test_invalid_yaml_is_one_sentence(tmp_path, text):
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(UserError, match=r"c\.yaml"):
        config.parse(["--config", str(tmp_path / "c.yaml")], "t")


def test_two_detectors_with_the_same_name_are_refused():
    @dataclasses.dataclass(frozen=True)
    class Other(Detector):
        def build(self, clip_shape):
            raise AssertionError

    with pytest.raises(ValueError, match="Two detectors"):
        register("cnn")(Other)


@pytest.mark.parametrize("wrong", ["", "roc", "quantile", "quantile:1.5", "fpr:-0.1", "f1:0.5"])
def test_an_invalid_threshold_rule_is_refused(wrong):
    with pytest.raises(ValueError, match="--train.threshold must be youden, f1, quantile:SHARE or fpr:SHARE"):
        Train(threshold=wrong)
    assert Train(threshold="quantile:0.8").threshold == "quantile:0.8"


def test_config_accepts_an_equals_sign(tmp_path):
    config.write_yaml(config.parse(["cnn", "--data.size=48"], "t"), tmp_path / "a=b.yaml")
    assert config.parse([f"--config={tmp_path / 'a=b.yaml'}", "--train.epochs=7"], "t").data.size == 48
    with pytest.raises(IsADirectoryError):
        config.parse(["--config="], "t")


@pytest.fixture
def versioned(tmp_path):
    """A function that writes a config.yaml with the given line in place of its version and returns the path."""

    def write(line):
        path = tmp_path / "c.yaml"
        config.write_yaml(config.parse(["cnn", "--data.size", "48"], "t"), path)
        text = path.read_text()
        assert "\nversion: 2\n" in text
        path.write_text(text.replace("version: 2\n", line))
        return path

    return write


def test_a_config_without_a_version_is_read(versioned):
    assert config.parse(["--config", str(versioned(""))], "t").data.size == 48


@pytest.mark.parametrize("version", ["3", "'1'", "'2'", "x", "[2]", "-1", "null"])
def test_a_config_of_an_unknown_version_is_refused(versioned, version):
    with pytest.raises(UserError, match="has config version .* update tfdetect"):
        config.parse(["--config", str(versioned(f"version: {version}\n"))], "t")


def test_a_config_of_version_1_says_which_keys_to_rename(versioned):
    path = versioned("version: 1\n")
    message = (r"c\.yaml was written by an older tfdetect \(config version 1\): train the run again, or rename its keys "
               r"\(train\.rate to train\.learning_rate, train\.every to train\.eval_every, "
               r"detector\.tail to detector\.score_direction\) and set its version to 2\.$")  # fmt: skip
    with pytest.raises(UserError, match=message):
        config.parse(["--config", str(path)], "t")


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"a: 2020-13-45", b"[" * 5000])
def test_a_config_that_is_not_text_is_refused_in_one_sentence(tmp_path, content):
    (tmp_path / "c.yaml").write_bytes(content)
    with pytest.raises(UserError, match=r"c\.yaml"):
        config.read_yaml(tmp_path / "c.yaml")


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"data": 5}', '{"data": {"other": 1}}', "\udcff"])
def test_damaged_settings_of_a_prepared_folder_are_refused_in_one_sentence(tmp_path, text):
    (tmp_path / "prepared.json").write_text(text, errors="surrogateescape")
    with pytest.raises(UserError, match="prepared.json is damaged"):
        config.parse(["cnn", "--data.path", str(tmp_path)], "t")


def test_threads_that_parse_leave_stdout_alone():
    stdout, entered = sys.stdout, threading.Event()

    def parse(seconds):
        with config.parser_errors():
            entered.set()
            time.sleep(seconds)

    first, second = (threading.Thread(target=parse, args=(seconds,)) for seconds in (0.05, 0.1))
    first.start()
    assert entered.wait(10)
    second.start()
    first.join()
    second.join()
    assert sys.stdout is stdout
