"""What the members of a study say together: study.json, predictions.csv, plots/ and report.html."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tfdetect import artifact as artifacts
from tfdetect import files, installation
from tfdetect.artifact import Artifact
from tfdetect.workflow.console import console, printable
from tfdetect.workflow.protocols import Member, Study, study_settings

if TYPE_CHECKING:
    import pandas as pd

    from tfdetect.evaluation.protocols import Scored
    from tfdetect.workflow.search import Search


def write(study: Study, members: Sequence[Member], search: "Search | None") -> None:
    """Write the results and the report of a study whose members have been trained, and print the main figures."""
    from tfdetect.pages import protocols as page
    from tfdetect.plots import protocols as plots
    from tfdetect.plots import standard

    if search:
        results, predictions = search_results(study, search), None
    else:
        scored = [score(study, member) for member in members if Artifact(study.folder / member.name).is_finished]
        results, predictions = summarise(study.kind, scored)
    target = Artifact(study.folder)
    if predictions is not None:
        with files.atomic_write(target.predictions) as temporary:
            predictions.to_csv(temporary, index=False, errors="surrogateescape")
    failures = [(name, study.records[name]["reason"]) for name in study.named("failed")]
    drawn = standard.save_plots(target.plots, plots.figures(study.kind, results))
    found = page.Page(study.folder.name, study.kind, study.run.detector.name, results, failures, drawn,
                      installation.command_line(), study_settings(study.run), installation.versions())  # fmt: skip
    with files.atomic_write(target.report) as temporary:
        page.write(temporary, found)
    study.save(results)
    console.print()
    for sentence in found.sentences:
        console.print(printable(sentence))


def score(study: Study, member: Member) -> "Scored":
    """Return what a finished member said about its test files."""
    from tfdetect.data import manifest
    from tfdetect.evaluation import predictions
    from tfdetect.evaluation.protocols import Scored

    artifact = Artifact(study.folder / member.name)
    table = manifest.read_unchecked(artifact.manifest)
    trained_on = int(((table["split"] == "train") & (table["error"] == "")).sum())
    hint = f"{installation.command('evaluate', artifact.folder)} evaluates it again."
    test = files.read_json(artifact.metrics, ("test",), hint)["test"]
    return Scored.of(member.name, member.factors, predictions.read(artifact.predictions), test, trained_on)


def summarise(kind: str, scored: "Sequence[Scored]") -> "tuple[dict[str, Any], pd.DataFrame]":
    """Return the results of a study, and its table of predictions."""
    from tfdetect.evaluation import protocols

    function = {"folds": protocols.across_folds, "seeds": protocols.across_folds, "leave_out": protocols.across_sources,
                "amounts": protocols.across_amounts}[kind]  # fmt: skip
    table = protocols.out_of_fold(scored) if kind == "folds" else protocols.side_by_side(scored)
    rows = [{"name": each.name, **each.factors, "trained_on": each.trained_on,
             **{key: each.metrics[key] for key in ("n_real", "n_fake", "auc", "auc_interval", "accuracy", "balanced_accuracy")}}
            for each in scored]  # fmt: skip
    unseen = {name for each in scored for name in (each.metrics.get("unseen") or {}).get("sources", ())}
    return {**function(scored), "members": rows, "unseen_sources": sorted(unseen)}, table


def search_results(study: Study, search: "Search") -> dict[str, Any]:
    """Return the trials of a search, the best first, and what its best settings reach on the test."""
    from tfdetect.workflow.search import repeat_command

    best = search.best
    artifact = Artifact(study.folder / best)
    run = artifacts.load_config(artifact)
    test = files.read_json(artifact.metrics, ("test",), "delete the folder, and repeat the command.")["test"]
    order = sorted(search.finished.items(), key=lambda item: search.goodness(item[1]), reverse=True)
    failed = [(name, study.records[name]) for name in study.named("failed")]
    trials = [{"name": name, "settings": record["factors"], **record.get("validation", {}), "minutes": record["minutes"],
               "reason": record["reason"] or (f"same as {record['same_as']}" if "same_as" in record else "")}
              for name, record in [*order, *failed]]  # fmt: skip
    return {
        "best": best,
        "monitor": search.monitor,
        "settings": study.records[best]["factors"],
        "command": repeat_command(run),
        "test": {key: test[key] for key in ("auc", "auc_interval", "accuracy", "n_real", "n_fake")},
        "tested": [name for name, record in study.records.items() if record.get("tested")],
        "trials": trials,
        "failed": len(failed),
        "importance": search.importance(),
        "log": [parameter.name for parameter in search.space if not parameter.values and parameter.is_log],
    }

