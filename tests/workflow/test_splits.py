"""--data.split and --data.hold_out, from the flags to the manifest, and what a run keeps of them."""

import dataclasses

import pandas as pd
import pytest

from tfdetect import artifact as artifacts
from tfdetect import config, models  # noqa: F401  (registers the detectors)
from tfdetect.artifact import Artifact
from tfdetect.data import manifest
from tfdetect.errors import UserError
from tfdetect.settings import Data
from tfdetect.split_settings import parse_shares
from tfdetect.workflow import splits

FORGERIES = ("Deepfakes", "Face2Face", "FaceSwap", "NeuralTextures")


def table(sources=FORGERIES, count=40):
    """Return a manifest without splits: of each group a real and a fake of each source."""
    rows = [{"path": f"{source}/{number}.mp4", "label": int(source != "youtube"), "group": f"g{number}", "source": source}
            for number in range(count) for source in ("youtube", *sources)]  # fmt: skip
    return manifest.validate(pd.DataFrame(rows), "test")


def run(*flags, detector="cnn"):
    return config.parse([detector, *flags], "t")


def fakes(kept, source):
    return dict(kept[kept["source"] == source]["split"].value_counts())


def test_shares_of_the_split(capsys):
    split = splits.assign(table(("a",), 100), run("--data.split", "80/10/10"))[0]
    assert dict(split["split"].value_counts() / 2) == {"train": 80, "validation": 10, "test": 10}
    assert not capsys.readouterr().out
    assert parse_shares("98.5/ 1 /0.5") == {"train": 0.985, "validation": 0.01, "test": 0.005}


@pytest.mark.parametrize("text", ["80/10", "80/10/20", "90/10/0", "a/b/c", "0.8/0.1/0.1", "120/-10/-10", "nan/50/50", ""])
def test_wrong_shares_are_refused(text):
    with pytest.raises(UserError, match=r"--data.split must be three percentages above 0 that sum to 100.*80/10/10"):
        Data(split=text)


def test_given_splits_are_kept_and_the_flag_says_so(capsys):
    given = manifest.split(table(("a",)))
    assert splits.assign(given, run("--data.split", "80/10/10"))[0].equals(given)
    assert "splits of its own, which are kept: --data.split 80/10/10 has no effect." in capsys.readouterr().out
    partly = given.assign(split=given["split"].where(given["split"] == "test", ""))
    split = splits.assign(partly, run("--data.split", "50/30/20"))[0]
    assert dict(split["split"].value_counts()) == {"train": 40, "validation": 24, "test": 16}
    assert "assigned 64 of 80 files." in capsys.readouterr().out


def test_one_of_four_sources_is_held_out_by_default_and_the_test_stays_complete(capsys):
    kept, chosen = splits.assign(table(), run())
    assert chosen.data.hold_out[0] == "auto" and (name := chosen.data.hold_out[1]) in FORGERIES
    assert [fakes(kept, source) for source in FORGERIES if source != name] == 3 * [{"train": 28, "validation": 4, "test": 8}]
    assert fakes(kept, name) == {"test": 8} and fakes(kept, "youtube") == {"train": 28, "validation": 4, "test": 8}
    out = capsys.readouterr().out
    assert out.count("\n") == 1 and f"32 fakes of {name}, the middle-sized of 4 sources. The test has 8" in out
    assert kept.attrs["left_out"] == {"fakes held out of training": 32}


def test_the_official_test_of_faceforensics_keeps_its_560_fakes():
    pairs = [(f"{number}", split) for split, count in (("train", 720), ("val", 140), ("test", 140)) for number in range(count)]
    rows = [{"path": f"{source}/{split}{number}.mp4", "label": int(source != "youtube"), "group": f"{split}{number}",
             "source": source, "split": split} for number, split in pairs for source in ("youtube", *FORGERIES)]  # fmt: skip
    kept, chosen = splits.assign(manifest.validate(pd.DataFrame(rows), "test"), run())
    counted = kept.groupby(["split", "label"]).size()
    assert counted["test", 1] == 560 and counted["test", 0] == 140 and counted["train", 1] == 3 * 720
    assert fakes(kept, chosen.data.hold_out[1]) == {"test": 140}


@pytest.mark.parametrize("flags", [("--data.hold_out", "none"), ("--data.train_sources", "FaceSwap"),
                                   ("--data.test_sources", "FaceSwap", "Face2Face", "Deepfakes", "NeuralTextures"),
                                   ("--data.make_fakes", "1")])  # fmt: skip
def test_nothing_is_held_out_where_the_sources_were_chosen(flags):
    kept, chosen = splits.assign(table(), run(*flags))
    assert all(fakes(kept, "FaceSwap").values()) and len(fakes(kept, "FaceSwap")) == 3
    assert chosen.data.hold_out == (("none",) if flags[0] == "--data.hold_out" else ("auto", "none"))


def test_attributed_sources_are_all_trained_on():
    flags = ("--detector.attribute", "source", "--detector.weights", "none")
    assert splits.assign(table(), run(*flags, detector="squeezenet"))[1].data.hold_out == ("auto", "none")
    kept, _ = splits.assign(table(), run(*flags, "--data.hold_out", "faceswap", detector="squeezenet"))
    assert fakes(kept, "FaceSwap") == {"test": 8}


def test_several_sources_by_name():
    kept, chosen = splits.assign(table(), run("--data.hold_out", "faceswap", "Deepfakes"))
    assert fakes(kept, "FaceSwap") == fakes(kept, "Deepfakes") == {"test": 8} and len(fakes(kept, "Face2Face")) == 3
    assert chosen.data.hold_out == ("faceswap", "Deepfakes")


@pytest.mark.parametrize("value", [("none", "FaceSwap"), ("auto", "none", "x"), ()])
def test_auto_none_and_names_exclude_each_other(value):
    with pytest.raises(UserError, match="--data.hold_out must be auto, none or names of sources"):
        Data(hold_out=value)


def test_a_run_repeats_its_choice_and_chooses_anew_on_other_data(tmp_path):
    chosen = splits.assign(table(), run())[1]
    config.write_yaml(chosen, tmp_path / "config.yaml")
    again = config.parse(["--config", str(tmp_path / "config.yaml")], "t")
    assert again.data.hold_out == chosen.data.hold_out
    larger = pd.concat([table(), table(("A", "B", "C"), 100).assign(path=lambda rows: rows["path"] + "2")], ignore_index=True)
    assert set(fakes(splits.assign(larger, again)[0], chosen.data.hold_out[1])) == {"test"}
    other, anew = splits.assign(table(("a", "b", "c", "d")), again)
    assert anew.data.hold_out[1] in "abcd" and set(fakes(other, anew.data.hold_out[1])) == {"test"}


def write_old(folder, chosen):
    """Write the config.yaml of a run that knew neither --data.split nor --data.hold_out."""
    config.write_yaml(chosen, folder / "config.yaml")
    lines = (folder / "config.yaml").read_text().splitlines()
    lines = [line for line in lines if not line.strip().startswith(("hold_out", "split:", "- auto"))]
    (folder / "config.yaml").write_text("\n".join(lines))


def test_a_run_from_before_holds_nothing_out_when_it_is_resumed(tmp_path):
    folder = tmp_path / "cnn"
    folder.mkdir()
    asked = run("--out", str(tmp_path), "--name", "cnn")
    write_old(folder, asked)
    assert artifacts.select_folder(asked) == (Artifact(folder), True), "the same command as before resumes it"
    resumed = splits.keep_choice(asked, Artifact(folder))
    kept, after = splits.assign(table(), resumed)
    assert len(kept) == len(table()) and after.data.hold_out == ("auto", "none")
    other = dataclasses.replace(asked, data=dataclasses.replace(asked.data, hold_out=("FaceSwap",)), resume=True)
    with pytest.raises(UserError, match=r"--data.hold_out was auto none and is now FaceSwap"):
        artifacts.select_folder(other)


def test_recipes_of_published_tables_hold_nothing_out(tmp_path):
    text = "detector: {name: cnn}\ndataset: {}\npublished: {}\n"
    (tmp_path / "recipe.yaml").write_text(text)
    assert config.parse(["--config", str(tmp_path / "recipe.yaml")], "t").data.hold_out == ("none",)
    (tmp_path / "own.yaml").write_text(text + "data: {hold_out: FaceSwap}\n")
    assert config.parse(["--config", str(tmp_path / "own.yaml")], "t").data.hold_out == ("FaceSwap",)
    (tmp_path / "plain.yaml").write_text("detector: {name: cnn}\n")
    assert config.parse(["--config", str(tmp_path / "plain.yaml")], "t").data.hold_out == ("auto",)
