"""score: ask a server for verdicts on images and videos."""

import dataclasses
import json
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import tyro

from tfdetect import config
from tfdetect.errors import UserError
from tfdetect.serving.verdict import Verdict
from tfdetect.verbs.predict import summarise
from tfdetect.workflow.console import plural, print_columns, print_note, printable
from tfdetect.workflow.verdicts import HEADER, FileList, format_verdict

if TYPE_CHECKING:
    from tfdetect.answers import Finding, LoggedVerdict, ScoredFile
    from tfdetect.client import Client

NOTE_SECONDS = 5.0  # between two lines about a job


@dataclass(frozen=True)
class Score:
    """Print the verdict of each model of a server on each image and video. Exit code 1 if any file failed."""

    url: tyro.conf.Positional[str]
    """Address of the server that `serve` printed, such as http://localhost:8501."""
    files: tyro.conf.Positional[tuple[Path, ...]] = ()
    """Images, videos, folders of them, and tables (CSV, .xlsx, Parquet) with a column path; with --lookup also SHA-256 hashes."""
    models: tuple[str, ...] = ()
    """Names of the models to ask; by default all."""
    json: bool = False
    """One JSON object per line and model: those of predict --json, and model, version, threshold and sha256."""
    token: str | None = None
    """Token for a server that needs one; the environment variable TFDETECT_TOKEN keeps it out of the list of processes."""
    lookup: bool = False
    """Send nothing but the SHA-256 of each file, and print what the server's log has about it (docs/log.md)."""
    verify: bool = False
    """Print whether the rows of the server's log are still as they were written, and exit with 1 if not."""
    chain: str = ""
    """With --verify: the hash of the last row that an earlier --verify printed; that row must still be there."""

    def __post_init__(self) -> None:
        if self.lookup and self.models:
            raise UserError("--lookup prints what all models found earlier: omit --models.")
        if self.verify and (self.files or self.lookup or self.models):
            raise UserError("--verify is about the whole log: give the address of the server alone.")
        if self.chain and not self.verify:
            raise UserError("--chain is checked by --verify: give both.")


def main(argv: Sequence[str]) -> int:
    """Parse the flags, find the files, and print each verdict as soon as it comes."""
    args = config.parse_flags(Score, argv, "score")
    from tfdetect.client import Client

    with Client(args.url, args.token, noting(time.monotonic)) as client:
        if args.verify:
            return verify_log(client, args.chain)
        return look_up(client, args) if args.lookup else print_verdicts(client, FileList(args.files), args)


def noting(clock: Callable[[], float]) -> Callable[[str, float, float | None], None]:
    """Return what prints how far a job is, at most every few seconds."""
    last = clock()

    def show(stage: str, done: float, total: float | None) -> None:
        nonlocal last
        if clock() >= last + NOTE_SECONDS:
            last = clock()
            print_note(f"{printable(stage)}{f', {done:g} of {total:g}' if total else ''} ...")

    return show


def print_verdicts(client: "Client", paths: FileList, args: Score) -> int:
    """Print the verdicts on all files, and which probabilities are called fake; return the exit code."""
    served = {model.name: model for model in client.models()}
    failed, several = 0, len(args.models or served) > 1
    models: dict[str, Finding] = {}
    if not args.json:
        print(HEADER)
    for file in client.score_each(paths, args.models):
        failed += file.error is not None
        models |= {f"{each.model}, version {each.version}": each for each in file.findings}
        for line in as_json(file) if args.json else as_table(file, several):
            print(line, flush=True)
    if not args.json:
        print(f"{summarise(paths, failed)}.", *(describe(*item) for item in models.items()))
    for name in sorted({each.model for each in models.values()} & set(served)):
        for caveat in served[name].caveats:
            print_note(f"{printable(name)}: {printable(caveat)}")
    return 1 if failed else 0


def as_table(file: "ScoredFile", several: bool) -> Iterable[str]:
    """Yield a line for each model, or one with the error."""
    if file.error is not None:
        yield format_verdict(Verdict(file.path, error=file.error))
    for each in file.findings:
        yield format_verdict(each.verdict) + f"  by {printable(each.model)}" * several


def as_json(file: "ScoredFile") -> Iterable[str]:
    """Yield a JSON object for each model, or one with the error."""
    if file.error is not None:
        yield json.dumps({**dataclasses.asdict(Verdict(file.path, error=file.error)), "model": None, "version": None,
                          "threshold": None, "sha256": file.sha256 or None, "caveats": ()})  # fmt: skip
    for each in file.findings:
        yield json.dumps({**dataclasses.asdict(each.verdict), "model": each.model, "version": each.version,
                          "threshold": each.threshold, "sha256": file.sha256, "caveats": each.caveats})  # fmt: skip


def describe(name: str, found: "Finding") -> str:
    """Return in a sentence which files a model calls fake."""
    band = f", inconclusive from {found.band[0]:.3f} to {found.band[1]:.3f}" if found.band else ""
    return f"{printable(name)}: called fake from a probability of {found.threshold:.3f}{band}."


def look_up(client: "Client", args: Score) -> int:
    """Print what the log has about files and hashes; return 1 if it has nothing about one of them."""
    from tfdetect.client import SHA256

    hashes = [path for path in args.files if SHA256.fullmatch(str(path)) and not path.exists()]
    files = [path for path in args.files if path not in hashes]
    found = {str(path): client.lookup(path) for path in (*hashes, *(FileList(files) if files or not hashes else ()))}
    if args.json:
        for name, rows in found.items():
            for row in rows:
                print(json.dumps({"path": name, **dataclasses.asdict(row)}))
    else:
        print_columns(("time", "verdict", "probability", "model", "version", "who", "file"),
                      [cells(name, row) for name, rows in found.items() for row in rows])  # fmt: skip
        unknown = [name for name, rows in found.items() if not rows]
        print(f"The log has {plural(sum(map(len, found.values())), 'row')} about {plural(len(found), 'file')}; nothing about "
              f"{len(unknown)}{': ' if unknown else ''}{', '.join(map(printable, unknown))}.")  # fmt: skip
    return 0 if all(found.values()) else 1


def cells(name: str, row: "LoggedVerdict") -> tuple[str, ...]:
    """Return a row of the log as cells of the table."""
    probability = "" if row.probability is None else f"{row.probability:.3f}"
    return row.time, row.verdict, probability, row.model, str(row.version), row.who, name


def verify_log(client: "Client", chain: str) -> int:
    """Print whether the log is as it was written; return the exit code."""
    found = client.check_log(chain)
    if found.known is False:
        print(f"The log was changed: the row with the hash {chain} is gone, or it is another log.")
    elif found.first_changed is None:
        print(f"The log is as it was written: {plural(found.rows, 'row')}. Keep this hash of the last row: {found.chain}")
        return 0
    else:
        print(f"The log was changed: row {found.first_changed} does not follow from those before it.")
    return 1
