"""The command `tfdetect VERB ...`: runs a verb and turns an error into one sentence and an exit code."""

import atexit
import contextlib
import errno
import gc
import importlib
import io
import os
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence

from tfdetect import __version__, plugins
from tfdetect.errors import UserError, is_out_of_memory, suggestion
from tfdetect.workflow import startup

VERBS = {
    "sample": "generate the embedded sample data set",
    "manifest": "write a table of a folder's files, to be completed by hand",
    "audit": "summarise a data set, and find leaks and shortcuts in it",
    "prepare": "decode a data set once, ready for training",
    "train": "train, evaluate and export a detector",
    "reproduce": "repeat a published experiment and compare the results",
    "evaluate": "evaluate a run again, or on another data set",
    "calibrate": "fit the verdicts of a run to files of your own",
    "explain": "show which regions drive a prediction",
    "predict": "predict whether files are real or fake",
    "origin": "show what files say of their own origin: camera, programs, generators",
    "export": "re-export the SavedModel",
    "serve": "answer requests over HTTP, with a page for people and TensorFlow Serving's REST contract",
    "score": "ask a server for the verdicts on files",
    "runs": "list runs with their results, and delete runs",
    "cache": "show what takes space in the cache, and delete what is not needed",
    "doctor": "check the installation and this machine, for a bug report",
}
AFTER_INTERRUPT = {"explain": "starts over", "predict": "starts over, or with --out resumes where it stopped",
                   "origin": "starts over", "export": "starts over", "calibrate": "starts over", "runs": "starts over",
                   "serve": "starts over", "score": "starts over", "cache": "starts over", "doctor": "starts over",
                   "evaluate": "decodes only the remaining files, then evaluates all of them"}  # fmt: skip
EXIT_BUG = 70  # EX_SOFTWARE of sysexits.h
RARE_COLLECTIONS = (10_000, 10, 10)  # libraries make millions of objects that stay; by default a tenth of the time goes there
HELP = f"""usage: tfdetect VERB ...

{chr(10).join(f"  {name:11}{text}" for name, text in VERBS.items())}

`tfdetect VERB --help` lists the options of a verb. All verbs accept --plugin FILE.py, a file with detectors, layouts or
corruptions.

exit codes:
  0    success
  1    some files or checks failed
  2    user error; the message says how to fix it
  70   bug; the message names a log file with the traceback
  130  interrupted"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the installed command and return its exit code; `HELP` lists the codes."""
    argv = list(sys.argv[1:] if argv is None else argv)
    if argv and argv[0].partition("=")[0] == plugins.FLAG:  # before the verb
        size = 1 if "=" in argv[0] else 2
        argv = [*argv[size : size + 1], *argv[:size], *argv[size + 1 :]]
    if not argv or argv[0] in ("-h", "--help"):
        print(HELP)
        return 0 if argv else 2
    if argv[0] not in VERBS:
        hint = suggestion(argv[0], VERBS)
        print(f"tfdetect: unknown verb {argv[0]!r}.{hint} Verbs: {', '.join(VERBS)}.", file=sys.stderr)
        return 2
    return run_verb(argv[0], argv[1:])


def run_verb(verb: str, argv: Sequence[str]) -> int:
    """Run one verb and return its exit code.

    Prints one sentence for an error, and writes the traceback of a bug to a log file. With TFDETECT_DEBUG=1, errors are
    raised instead.
    """
    for stream in (sys.stdout, sys.stderr):  # a file name need not be valid in the terminal's encoding
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    gc.set_threshold(*RARE_COLLECTIONS)
    atexit.register(gc.freeze)  # the end of the process frees what is left; walking through it would take a second or two
    try:
        argv, plugin_files = plugins.take_flags(argv)
        startup.start(plugin_files, installed=verb != "doctor")  # which imports them in a process that may crash
        return int(importlib.import_module(f"tfdetect.verbs.{verb}").main(list(argv)) or 0)
    except BrokenPipeError:  # `... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except KeyboardInterrupt:
        effect = AFTER_INTERRUPT.get(verb, "resumes where it stopped")
        print(f"\ntfdetect {verb}: interrupted; the same command {effect}.", file=sys.stderr)
        return 130
    except Exception as error:
        if os.environ.get("TFDETECT_DEBUG"):
            raise
        if is_expected(error):
            print(f"tfdetect {verb}: {printable(format_error(error))}", file=sys.stderr)
            return 2
        text = printable(f"{type(error).__name__}: {format_error(error)}".rstrip(": ."))
        if plugin := plugins.find_source(error):
            print(f"tfdetect {verb}: an error in the plugin {printable(str(plugin))} ({text}). The traceback is in "
                  f"{write_crash_log(verb, argv)}.", file=sys.stderr)  # fmt: skip
            return 2
        suspects = " or the plugin ".join(["in a library that it uses", *map(str, plugins.loaded_files())])
        print(f"tfdetect {verb}: a bug in tfdetect or {suspects} ({text}). The traceback is in "
              f"{write_crash_log(verb, argv)}; please report the bug with that file.", file=sys.stderr)  # fmt: skip
        return EXIT_BUG


def write_crash_log(verb: str, argv: Sequence[str]) -> str:
    """Write the traceback of the current exception to a log file and return its path.

    The file goes to the current folder or, if that cannot be written, to the folder for temporary files; if both fail, the
    traceback is printed.
    """
    text = f"tfdetect {__version__}, Python {sys.version}\n{sys.platform}\n{[verb, *argv]}\n\n{traceback.format_exc()}"
    name = f"tfdetect-error-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.log"
    for folder in (os.getcwd, tempfile.gettempdir):
        with contextlib.suppress(OSError):  # the current folder may have been deleted
            path = os.path.join(folder(), name)
            with open(path, "x", encoding="utf-8", errors="backslashreplace") as file:
                file.write(text)
            return path
    sys.stderr.write(text)
    return "the lines above"


def printable(text: str) -> str:
    """Return `files.printable(text)`; imported here because it imports NumPy, which `--help` does not need."""
    from tfdetect import files

    return files.printable(text)


def is_expected(error: BaseException) -> bool:
    """Return whether the user or the machine caused the error, as opposed to a bug."""
    return isinstance(error, UserError | OSError) or is_out_of_memory(error)


def format_error(error: BaseException) -> str:
    """Return what a user needs to know about an error, on one line."""
    if is_out_of_memory(error):
        if "No space left" in str(error):
            return "the disk is full; free some space and run the same command again."
        return "out of memory; reduce --train.batch, --data.size or --data.frames."
    if isinstance(error, OSError) and error.strerror:
        if error.errno == errno.ENOSPC:
            return f"the disk is full ({error.filename or 'unknown file'}); free some space and run the same command again."
        return f"{error.strerror}: {error.filename}."
    return " ".join(str(error).split())


if __name__ == "__main__":
    sys.exit(main())
