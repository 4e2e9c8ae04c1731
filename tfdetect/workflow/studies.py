"""Plan and train a study: the runs that its flags ask for, and the report of all."""

import os
import re
from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from tfdetect import artifact as artifacts
from tfdetect.artifact import Artifact
from tfdetect.errors import UserError
from tfdetect.settings import Data, Run
from tfdetect.workflow import dataset, protocol_results, search
from tfdetect.workflow.console import console, plural, printable
from tfdetect.workflow.protocols import Member, Study, Trainer, open_study

if TYPE_CHECKING:
    import pandas as pd


def run_study(run: Run, train: Trainer, try_out: Trainer) -> Study:
    """Train the members of the study that the settings ask for, write its report and return it.

    `train` trains and evaluates a run; `try_out`, for a search, trains it without scoring its test files and returns the
    validation figures. Raises UserError if the study cannot be planned, or if all members failed.
    """
    study = open_study(run)
    searching = search.Search(study) if study.kind == "search" else None
    table = dataset.load_dataset(run.data, run.detector)  # shows what is wrong with it before anything is trained
    study.require_same_files(table)
    members = [] if searching else plan(study, table)
    is_new = not study.folder.exists()
    study.folder.mkdir(parents=True, exist_ok=True)
    with artifacts.lock(Artifact(study.folder)):
        number = plural(searching.total, "trial") if searching else plural(len(members), "training")
        console.print(printable(f"Study {study.folder}: {number}"))
        try:
            if searching:
                searching.run(train, try_out)
            else:
                study.train(members, train, len(members))
        except UserError:
            if is_new and os.listdir(study.folder) == [study.file.name]:  # nothing but failures before the first training
                study.file.unlink()
                study.folder.rmdir()
            raise
        protocol_results.write(study, members, searching)
    return study


def plan(study: Study, table: "pd.DataFrame") -> list[Member]:
    """Return the members of a study over folds, sources, amounts or seeds: all of the first seed, then of the next.

    `table` is the manifest. Raises UserError if it has too few groups for the folds, or too few sources of fakes.
    """
    from tfdetect.data import folds

    run, data = study.run, replace(study.run.data, leave_out="none", amounts=())
    parts: list[tuple[str, dict[str, Any], Data]]
    if study.kind == "folds":
        folds.fold_numbers(table, data.folds)
        parts = [(f"fold-{fold}", {"fold": fold}, replace(data, fold=fold)) for fold in range(1, data.folds + 1)]
    elif study.kind == "leave_out":
        names = unique_slugs(sources := list_sources(table))
        parts = [(f"without-{names[source]}", {"left_out": source}, replace(data, hold_out=(source,))) for source in sources]
    elif study.kind == "amounts":
        parts = [(f"amount-{share:g}", {"amount": share}, replace(data, amount=share)) for share in sorted(run.data.amounts)]
    else:
        parts = [("", {}, data)]
    members = []
    for seed in range(run.train.seed, run.train.seed + run.train.seeds):
        suffix = f"seed-{seed}" if run.train.seeds > 1 else ""
        for name, factors, part in parts:
            name = "-".join(filter(None, [name, suffix]))
            members.append(Member(name, single_run(study, name, part, seed), {**factors, "seed": seed}))
    return members


def single_run(study: Study, name: str, data: Data, seed: int) -> Run:
    """Return a run of the study that asks for no study itself."""
    train = replace(study.run.train, seed=seed, seeds=1)
    return replace(study.run, data=data, train=train, out=study.folder, name=name, search="")


def list_sources(table: "pd.DataFrame") -> list[str]:
    """Return the sources of fakes that can be left out. Raises UserError if there are fewer than two."""
    from tfdetect.data import held_out

    sources = sorted(held_out.named_sources(table[table["label"] == 1]))
    if len(sources) < 2:
        raise UserError("--data.leave_out each needs fakes of two sources at least, each in two groups or more, but found "
                        f"{', '.join(sources) or 'none'}. The sources are class folders, or the column source of a manifest.")
    return sources


def unique_slugs(names: Iterable[str]) -> dict[str, str]:
    """Return a plain folder name for each of these names."""
    out: dict[str, str] = {}
    for name in names:
        slug = re.sub(r"[^\w.-]+", "_", name)
        taken = sum(other.lower() == slug.lower() for other in out.values())
        out[name] = f"{slug}-{len(out) + 1}" if taken else slug
    return out
