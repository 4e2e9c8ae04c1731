"""`tfdetect VERB ...`: finds the verb, and turns what goes wrong into one sentence and an exit code."""

import contextlib
import difflib
import errno
import importlib
import io
import os
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence

from tfdetect import __version__
from tfdetect.errors import UserError

VERBS = {
    "sample": "write the embedded data set",
    "manifest": "a table of a folder's files, to fill in",
    "audit": "what a data set is made of, what leaks, which shortcut tells the label",
    "prepare": "decode a data set once, into a folder that is ready for training",
    "train": "files -> a judged, exported detector",
    "reproduce": "run a published experiment, its row next to ours",
    "evaluate": "judge a run again, or on another data set",
    "explain": "where in a file a detector sees what it says",
    "predict": "verdicts on files and folders",
    "export": "write the SavedModel anew",
}
AFTER_INTERRUPT = {"explain": "begins anew", "predict": "begins anew", "export": "begins anew",
        "evaluate": "decodes only what is not decoded yet, then judges anew"}  # fmt: skip
EXIT_BUG = 70  # exit code of an error that nobody foresaw: EX_SOFTWARE of sysexits.h
EXIT_CODES = ("Exit codes: 0 done, 1 some files failed, 2 a mistake that the message says how to mend,\n"
         "70 a bug, whose traceback is in the log file that is named, 130 interrupted.")  # fmt: skip
USAGE = "tfdetect VERB ...\n\n" + "\n".join(f"  {name:10}{what}" for name, what in VERBS.items())


def main(argv: Sequence[str] | None = None) -> int:
    """The installed command. Returns the exit code: 0 done, 1 some files failed, 2 not done, 70 a bug, 130 interrupted."""
    argv = list(sys.argv[1:] if argv is None else argv)
    if not argv or argv[0] in ("-h", "--help"):
        print(f"{USAGE}\n\n`tfdetect VERB --help` says more. {EXIT_CODES}")
        return 0 if argv else 2
    if argv[0] not in VERBS:
        near = difflib.get_close_matches(argv[0], VERBS, n=1)
        hint = f" Perhaps you meant {near[0]}." if near else ""
        print(f"tfdetect: there is no verb {argv[0]!r}.{hint} Verbs: {', '.join(VERBS)}.", file=sys.stderr)
        return 2
    return run_verb(argv[0], argv[1:])


def run_verb(verb: str, argv: Sequence[str]) -> int:
    """Run one verb. An error becomes one sentence, and one that nobody foresaw a log file besides; TFDETECT_DEBUG=1 raises it."""
    if sys.platform == "win32":
        print("tfdetect runs on Linux and macOS; on Windows, run it inside WSL 2.", file=sys.stderr)
        return 2
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # before TensorFlow is imported anywhere
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    for stream in (sys.stdout, sys.stderr):  # a file's name need not be text in the terminal's encoding
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        return int(importlib.import_module(f"tfdetect.verbs.{verb}").main(list(argv)) or 0)
    except BrokenPipeError:  # `... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except KeyboardInterrupt:
        print(f"\ntfdetect {verb}: interrupted; the same command {AFTER_INTERRUPT.get(verb, 'goes on from here')}.", file=sys.stderr)
        return 130
    except Exception as error:
        if os.environ.get("TFDETECT_DEBUG"):
            raise
        if is_expected(error):
            print(f"tfdetect {verb}: {printable(format_error(error))}", file=sys.stderr)
            return 2
        what, where = printable(f"{type(error).__name__}: {format_error(error)}".rstrip(": .")), write_crash_log(verb, argv)
        print(f"tfdetect {verb}: a bug in tfdetect or a library that it uses ({what}). Its traceback is in {where}; please "
              "report it with that file.", file=sys.stderr)  # fmt: skip
        return EXIT_BUG


def write_crash_log(verb: str, argv: Sequence[str]) -> str:
    """Write the error that is being handled to a file of its own, here or where temporary files go; its path."""
    text = f"tfdetect {__version__}, Python {sys.version}\n{sys.platform}\n{[verb, *argv]}\n\n{traceback.format_exc()}"
    name = f"tfdetect-error-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.log"
    for folder in (os.getcwd, tempfile.gettempdir):  # this one may be gone, or not be ours to write to
        with contextlib.suppress(OSError):
            path = os.path.join(folder(), name)
            with open(path, "x", encoding="utf-8", errors="backslashreplace") as file:
                file.write(text)
            return path
    sys.stderr.write(text)
    return "the lines above"


def printable(text: str) -> str:
    """As files.printable, which need not be imported for --help."""
    from tfdetect import files

    return files.printable(text)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory, of the machine or of a GPU, ran out. TensorFlow's error is known by name: it may not be imported."""
    return isinstance(error, MemoryError) or type(error).__name__ == "ResourceExhaustedError"


def is_expected(error: BaseException) -> bool:
    """Whether it is a user's or the machine's error, and not the program's."""
    return isinstance(error, UserError | OSError) or is_out_of_memory(error)


def format_error(error: BaseException) -> str:
    """What a user needs to know of an error, on one line."""
    if is_out_of_memory(error):
        if "No space left" in str(error):
            return "the disk is full; make room, and the same command goes on."
        return "out of memory; a smaller --train.batch, --data.size or --data.frames needs less."
    if isinstance(error, OSError) and error.strerror:
        if error.errno == errno.ENOSPC:
            return f"the disk is full ({error.filename or 'no file named'}); make room, and the same command goes on."
        return f"{error.strerror}: {error.filename}."
    return " ".join(str(error).split())


if __name__ == "__main__":
    sys.exit(main())
