"""Where tfdetect runs, a checkout or an installed package: the commands, recipes and pages that its messages name."""

import sys
from pathlib import Path

from tfdetect.files import shell_quote

PACKAGE = Path(__file__).resolve().parent


def folder(name: str) -> Path:
    """Return a top-level folder of the repository, `recipes` or `docs`, which an installed package holds inside itself."""
    return next((found for found in (PACKAGE / name, PACKAGE.parent / name) if found.is_dir()), PACKAGE / name)


def page(name: str) -> str:
    """Return the path of a page of docs/, relative if the current folder contains it."""
    path, here = folder("docs") / name, Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)


def command(verb: str, *words: object) -> str:
    """Return the command that runs a verb with these words, quoted for a shell.

    It is the verb's script if this process is one of the checkout's scripts, so that it works without an installation, and
    `tfdetect VERB` otherwise.
    """
    script = Path(sys.argv[0])
    is_script = script.suffix == ".py" and script.resolve().parent == PACKAGE.parent / "scripts"
    program = ["python", script.with_name(f"{verb}.py")] if is_script else ["tfdetect", verb]
    return " ".join(shell_quote(str(word)) for word in (*program, *words))
