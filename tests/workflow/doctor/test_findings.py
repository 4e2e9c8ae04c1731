"""What doctor concludes of its findings, and the page: one problem per cause, problems first, nothing private."""

import os
import sys

import pytest

from tfdetect.errors import UserError
from tfdetect.workflow.doctor import finding as findings
from tfdetect.workflow.doctor.finding import Finding, conclude, from_error
from tfdetect.workflow.doctor.page import WIDTH, format_page


def failing_import(code, name="tests_broken", monkeypatch=None, folder=None):
    (folder / f"{name}.py").write_text(code)
    monkeypatch.syspath_prepend(str(folder))
    try:
        __import__(name)
    except Exception as error:
        return error
    finally:
        sys.modules.pop(name, None)


def test_what_fails_only_because_of_a_package_is_not_a_problem_of_its_own():
    broken = Finding("packages", "opencv-python-headless", "problem", "cannot be imported", "reinstall", cause="cv2")
    rest = [Finding("images", name, "problem", "ImportError", cause="cv2") for name in ("JPEG", "PNG")]
    other = Finding("disk", "cache folder", "problem", "full")
    done = list(conclude([rest[0], broken, rest[1], other], ()))
    assert [item.result for item in done] == ["not tried", "problem", "not tried", "problem"]
    assert done[0].detail == "see the problem with opencv-python-headless" and not done[0].advice


def test_the_first_of_several_is_the_problem_if_the_cause_is_no_package_of_ours():
    items = [Finding(part, part, "problem", "needs jax", cause="jax") for part in ("devices", "training")]
    assert [item.result for item in conclude(items, ())] == ["problem", "not tried"]


def test_optional_parts_are_problems_only_if_required():
    items = [Finding("devices", "gpu", "absent"), Finding("optional", "beam", "absent"), Finding("optional", "torch")]
    assert [item.result for item in conclude(items, ["gpu", "torch"])] == ["problem", "absent", "ok"]


def test_an_import_error_names_its_cause(monkeypatch, tmp_path):
    missing = failing_import("import no_such_module.part", monkeypatch=monkeypatch, folder=tmp_path)
    own = failing_import("raise ImportError('libGL.so.1: cannot open')", monkeypatch=monkeypatch, folder=tmp_path)
    wrapped = failing_import("try:\n    import no_such_module\nexcept ImportError:\n    raise ValueError('no luck')",
                             monkeypatch=monkeypatch, folder=tmp_path)  # fmt: skip
    assert findings.import_cause(missing) == findings.import_cause(wrapped) == "no_such_module"
    assert findings.import_cause(own) == "tests_broken" and findings.import_cause(KeyError("x")) == ""
    assert from_error("images", "PNG", missing).advice == "pip install --force-reinstall no-such-module"


@pytest.mark.parametrize("error, detail, advice", [
    (UserError("Do this."), "Do this.", ""),
    (MemoryError(), "not enough memory", findings.MEMORY_ADVICE),
    (ImportError("x.so: failed to map segment from shared object"), "not enough memory", findings.MEMORY_ADVICE),
    (RuntimeError("can't start new thread"), "no threads can be started", findings.PROCESS_ADVICE),
    (PermissionError(13, "Permission denied", "cache"), "PermissionError: Permission denied: cache", ""),
    (KeyError("x"), "KeyError: 'x'", findings.REPORT),
])  # fmt: skip
def test_an_error_becomes_one_sentence(error, detail, advice):
    found = from_error("training", "training", error)
    assert (found.result, found.detail, found.advice) == ("problem", detail, advice)


def test_folders_of_the_user_are_not_shown(monkeypatch):
    monkeypatch.setenv("HOME", "/home/alice")
    text = findings.without_folders(f"{sys.prefix}/lib/x.so and /home/alice/data")
    assert text == "ENV/lib/x.so and ~/data"
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)  # a user without a home, as in some containers
    assert findings.without_folders("/home/alice/data") == "/home/alice/data"


def test_the_page_begins_with_problems_and_merges_equal_ones():
    videos = [Finding("videos", f"codec {number}", "problem", "cannot be read: damaged", "reinstall av") for number in range(12)]
    items = [Finding("system", "tfdetect", detail="0.1.0"), *videos, Finding("machine", "memory", "warning", "1 GB free", "add"),
             Finding("packages", "numpy", detail="2.1.0", seconds=3.21), Finding("optional", "jax", "absent"),
             Finding("optional", "beam", "problem"), Finding("training", "export", "not tried", "see the problem")]  # fmt: skip
    page = format_page(items, 12.3)
    lines = page.splitlines()
    assert lines[0] == "tfdetect doctor: 13 problems, 1 warning; 18 checks in 12 s"
    assert lines[2].startswith("PROBLEM  videos, codec 0, codec 1") and page.count("PROBLEM") == 2 and page.count("WARNING") == 1
    assert page.index("fix      reinstall av") < page.index("PROBLEM  optional, beam: is missing") < page.index("WARNING")
    assert page.index("WARNING") < page.index("system     tfdetect 0.1.0")
    assert "numpy 2.1.0 (3.2 s)" in page and "not installed: jax" in page and "export: not tried: see the problem" in page
    assert max(map(len, lines)) <= WIDTH


def test_the_page_is_plain_text_whatever_the_texts_hold():
    page = format_page([Finding("disk", "cache\nfolder", "problem", "a\x1b[31m b")], 1.0)
    assert page.isascii() and "\x1b" not in page and "no problems" in format_page([Finding("system", "x")], 1.0)
