"""A PostgreSQL of a test's own: in a temporary folder, on a Unix socket, ended with the test."""

import glob
import os
import shutil
import subprocess
import tempfile
from contextlib import contextmanager
from pathlib import Path

USER = "postgres"  # it refuses to run as root; Debian's package makes this user


def binaries():
    """Return the folder with initdb and postgres, None if there is none."""
    known = [os.path.dirname(found) for found in [shutil.which("initdb")] if found]
    known += sorted(glob.glob("/usr/lib/postgresql/*/bin"), reverse=True)
    return next((Path(folder) for folder in known if Path(folder, "initdb").exists() and Path(folder, "pg_ctl").exists()), None)


def missing():
    """Return why there is no PostgreSQL to test with, "" if there is one."""
    try:
        import psycopg  # noqa: F401
    except ModuleNotFoundError:
        return "the package psycopg is not installed"
    if not binaries():
        return "PostgreSQL is not installed (Debian: postgresql)"
    if os.geteuid() == 0:
        import pwd

        try:
            pwd.getpwnam(USER)
        except KeyError:
            return f"PostgreSQL does not run as root, and there is no user {USER}"
    return ""


class Server:
    """A database server that can be stopped and started again."""

    def __init__(self, folder):
        self.folder = folder
        self.url = f"postgresql://{USER}@/postgres?host={folder}"

    def control(self, *words):
        log = ["-l", self.folder / "log", "-o", f"-k {self.folder} -c listen_addresses='' -c fsync=off"]
        self.run("pg_ctl", "-D", self.folder / "data", "-w", *(log if words[0] == "start" else ["-m", "immediate"]), *words)

    def run(self, program, *words):
        user = {"user": USER, "group": USER, "extra_groups": []} if os.geteuid() == 0 else {}
        subprocess.run([binaries() / program, *words], check=True, cwd=self.folder, timeout=60, stdout=subprocess.DEVNULL,
                       stderr=subprocess.PIPE, env={"LC_ALL": "C", "PATH": os.environ["PATH"]}, **user)  # fmt: skip

    def start(self):
        self.control("start")

    def stop(self):
        self.control("stop")


@contextmanager
def running():
    """Yield a server with an empty database."""
    folder = Path(tempfile.mkdtemp(prefix="pg-"))  # short, as the path of a socket must be
    try:
        if os.geteuid() == 0:
            shutil.chown(folder, USER, USER)
        server = Server(folder)
        server.run("initdb", "-D", folder / "data", "-U", USER, "-A", "trust", "--no-sync")
        server.start()
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
