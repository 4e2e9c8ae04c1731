"""The terminal: printed lines, progress bars, and quiet imports of noisy libraries."""

import importlib.util
import json
import logging
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from functools import cache, partial
from typing import TYPE_CHECKING, Any

from rich.cells import cell_len
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from tfdetect import machine
from tfdetect.errors import UserError
from tfdetect.files import plural, printable
from tfdetect.installation import command

if TYPE_CHECKING:
    import types

    import pandas as pd


def make_console() -> Console:
    """Return the console. In a notebook without ipywidgets a progress bar is printed once, when it is full."""
    settings: dict[str, Any] = {"highlight": False, "soft_wrap": True, "markup": False, "emoji": False}  # [bold] is a file name
    found = Console(**settings)
    if found.is_jupyter and not importlib.util.find_spec("ipywidgets"):
        return Console(**settings, force_jupyter=False, force_terminal=False)
    return found


console = make_console()
BACKENDS = ("tensorflow", "torch", "jax")  # of Keras


def print_note(text: str) -> None:
    """Print a line on stderr, apart from the results; in a notebook on stdout, since it shows stderr as an error."""
    print(text, file=sys.stdout if "ipykernel" in sys.modules else sys.stderr)


def print_command(verb: str, *words: object) -> None:
    """Print the command line of a verb, quoted for a shell."""
    console.print(f"  {command(verb, *words)}")


class Rate(ProgressColumn):
    """Speed in units per second; none in the first second, because it includes items that were done before."""

    def __init__(self, unit: str):
        super().__init__()
        self.unit = unit

    def render(self, task: Task) -> Text:
        speed = (task.finished_speed or task.speed) if (task.finished_time or task.elapsed or 0) >= 1 else None
        return Text(f"{speed:.1f} {self.unit}/s" if speed else f"- {self.unit}/s")


Listener = Callable[[str, float, float], None]  # (title, units done, units in total)
_listener: ContextVar[Listener | None] = ContextVar("listener", default=None)


@contextmanager
def reporting_to(listener: Listener) -> Iterator[None]:
    """Call `listener` instead of showing progress bars in this thread, which may not be the only one that shows some."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


@contextmanager
def progress(title: str, total: int, unit: str = "files", may_fail: bool = True) -> Iterator[Callable[..., None]]:
    """Show a progress bar with speed, time left, and failures if items `may_fail`; yield a function to call with the result of
    each file, or with `advance=` for several at once."""
    if listener := _listener.get():
        done = 0.0

        def report(result: dict[str, Any] | None = None, advance: float = 1) -> None:
            nonlocal done
            done += advance
            listener(title, done, total)

        report(advance=0)
        yield report
        return
    failed = [TextColumn("{task.fields[failures]} failed")] if may_fail else []
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), Rate(unit), *failed, TimeRemainingColumn())
    with Progress(*columns, console=console) as bar:
        task = bar.add_task(title, total=total, failures=0)
        failures = 0

        def step(result: dict[str, Any] | None = None, advance: float = 1) -> None:
            nonlocal failures
            failures += bool(result and result.get("error"))
            bar.update(task, advance=advance, failures=failures)

        yield step


feature_progress = partial(progress, unit="images", may_fail=False)


def import_keras() -> "types.ModuleType":
    """Import Keras and TensorFlow without their start-up messages, which no setting silences; show them if the import fails.

    Raises UserError if the backend in KERAS_BACKEND is unknown or not installed.
    """
    return _imported()[0]


@cache
def _imported() -> "tuple[types.ModuleType, str]":
    """Return Keras, and what the import wrote to stderr."""
    if (backend := os.environ.get("KERAS_BACKEND") or BACKENDS[0]) not in BACKENDS:
        raise UserError(f"KERAS_BACKEND must be one of {', '.join(BACKENDS)}, got {backend!r}.")
    with _quiet() as messages:
        try:
            import keras

            import tfdetect.data.media.tf_decode  # noqa: F401  (imports TensorFlow, which reads the data on every backend)
        except ModuleNotFoundError as error:
            if (name := error.name) not in BACKENDS[1:]:
                raise
            raise UserError(f"KERAS_BACKEND={name} needs {name}, which is not installed: pip install {name}, or set "
                            f"KERAS_BACKEND={BACKENDS[0]} and restart Python.") from error  # fmt: skip
        logging.getLogger("tensorflow").setLevel(logging.WARNING)  # in notebooks it also prints what is informational
        return keras, messages()


@contextmanager
def _quiet() -> Iterator[Callable[[], str]]:
    """Hide what libraries write to stderr, unless they fail; yield a function that returns it. One thread at a time, since all
    share stderr."""
    with machine.stderr_lock, tempfile.TemporaryFile() as file:
        sys.stderr.flush()
        stderr = os.dup(2)

        def messages() -> str:
            return os.pread(file.fileno(), os.fstat(file.fileno()).st_size, 0).decode(errors="replace")

        os.dup2(file.fileno(), 2)
        try:
            yield messages
        except UserError:
            raise
        except BaseException:
            os.write(stderr, messages().encode())
            raise
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)


def devices_line(precision: str) -> str:
    """Return a line that names the devices, with a second one if there is a GPU that is not used."""
    messages = initialise_devices()
    from tfdetect.training import devices

    return devices.describe(precision, messages)


def served_devices_line() -> str:
    """Import TensorFlow without Keras and without its messages, and return `devices_line` for a SavedModel that it serves."""
    with _quiet() as messages:
        from tfdetect.serving.saved_model import import_tensorflow

        import_tensorflow()
        from tfdetect.training import devices

        devices.gpus("tensorflow")
        written = messages()
    logging.getLogger("tensorflow").setLevel(logging.WARNING)
    return devices.describe("", written, served=True)


def initialise_devices() -> str:
    """Let the libraries find the GPUs, and return what they wrote to stderr since Keras was imported."""
    _, imported = _imported()
    with _quiet() as messages:
        from tfdetect.training import devices

        devices.gpus()
        return imported + messages()


def confirm(question: str, flag: str) -> bool:
    """Ask a question that is answered with y for yes. Raises UserError without a terminal, naming the flag that answers it."""
    if not sys.stdin or not sys.stdin.isatty():
        raise UserError(f"The input is not a terminal, so nobody can confirm: add {flag} to delete without asking. Nothing was "
                        "deleted.")
    with suppress(EOFError):
        return console.input(f"{question} [y/N] ", markup=False).strip().lower() in ("y", "yes")
    return False


def print_columns(header: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[str] = ()) -> None:
    """Print a table as plain text, a line per row, for the eye and for grep; the columns named in `right` are right-aligned."""
    lines = [list(header), *([printable(cell) for cell in row] for row in rows)]
    widths = [max(map(cell_len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        cells = [" " * (width - cell_len(cell)) + cell if name in right else cell + " " * (width - cell_len(cell))
                 for name, cell, width in zip(header, line, widths, strict=True)]  # fmt: skip
        console.print("  ".join(cells).rstrip())


def print_records(table: "pd.DataFrame", as_csv: bool) -> None:
    """Print a table for programs: as CSV, or as one JSON object per line."""
    if as_csv:
        print(table.to_csv(index=False), end="")
        return
    for row in table.astype(object).where(table.notna(), None).to_dict("records"):  # JSON has no NaN
        print(json.dumps(row, default=lambda date: date.isoformat()))  # to_json fails for names that are not UTF-8


@contextmanager
def counter(title: str, noun: str) -> Iterator[Callable[[int], None]]:
    """Show a running count while a number of things is not known in advance; yield a function to call with how many more."""
    with console.status(f"{title} ...") as status:
        done = 0

        def step(number: int = 1) -> None:
            nonlocal done
            done += number
            status.update(f"{title}: {plural(done, noun)}")

        yield step
