"""Which files train, validate and test: the split by group, and the sources of fakes that each side has."""

from dataclasses import replace
from typing import TYPE_CHECKING

from tfdetect import artifact as artifacts
from tfdetect.artifact import Artifact
from tfdetect.settings import Data, Run
from tfdetect.split_settings import AUTO, NONE, parse_shares
from tfdetect.workflow.console import console, plural, printable

if TYPE_CHECKING:
    import pandas as pd


def assign(table: "pd.DataFrame", run: Run) -> "tuple[pd.DataFrame, Run]":
    """Return the manifest with splits, without the fakes that their side does not use and the groups that --data.amount leaves
    out; and the run with the source that --data.hold_out auto chose. Print what was left out. Raises UserError as
    `folds.fold_numbers`, `manifest.split` and `held_out.drop` do."""
    from tfdetect.data import folds

    table, run = hold_out(restrict_sources(split(take_fold(table, run.data), run.data), run.data), run)
    return folds.take_amount(table, run.data.amount), run


def take_fold(table: "pd.DataFrame", data: Data) -> "pd.DataFrame":
    """Return the manifest with the fold that is to be tested as its test split, if there are folds, and no other split."""
    from tfdetect.data import folds

    if data.fold is None:
        return table
    if (table["split"] != "").any():
        console.print(f"The data set has splits of its own, which --data.folds {data.folds} ignores.")
    return folds.with_fold_as_test(table, data.folds, data.fold)


def split(table: "pd.DataFrame", data: Data) -> "pd.DataFrame":
    """Return the manifest with a split for each file; print how far --data.split had an effect if the data have their own."""
    from tfdetect.data import manifest

    done = manifest.split(table, parse_shares(data.split))
    if data.split != Data.split and (table["split"] != "").any() and data.fold is None:
        changed = int((done["split"] != table["split"]).sum())
        effect = f"assigned {changed:,} of {plural(len(table), 'file')}" if changed else "has no effect"
        console.print(f"The data set has splits of its own, which are kept: --data.split {data.split} {effect}.")
    return done


def restrict_sources(table: "pd.DataFrame", data: Data) -> "pd.DataFrame":
    """Return the table without the fakes that --data.train_sources and --data.test_sources exclude; print how many those are."""
    from tfdetect.data import manifest

    kept = manifest.restrict_sources(table, data.train_sources, data.test_sources)
    excluded = table["split"].value_counts() - kept["split"].value_counts().reindex(table["split"].unique(), fill_value=0)
    if excluded.sum():
        counts = ", ".join(f"{excluded.get(name, 0)} of {name}" for name in ("train", "validation", "test"))
        console.print(f"Left out as fakes of other sources: {counts}. Every group stays in its split.")
        kept.attrs["left_out"] = {**table.attrs.get("left_out", {}), "other sources in a split": int(excluded.sum())}
    return kept


def hold_out(table: "pd.DataFrame", run: Run) -> "tuple[pd.DataFrame, Run]":
    """Return the table without the training and validation fakes of the sources to hold out, and the run, whose --data.hold_out
    auto is followed by what it chose; print one line about them."""
    from tfdetect.data import held_out

    asked = run.data.hold_out
    names = resolve_auto(table, run) if asked[0] == AUTO else () if asked == (NONE,) else asked
    if asked[0] == AUTO:
        run = replace(run, data=replace(run.data, hold_out=(AUTO, *(names or (NONE,)))))
    if not names:
        return table, run
    kept, found = held_out.drop(table, names)
    count, tested = len(table) - len(kept), int(((kept["label"] == 1) & kept["source"].isin(found)).sum())
    sources = len(held_out.named_sources(table[table["label"] == 1]))
    why = f", the middle-sized of {sources} sources" if asked[0] == AUTO else ""
    hint = "; to train on them: --data.hold_out none" if asked[0] == AUTO else ""
    console.print(f"Held out of training and validation: {plural(count, 'fake')} of {printable(', '.join(found))}{why}. The test "
                  f"has {tested:,}, on which the detector meets fakes of {'sources' if len(found) > 1 else 'a source'} it never "
                  f"saw{hint}.")  # fmt: skip
    kept.attrs = {**table.attrs, "left_out": {**table.attrs.get("left_out", {}), "fakes held out of training": count}}
    return kept, run


def resolve_auto(table: "pd.DataFrame", run: Run) -> tuple[str, ...]:
    """Return the source that --data.hold_out auto stands for, () for none: what the run chose before, else a new choice.

    Nothing is held out where somebody has chosen the sources of training and test, where the detector names the source of a
    fake, and where training makes all of its fakes itself.
    """
    from tfdetect.data import held_out

    data, chosen = run.data, run.data.hold_out[1:]
    known = set(table.loc[table["label"] == 1, "source"])
    if chosen and (chosen == (NONE,) or known.issuperset(chosen)):
        return () if chosen == (NONE,) else chosen
    makes_all = data.make_fakes and not data.keep_fakes
    if data.train_sources or data.test_sources or run.detector.attribute != "none" or makes_all:
        return ()
    return tuple(filter(None, [held_out.choose(table)]))


def keep_choice(run: Run, artifact: Artifact) -> Run:
    """Return the settings of a run that is resumed, with what --data.hold_out auto chose when it began."""
    return replace(run, data=replace(run.data, hold_out=artifacts.load_config(artifact).data.hold_out))
