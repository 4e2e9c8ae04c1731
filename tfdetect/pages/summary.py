"""The report's first section: how good the detector is, on what, what it is not fit for, and what to do next."""

from collections.abc import Mapping
from html import escape
from typing import Any

from tfdetect.evaluation import seen
from tfdetect.evaluation.metrics import describe_interval
from tfdetect.pages import html
from tfdetect.pages.advice import against_shortcuts, grade, next_steps, strongest_shortcut, unfit_uses
from tfdetect.pages.conclusion import cautions, precision_where_rare, verdict
from tfdetect.pages.content import Report


def lead(report: Report) -> str:
    """Return how good the detector is in sentences: on seen and unseen sources, on all, and compared with file properties."""
    test = report.metrics["test"]
    parts = (seen.sentence(test), verdict(test), against_shortcuts(test, strongest_shortcut(report)))
    return " ".join(filter(None, parts))


def scope(report: Report) -> str:
    """Return what the figures hold for."""
    known = report.origin or "All results are measured on files that were not used for training."
    return f"{known} They hold for files like those in the test set; results on unseen generators and cameras may be worse."


def lists(report: Report) -> list[tuple[str, str, list[str]]]:
    """Return (CSS class, title, sentences) of the lists below the key figures; those without sentences are left out."""
    found = [("careful", "Do not use it", unfit_uses(report)), ("next", "What to do next", next_steps(report)),
             ("careful", "Caveats", cautions(report.metrics, len(report.failures), report.suspects, report.origin))]  # fmt: skip
    return [entry for entry in found if entry[2]]


def summary_section(report: Report) -> str:
    """Return the section; the metrics of the test are required."""
    test = report.metrics["test"]
    rare = f"<p>{rates}</p>" if (rates := base_rates(test)) else ""
    below = "".join(f'<div class="{kind}"><h3>{title}</h3>{html.bullet_list(sentences, commands=kind == "next")}</div>'
                    for kind, title, sentences in lists(report))  # fmt: skip
    return (f'<section class="verdict"><h2>Summary</h2><p class="grade">{escape(grade(report))}</p>'
            f'<p class="lead">{escape(lead(report))}</p>{html.tiles(headline_tiles(test, report.shortcuts))}'
            f'{rare}{below}<p class="fine">{escape(scope(report))}</p></section>')  # fmt: skip


def headline_tiles(test: Mapping[str, Any], shortcuts: Mapping[str, float]) -> list[tuple[str, str, str]]:
    """Return (large text, label, small print) of the key figures at the top."""
    interval = describe_interval(test) or ("needs both classes" if test["auc"] is None else "no interval")
    tiles = [(html.format_cell(test["auc"]), "test AUC", interval)]
    if (other := test.get("unseen")) and test.get("seen"):
        tiles.append((html.format_cell(other["auc"]), "AUC on sources it never saw", seen.describe_interval(other, "auc")))
    if "all" in shortcuts:
        ends = test.get("shortcut_intervals", {}).get("all")
        small = f"95 %: {ends[0]:.3f} to {ends[1]:.3f}; " if ends else ""
        tiles.append((html.format_cell(shortcuts["all"]), "shortcut AUC", f"{small}file size, format and colour alone"))
    counts = test["confusion"]
    if counts is None:
        return tiles
    correct, real, fake = counts["tn"] + counts["tp"], test["n_real"], test["n_fake"]
    majority = html.format_percent(100 * max(real, fake) / test["n"])
    tiles.append((f"{html.format_percent(100 * correct / test['n'])} %", "accuracy",
                  f"{correct} of {test['n']} correct; {majority} % by always guessing the larger class"))  # fmt: skip
    if real:
        share = html.format_percent(100 * counts["fp"] / real)
        tiles.append((f"{share} %", "false positive rate", f"{counts['fp']} of {real} real files called fake"))
    if fake:
        tiles.append((f"{html.format_percent(100 * counts['tp'] / fake)} %", "recall", f"{counts['tp']} of {fake} fakes found"))
    return tiles


def base_rates(test: Mapping[str, Any]) -> str:
    """Return a sentence on precision where fakes are rare, which the share of fakes in a test set hides.

    It is "" where the section on verdicts says it, with an interval.
    """
    if test.get("verdicts") or (bound := precision_where_rare(test)) is None:
        return ""
    precision, counts = html.format_percent(100 * bound), test["confusion"]
    share = f"about {precision} %" if counts["fp"] else f"between {precision} % and 100 % (too few real files to be more precise)"
    return (f"Files with a probability of at least {test['threshold']:.3f} are called fake. If only 1 % of all files were fake, "
            f"{share} of the files called fake would really be fake.")  # fmt: skip
