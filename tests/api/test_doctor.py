"""`tfdetect doctor` and `tfdetect.doctor()`: the page, JSON, the exit code, and flags that work whatever is broken."""

import json
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

import tfdetect
from tfdetect import cli, config, plugins
from tfdetect.api import doctor as api
from tfdetect.verbs import doctor as verb
from tfdetect.workflow.doctor import installation, isolated, machine, media
from tfdetect.workflow.doctor.finding import Finding

GOOD, BAD = Finding("system", "tfdetect", detail="0.1.0"), Finding("videos", "AV1 in MP4", "problem", "is not read", "do this")


@pytest.fixture
def found(monkeypatch):
    """The findings, to be set by a test; their settings are in `found.settings`."""

    class Found(list):
        settings = None

    found = Found([GOOD])

    def check_all(settings):
        found.settings = settings
        return list(found)

    monkeypatch.setattr(verb, "check_all", check_all)
    monkeypatch.setattr(api, "check_all", check_all)
    return found


def test_the_exit_code_is_1_if_there_is_a_problem(found, capsys):
    assert cli.main(["doctor"]) == 0 and "no problems" in capsys.readouterr().out
    found.append(Finding("machine", "memory", "warning", "1 GB free"))
    assert cli.main(["doctor"]) == 0 and "1 warning" in capsys.readouterr().out
    found.append(BAD)
    assert cli.main(["doctor", "--require", "gpu", "beam", "--data.cache_dir", "x", "--out", "y"]) == 1
    assert "PROBLEM  videos, AV1 in MP4: is not read\nfix      do this" in capsys.readouterr().out
    assert (found.settings.require, found.settings.data.cache_dir, found.settings.out) == (("gpu", "beam"), Path("x"), Path("y"))


def test_json_has_every_check(found, capsys):
    found.append(BAD)
    assert cli.main(["doctor", "--json"]) == 1
    content = json.loads(capsys.readouterr().out)
    assert content["result"] == "problem" and content["checks"][1]["advice"] == "do this" and content["seconds"] >= 0


def test_a_broken_parser_of_flags_does_not_matter(found, capsys, monkeypatch):
    def refuse(*_):
        raise ImportError("tyro is broken")

    monkeypatch.setattr(config, "parse_flags", refuse)
    assert cli.main(["doctor"]) == 0 and found.settings == verb.PrintPage()


def test_installed_plugins_are_not_imported_by_the_command_itself(found, monkeypatch):
    monkeypatch.setattr(plugins, "load_installed", lambda groups=(): 1 / 0)
    monkeypatch.setattr(plugins, "are_installed", lambda groups=(): True)
    assert cli.main(["doctor"]) == 0


def test_the_function_returns_a_table_that_shows_the_page(found):
    found.append(BAD)
    table = tfdetect.doctor("gpu", cache_dir="x")
    assert found.settings.require == ("gpu",) and found.settings.data.cache_dir == Path("x")
    assert list(table["check"]) == ["tfdetect", "AV1 in MP4"] and {"part", "result", "seconds", "advice"} <= set(table)
    assert "PROBLEM  videos, AV1 in MP4" in repr(table) and ">tfdetect doctor: 1 problem" in table._repr_html_()
    assert type(table[table["result"] == "problem"]) is pd.DataFrame
    table["more"] = 1
    assert "more" in repr(table) and "PROBLEM" not in repr(table)
    with pytest.raises(tfdetect.UserError, match="gpx"):
        tfdetect.doctor(["gpx"])


def test_a_check_that_fails_is_a_problem_and_the_others_go_on(monkeypatch):
    def fail(*_):
        raise RuntimeError("no luck")

    monkeypatch.setattr(machine, "check_resources", fail)
    monkeypatch.setattr(installation, "requirements", fail)
    monkeypatch.setattr(isolated, "run", lambda tasks, on_start: [Finding(part, name) for part, name in tasks])
    names = []
    monkeypatch.setattr(api, "show_progress", names.append)
    found = api.check_all(api.Doctor())
    problems = [(item.part, item.detail.partition(" (")[0]) for item in found if item.result == "problem"]
    assert problems == [("machine", "RuntimeError: no luck"), ("packages", "RuntimeError: no luck")]
    assert {"system", "disk", "devices", "images", "videos", "training"} <= {item.part for item in found}
    assert names == ["system", "optional", "machine", "disk", "packages", ""]


def test_what_runs_in_this_process_needs_the_standard_library_only():
    code = ("import sys; from tfdetect.api.doctor import check_all, tasks; from tfdetect.verbs import doctor;"
            "from tfdetect.workflow.doctor import installation, isolated, machine, page; tasks([], []);"
            "print({'numpy', 'pandas', 'cv2', 'av', 'rich', 'tyro', 'packaging'} & set(sys.modules))")  # fmt: skip
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"


@pytest.mark.slow
def test_a_machine_on_which_all_other_tests_pass_has_no_problems(tmp_path):
    table = tfdetect.doctor(cache_dir=tmp_path / "cache", out=tmp_path / "runs")
    assert "problem" not in set(table["result"]), repr(table)
    checks = {*media.IMAGES, *media.VIDEOS, *installation.requirements(), "workers", "gpu", "train", "export", "score"}
    assert checks <= set(table["check"]) and not list(tmp_path.iterdir())
