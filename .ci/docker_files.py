"""Read the Dockerfile for .ci/docker: copy the files that COPY takes, and write its last RUN and its CMD.

`docker_files.py FOLDER` reads the names of the repository's files, separated by NUL, and writes FOLDER/app/, FOLDER/run.sh and
FOLDER/command, whose words are separated by NUL, too.
"""

import fnmatch
import json
import shutil
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]


def instructions(text: str) -> list[tuple[str, str]]:
    """Return the instructions of a Dockerfile as (KEYWORD, arguments)."""
    lines = text.replace("\\\n", " ").splitlines()
    words = [line.split(None, 1) for line in lines if line.strip() and not line.lstrip().startswith("#")]
    return [(keyword.upper(), arguments) for keyword, arguments in words]


def copied(names: Iterable[str], ignored: str) -> Iterator[str]:
    """Yield the names that a .dockerignore leaves; the last of its patterns that matches a name, or a folder of it, decides."""
    patterns = [line for line in ignored.splitlines() if line and not line.startswith("#")]
    for name in names:
        places = [name, *map(str, Path(name).parents)]
        keep = True
        for pattern in patterns:
            bare = pattern.removeprefix("!").removeprefix("**/")
            found = [*places, *(Path(place).name for place in places)] if "**/" in pattern else places
            if any(fnmatch.fnmatchcase(place, bare) for place in found):
                keep = pattern.startswith("!")
        if keep:
            yield name


def main() -> None:
    """Write what .ci/docker needs."""
    folder = Path(sys.argv[1])
    names = [name for name in sys.stdin.read().split("\0") if name and (ROOT / name).exists()]
    for name in copied(names, (ROOT / ".dockerignore").read_text()):
        (folder / "app" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, folder / "app" / name)
    steps = instructions((ROOT / "Dockerfile").read_text())
    (folder / "run.sh").write_text([arguments for keyword, arguments in steps if keyword == "RUN"][-1])
    (folder / "command").write_text("\0".join(json.loads([arguments for keyword, arguments in steps if keyword == "CMD"][-1])))


if __name__ == "__main__":
    main()
