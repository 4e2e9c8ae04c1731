"""What a user sees while work goes on."""

import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from tfdetect.errors import UserError
from tfdetect.files import plural, printable, shell_quote

__all__ = ["console", "devices_line", "embedding", "import_keras", "plural", "printable", "progress"]

if TYPE_CHECKING:
    import types

console = Console(highlight=False, soft_wrap=True, markup=False, emoji=False)  # what is printed is text: a file may be [bold]


def say_command(script: str, *words: object) -> None:
    """A command to go on with, as a shell takes it."""
    console.print(f"  python scripts/{script} {' '.join(map(shell_quote, map(str, words)))}")


class Rate(ProgressColumn):
    """So many a second; nothing within the first, when what was done before is counted."""

    def __init__(self, unit: str):
        super().__init__()
        self.unit = unit

    def render(self, task: Task) -> Text:
        speed = (task.finished_speed or task.speed) if (task.finished_time or task.elapsed or 0) >= 1 else None
        return Text(f"{speed:.1f} {self.unit}/s" if speed else f"- {self.unit}/s")


@contextmanager
def embedding(what: str, total: int) -> Iterator[Callable[..., None]]:
    """A bar with images/s and time left; yields what to call with `advance=`. What was done before counts for no speed."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), Rate("images"), TimeRemainingColumn())
    with Progress(*columns, console=console) as bar:
        task = bar.add_task(what, total=total)
        yield lambda advance: bar.update(task, advance=advance)


@contextmanager
def progress(what: str, total: int, unit: str = "files") -> Iterator[Callable[..., None]]:
    """A bar with files/s, failures so far and time left; yields what to call with the result of each file, or, where several
    come at once, with `advance=`."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), Rate(unit),
               TextColumn("{task.fields[failures]} failed"), TimeRemainingColumn())  # fmt: skip
    with Progress(*columns, console=console) as bar:
        task = bar.add_task(what, total=total, failures=0)
        failures = 0

        def step(result: dict[str, Any] | None = None, advance: float = 1) -> None:
            nonlocal failures
            failures += bool(result and result.get("error"))
            bar.update(task, advance=advance, failures=failures)

        yield step


def import_keras() -> "types.ModuleType":
    """Import Keras and TensorFlow, whose start-up chatter no setting silences; if that fails, it is shown. ValueError where the
    backend that KERAS_BACKEND asks for is not installed."""
    return _imported()[0]


@cache
def _imported() -> "tuple[types.ModuleType, str]":
    """Keras, and what was written to stderr meanwhile."""
    with _quiet() as chatter:
        try:
            import keras

            import tfdetect.data.media.tf_decode  # noqa: F401  (TensorFlow, which reads the data on every backend)
        except ModuleNotFoundError as error:
            if error.name == (name := os.environ.get("KERAS_BACKEND")):
                raise UserError(f"KERAS_BACKEND={name} needs {name}, which is not installed: pip install {name}.") from error
            raise
        return keras, chatter()


@contextmanager
def _quiet() -> Iterator[Callable[[], str]]:
    """Nothing that libraries write to stderr is seen, unless they fail; yields what tells what it was."""
    sys.stderr.flush()
    shown = os.dup(2)
    with tempfile.TemporaryFile() as file:

        def chatter() -> str:
            return os.pread(file.fileno(), os.fstat(file.fileno()).st_size, 0).decode(errors="replace")

        os.dup2(file.fileno(), 2)
        try:
            yield chatter
        except UserError:
            raise
        except BaseException:
            os.write(shown, chatter().encode())
            raise
        finally:
            os.dup2(shown, 2)
            os.close(shown)


def devices_line(precision: str) -> str:
    """What is computed on, for the start of a verb; with a second line where a GPU is there and not used."""
    _, imported = _imported()
    with _quiet() as chatter:
        from tfdetect.training import devices

        devices.gpus()  # looked for here, where what the libraries say of it is heard
        return devices.describe(precision, imported + chatter())
