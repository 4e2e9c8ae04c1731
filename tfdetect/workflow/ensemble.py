"""evaluate, given several runs: all judge the same files, and so does the mean of their probabilities."""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tfdetect import artifact as artifacts
from tfdetect import config
from tfdetect.artifact import Artifact
from tfdetect.detector import ReportExtras
from tfdetect.errors import UserError
from tfdetect.settings import Data, Run
from tfdetect.workflow import dataset, output_paths
from tfdetect.workflow.console import console, import_keras, plural
from tfdetect.workflow.test_files import Evaluate, drop_training_overlap

if TYPE_CHECKING:
    import pandas as pd

    from tfdetect.data.input_pipeline.corruptions import Chain
    from tfdetect.data.prepare.clip_cache import Cache


@dataclass(frozen=True)
class Member:
    """A run, and how it looks at the files that are asked for."""

    artifact: Artifact
    run: Run
    data: Data
    cache: "Cache"


def evaluate(asked: Evaluate) -> None:
    """Read, decode for each run, leave out what any was trained on, score with each, average, write."""
    members = gather(asked)
    import_keras()
    from tfdetect.data.input_pipeline import corruptions
    from tfdetect.data.prepare.decode import usable

    chain = corruptions.parse(asked.data.corrupt)
    target = Artifact(output_paths.evaluation(asked, [*members], chain.slug if chain else ""))
    table, warnings = read(asked, members)
    first = next(iter(members.values()))
    table, left = dataset.separate_excluded(table, first.cache, first.data.workers)
    decoded = {name: decode(name, table, member, left) for name, member in members.items()}
    table, left_out = drop_training_overlap(merge(decoded), *(member.artifact for member in members.values()))
    dataset.print_count(table)
    good = usable(table)["path"]
    if good.empty:
        raise UserError("No file is left to judge: each was used in training one of the runs, or one could not read it.")
    judged = {name: judge(member, decoded[name], good, chain) for name, member in members.items()}
    said = (f"The clips were corrupted before they were judged: {chain}.",) if chain else ()
    write(target, members, table, judged, (*warnings, *left_out, *said))


def gather(asked: Evaluate) -> dict[str, Member]:
    """The runs, each under a name of its own. ValueError where one comes twice or they read folders differently."""
    from tfdetect.evaluation import ensemble

    places = [path.resolve() for path in asked.runs]
    twice = [str(path) for number, path in enumerate(asked.runs) if places[number] in places[:number]]
    if twice:
        raise UserError(f"{twice[0]} was given twice; an ensemble takes different runs.")
    found = [artifacts.find(path) for path in asked.runs]
    runs = [artifacts.load_config(artifact) for artifact in found]
    if asked.data.path and not asked.data.fake and len({run.data.fake for run in runs}) > 1:
        raise UserError("The runs were trained with different --data.fake; name the fake class folders with --data.fake.")
    data = [dataset.for_other_files(asked.data.apply_to(run.data), asked.data.path, asked.data.fake) for run in runs]
    caches = [dataset.cache_for(own, run.detector) for own, run in zip(data, runs, strict=True)]
    caches = [cache if cache.root == asked.data.path else dataset.with_equalisation(cache, own)
              for cache, own in zip(caches, found, strict=True)]  # fmt: skip
    members = map(Member, found, runs, data, caches)
    return dict(zip(ensemble.unique_names([place.name for place in places]), members, strict=True))


def read(asked: Evaluate, members: Mapping[str, Member]) -> "tuple[pd.DataFrame, tuple[str, ...]]":
    """The files to judge and what a reader should know of their choice: those asked for, or the common test files."""
    from tfdetect.data.layouts import detect
    from tfdetect.workflow import test_files

    if asked.data.path is None:
        table, said = common_tests({name: member.artifact for name, member in members.items()})
        return detect.of_sources(table, asked.data.sources), said
    first = next(iter(members.values()))
    return test_files.select_test_files(asked, first.artifact, first.data), ()


def common_tests(runs: Mapping[str, Artifact]) -> "tuple[pd.DataFrame, tuple[str, ...]]":
    """The first run's test files whose content is in the test of every run. ValueError for none, or for two labels."""
    tests = contents(runs)
    pairs = [set(zip(rows["content"], rows["label"], strict=True)) for rows in tests.values()]
    common = set.intersection(*(set(rows["content"]) for rows in tests.values()))
    if not common:
        raise UserError("These runs have no test file in common; name files to judge with --data.path.")
    odd = {content for other in pairs for content, _ in other ^ pairs[0]} & common
    if odd:
        raise UserError(f"The runs do not agree on which test files are fake: {plural(len(odd), 'file')} with another label.")
    table = next(iter(tests.values()))
    table = table[table["content"].isin(common)].drop(columns="content").reset_index(drop=True)
    sizes = " and ".join(f"{len(rows)} of {name}" for name, rows in tests.items())
    text = f"{plural(len(table), 'test file')} {'is' if len(table) == 1 else 'are'} common to all runs ({sizes})."
    console.print(text)
    whole = all(rows["content"].isin(common).all() for rows in tests.values())
    return table, () if whole else (f"{text} Only these are judged.",)


def contents(runs: Mapping[str, Artifact]) -> "dict[str, pd.DataFrame]":
    """Each run's test files, and in the column `content` the hash by which a file is known again."""
    from tfdetect.data import manifest

    raw = {name: manifest.raw(run.manifest) for name, run in runs.items()}
    own = {name: dict(zip(rows["path"], rows["sha"], strict=True)) for name, rows in raw.items()}
    # A file that one run could not even open has no hash there; its path finds that of another run.
    known = {path: sha for shas in own.values() for path, sha in shas.items() if sha}
    tests = {name: manifest.check(rows[rows["split"] == "test"], str(runs[name].manifest)) for name, rows in raw.items()}
    return {name: rows.assign(content=[own[name][path] or known.get(path, path) for path in rows["path"]])
            for name, rows in tests.items()}  # fmt: skip


def decode(name: str, table: "pd.DataFrame", member: Member, left: "pd.DataFrame") -> "pd.DataFrame":
    """The table as this run sees it."""
    console.print(f"{name}:")
    return dataset.decode(table, member.data, member.cache, left)


def merge(decoded: "Mapping[str, pd.DataFrame]") -> "pd.DataFrame":
    """The first run's table, in which a file that any run could not read is a failure."""
    first = next(iter(decoded.values())).copy()
    for column in ("error", "note"):
        texts = zip(*(table[column] for table in decoded.values()), strict=True)
        first[column] = [said(dict(zip(decoded, row, strict=True))) for row in texts]
    shas = zip(*(table["sha"] for table in decoded.values()), strict=True)
    first["sha"] = [next(filter(None, row), "") for row in shas]
    return first


def said(texts: Mapping[str, str]) -> str:
    """What the runs say of a file, with their names where they differ."""
    if len(set(texts.values())) == 1:
        return next(iter(texts.values()))
    return "; ".join(f"{name}: {text}" for name, text in texts.items() if text)


def judge(member: Member, table: "pd.DataFrame", paths: Iterable[str], chain: "Chain") -> "tuple[pd.DataFrame, float]":
    """The run's predictions of these files, corrupted by `chain`, and its own threshold; says what judged, if no SavedModel."""
    from tfdetect.serving.predictor import Predictor
    from tfdetect.workflow.scoring import score

    detector = member.run.detector
    predictor = Predictor(member.artifact, member.cache.spec, detector)
    rows, _ = dataset.add_source_classes(table[table["path"].isin(set(paths))], detector)
    for warning in predictor.warnings:
        console.print(warning)
    return score(predictor, rows, member.cache, chain), predictor.threshold


def write(target: Artifact, members: Mapping[str, Member], table: "pd.DataFrame",
          scored: "Mapping[str, tuple[pd.DataFrame, float]]", warnings: tuple[str, ...]) -> None:
    """Write the report of the mean into `target`, and print how good it and each run are."""
    from tfdetect.evaluation import calibration, ensemble, metrics
    from tfdetect.workflow import results
    from tfdetect.workflow.scoring import clip_loader

    first = next(iter(members.values()))
    held_out = {name: validation_predictions(member.artifact) for name, member in members.items()}
    validation = ensemble.average(held_out, by=["path"])
    threshold, doubt = choose_threshold(validation)
    mean = ensemble.average({name: rows for name, (rows, _) in scored.items()})
    summaries = {name: metrics.summarise(rows, own) for name, (rows, own) in scored.items()}
    added = {"members": summaries} if doubt else {"members": summaries, "validation": metrics.summarise(validation, threshold)}
    rules = {name: member.run.train.threshold for name, member in members.items()}
    pooled = [f"{name}: {warning}" for name, rule in rules.items() for warning in calibration.rule_warnings(rule)]
    compared = ensemble.comparison_table({**summaries, "mean": metrics.summarise(mean, threshold)})
    for name, summary in summaries.items():
        console.print(results.summary_line(name, summary, rules[name]))
    evaluation = results.Evaluation(
        first.run, table, first.data, mean, threshold, "none, 0.5" if doubt else "youden", clip_loader(table, first.cache),
        (*pooled, *warnings, *doubt), added, ReportExtras(tables={"Runs of this ensemble": compared}),
        title=f"the mean probability of {', '.join(members)}",
        settings={name: config.run_to_dict(member.run) for name, member in members.items()},
    )  # fmt: skip
    results.finish(target, evaluation, {"test": "mean"})
    console.print(f"\nReport  {target.report}")


def validation_predictions(artifact: Artifact) -> "pd.DataFrame":
    """The run's validation files as its training judged them, one row a content, whose hash stands for the path."""
    from tfdetect.data import manifest
    from tfdetect.evaluation import predictions

    rows = manifest.raw(artifact.manifest)
    shas = dict(zip(rows["path"], rows["sha"], strict=True))
    files = predictions.read(artifact.predictions)
    files = predictions.by_file(files[files["split"] == "validation"])
    return files.assign(path=[shas.get(path, path) for path in absolute(list(files["path"]), shas)]).drop_duplicates("path")


def absolute(paths: list[str], known: Iterable[str]) -> list[str]:
    """The paths as the run's manifest names them, absolute; predictions.csv has them as they were given to train."""
    own = [path for path in paths if not os.path.isabs(path)]
    if not own:
        return paths
    known, longest = set(known), max(own, key=len)
    roots = [path.removesuffix(longest) for path in known if path.endswith(f"/{longest}")]
    root = next((root for root in roots if all(root + path in known for path in own)), "")
    return [path if os.path.isabs(path) else root + path for path in paths]


def choose_threshold(held: "pd.DataFrame") -> tuple[float, tuple[str, ...]]:
    """The mean's threshold, and a warning where validation cannot give one."""
    from tfdetect.evaluation import ensemble

    threshold = ensemble.fit_threshold(held)
    if threshold is not None:
        return threshold, ()
    return 0.5, (f"The runs have {len(held)} validation files in common, and not both classes among them: the threshold of "
                 "the mean is 0.5, which no data chose.",)  # fmt: skip
