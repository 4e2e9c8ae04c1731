"""The log: rows in SQLite and in a real PostgreSQL, what happens when it cannot be written, and who may read what."""

import csv
import io
import json
import logging
import os
import sqlite3
import threading
import time
from contextlib import closing

import postgres
import pytest
import sqlalchemy as sql
from fastapi import FastAPI
from prometheus_client import CollectorRegistry
from starlette.testclient import TestClient

from tfdetect.answers import LogRow
from tfdetect.errors import UserError
from tfdetect.server import log_rows, record, record_store
from tfdetect.server.app import add_errors
from tfdetect.server.log_rows import COLUMNS
from tfdetect.server.record_store import TABLE, Record
from tfdetect.server.settings import ServeSettings

SHA = ["a" * 64, "b" * 64]


def row(number=0, **changes):
    values = {"time": f"2026-01-{number % 28 + 1:02}T00:00:00.000000Z", "sha256": SHA[number % 2], "bytes": 10 + number,
              "model": "cnn", "version": 1, "model_hash": "f" * 64, "verdict": "fake", "probability": 1 / (number + 3),
              "seconds": 0.1 + number / 7, "request": "score", "who": ""}  # fmt: skip
    return LogRow(**{**values, **changes})


@pytest.fixture(scope="module")
def server():
    """A PostgreSQL."""
    if reason := postgres.missing():
        pytest.skip(reason)
    with postgres.running() as found:
        yield found


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request, tmp_path):
    """The address of an empty log in each database."""
    if request.param == "sqlite":
        yield str(tmp_path / "log.db")
        return
    found = request.getfixturevalue("server").url
    yield found
    engine = record_store._open(found)
    TABLE.metadata.drop_all(engine)
    engine.dispose()


@pytest.fixture
def log(url):
    with closing(Record(url)) as opened:
        yield opened


def stored(log):
    return [{name: each[name] for name in COLUMNS} for each in log.rows(ascending=True)]


def test_rows_are_kept_as_they_are_and_found(log, url):
    rows = [row(number, who="me" if number == 3 else "", model="100%_a" if number == 4 else "cnn") for number in range(5)]
    log.add(rows[:2])
    log.add(rows[2:])
    assert log.settle(10)
    assert stored(log) == [vars(each) for each in rows], "floats to the last bit"
    assert [each["bytes"] for each in log.find(2, 1)] == [13, 12] and log.count() == 5
    assert log.count(sha256=SHA[0]) == 3 and [log.count(text=text) for text in ("0%_A", "%", "ME", "me%")] == [1, 1, 1, 0]
    assert log.count(since="2026-01-04T00:00:00.000000Z") == 2 and log.count(who="me", sha256=SHA[1]) == 1
    log.add([row(1, probability=None, verdict="failed", bytes=2**40)])
    log.close()
    with closing(Record(url)) as again:
        assert again.count() == 6 and again.find(1)[0]["probability"] is None and again.find(1)[0]["bytes"] == 2**40
        again.add([row(6)])
        assert again.settle(10) and again.check()["first_changed"] is None, "the chain goes on"


@pytest.mark.parametrize("change, first", [("UPDATE {} SET verdict = 'real' WHERE bytes = 12", 2),
                                           ("UPDATE {} SET probability = 0.123 WHERE bytes = 14", 4),
                                           ("UPDATE {} SET who = 'you' WHERE bytes = 10", 0),
                                           ("DELETE FROM {} WHERE bytes = 12", 3)])  # fmt: skip
def test_a_change_shows(log, change, first):
    log.add([row(number) for number in range(5)])
    assert log.settle(10)
    before, ids = log.check(), [each["id"] for each in log.rows(ascending=True)]
    assert before == {"rows": 5, "first_changed": None, "chain": log.find(1)[0]["chain"], "known": None}
    with log.engine.begin() as connection:
        connection.exec_driver_sql(change.format(TABLE.name))
    assert log.check()["first_changed"] == ids[first]


def test_missing_rows_at_the_end_show_by_a_hash_that_was_kept(log):
    log.add([row(number) for number in range(5)])
    assert log.settle(10)
    chain = log.check()["chain"]
    log.add([row(5)])
    assert log.settle(10) and log.check(chain)["known"]
    with log.engine.begin() as connection:
        connection.execute(sql.delete(TABLE).where(TABLE.c.bytes >= 14))
    assert log.check(chain) == {"rows": 4, "first_changed": None, "chain": log.find(1)[0]["chain"], "known": False}


def test_several_servers_write_one_chain(log, url):
    def write(name):
        with closing(Record(url)) as own:
            for number in range(40):
                own.add([row(number, who=name)])
                own.settle(10)

    threads = [threading.Thread(target=write, args=name) for name in "xy"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = stored(log)
    assert len(found) == 80 and log.check()["first_changed"] is None
    for name in "xy":
        assert [each["bytes"] - 10 for each in found if each["who"] == name] == list(range(40))


def test_many_rows_are_read_in_parts(log, monkeypatch):
    monkeypatch.setattr(record_store, "CHUNK", 3)
    log.add([row(number) for number in range(9)])
    assert log.settle(10)
    assert [each["bytes"] for each in log.rows()] == list(range(18, 9, -1)) and log.check()["rows"] == 9
    assert [each["bytes"] for each in log.rows(ascending=True, sha256=SHA[0])] == [10, 12, 14, 16, 18]


def test_a_lost_database_loses_no_answer_and_few_rows(server, monkeypatch, caplog):
    monkeypatch.setattr(record_store, "PAUSES", (0.05, 0.1))
    monkeypatch.setattr(record_store, "WAITING", 5)
    registry = CollectorRegistry()
    with closing(Record(server.url, registry)) as log:
        log.add([row(0)])
        assert log.settle(10)
        server.stop()
        start = time.monotonic()
        for number in range(1, 9):
            log.add([row(number)])
        assert time.monotonic() - start < 0.5, "whoever adds does not wait"
        assert not log.settle(0.3)
        assert registry.get_sample_value("tfdetect_log_rows_waiting") == 5
        server.start()
        assert log.settle(20)
        assert [each["bytes"] for each in log.rows(ascending=True)] == [10, 11, 12, 13, 14, 15]
        assert log.check()["first_changed"] is None
        assert registry.get_sample_value("tfdetect_log_rows_total", {"result": "lost"}) == 3
        assert registry.get_sample_value("tfdetect_log_rows_total", {"result": "written"}) == 6
        TABLE.metadata.drop_all(log.engine)
    *first, last = [each.getMessage() for each in caplog.records]
    problem, lost = sorted(first, key=lambda text: "are lost" in text)
    assert last == "the log is written again; 3 rows were lost" and lost == "rows of the log are lost, since 5 wait already"
    assert problem.startswith("the log cannot be written (") and problem.endswith(": answers go on, and up to 5 rows wait")


def test_a_server_needs_no_right_to_change_rows(server):
    """As docs/log.md grants them."""
    with closing(Record(server.url)) as owner:
        with owner.engine.begin() as connection:
            for statement in ("CREATE ROLE web LOGIN", "GRANT SELECT, INSERT ON tfdetect_log TO web",
                              "GRANT USAGE ON SEQUENCE tfdetect_log_id_seq TO web"):  # fmt: skip
                connection.exec_driver_sql(statement)
        with closing(Record(server.url.replace("postgres@", "web@"))) as log:
            log.add([row(0)])
            assert log.settle(10) and log.count() == 1 and log.check()["first_changed"] is None
            with pytest.raises(sql.exc.ProgrammingError, match="permission denied"), log.engine.begin() as connection:
                connection.execute(sql.update(TABLE).values(verdict="real"))
        TABLE.metadata.drop_all(owner.engine)


def test_a_full_disk_and_a_stop_meanwhile(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(record_store, "PAUSES", (0.02, 0.02))
    monkeypatch.setattr(record_store, "CLOSE_SECONDS", 0.2)
    log = Record(str(tmp_path / "log.db"))
    with log.engine.connect() as connection:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar()
    sql.event.listen(log.engine, "begin", lambda connection: connection.exec_driver_sql(f"PRAGMA max_page_count={pages + 2}"))
    log.engine.dispose()
    rows = [row(number, who="x" * 1000) for number in range(40)]
    log.add(rows)
    assert not log.settle(0.3) and log.count() == 0, "a transaction is written as a whole"
    log.close()
    messages = [each.getMessage() for each in caplog.records if each.levelno >= logging.ERROR]
    assert "the log cannot be written (database or disk is full)" in messages[0] and log.lost == 40
    assert not log._thread.is_alive()


def test_a_row_that_cannot_be_stored_does_not_stop_the_others(server, caplog):
    with closing(Record(server.url)) as log:
        log.add([row(0, who="a\0b")])
        assert log.settle(10)
        log.add([row(1)])
        assert log.settle(10) and log.count() == 1
        TABLE.metadata.drop_all(log.engine)
    assert "1 rows of the log cannot be written" in caplog.text


@pytest.mark.parametrize(
    "url, message",
    [
        ("mysql://me:secret@host/db", r"mysql://me:\*\*\*@host/db: the log is kept in SQLite or PostgreSQL"),
        ("://", "takes the path of an SQLite file"),
        ("{}/none/log.db", r"The log .*none/log\.db cannot be opened: No such file or directory"),
        ("{}/text", "cannot be opened: file is not a database"),
        ("postgresql://me:secret@127.0.0.1:1/db", "cannot be opened: .*refused|needs the package psycopg"),
    ],
)
def test_a_log_that_cannot_be_opened_is_one_sentence_without_a_password(url, message, tmp_path):
    (tmp_path / "text").write_text("no database" * 100)
    with pytest.raises(UserError, match=message) as caught:
        Record(url.format(tmp_path))
    assert "secret" not in str(caught.value) and "\n" not in str(caught.value)


def test_only_its_owner_can_read_the_file(tmp_path):
    Record(str(tmp_path / "log.db")).close()
    assert os.stat(tmp_path / "log.db").st_mode & 0o077 == 0


class Tokens:
    """Sets the name of the token, as the guard does."""

    def __init__(self, app):
        self.app = app

    async def __call__(self, scope, receive, send):
        scope.setdefault("state", {})["who"] = dict(scope.get("headers", [])).get(b"x-who", b"").decode()
        await self.app(scope, receive, send)


def application(log, **settings):
    app = FastAPI()
    app.state.record, app.state.settings = log, ServeSettings(**settings)
    app.include_router(record.router)
    add_errors(app)
    app.add_middleware(Tokens)
    return TestClient(app, base_url="http://127.0.0.1", raise_server_exceptions=False)


@pytest.fixture
def kept(tmp_path):
    with closing(Record(str(tmp_path / "log.db"))) as log:
        log.add([row(number, who="desk" if number % 2 else "=cmd|' /C calc'!A0") for number in range(6)])
        yield log


def test_the_log_is_searched_and_looked_up(kept):
    client = application(kept)
    found = client.get("/v1/log", params={"limit": 2}).json()
    assert found["total"] == 6 and [each["bytes"] for each in found["rows"]] == [15, 14] and list(found["rows"][0]) == [
        "id", *COLUMNS, "chain"]  # fmt: skip
    assert client.get("/v1/log", params={"since": "2026-01-05", "text": "desk"}).json()["total"] == 1
    assert client.get("/v1/log", params={"since": "2026-01-05T01:00:00+02:00"}).json()["total"] == 2
    assert client.get("/v1/log", params={"sha256": SHA[0].upper()}).json()["total"] == 3
    assert [each["bytes"] for each in client.get(f"/v1/log/{SHA[0].upper()}").json()["rows"]] == [14, 12, 10]
    assert client.get(f"/v1/log/{'0' * 64}").json() == {"rows": []}
    assert client.get("/v1/log/check").json()["first_changed"] is None
    with kept.checking:
        assert client.get("/v1/log/check").status_code == 503


@pytest.mark.parametrize("path", ["?limit=0", "?limit=1001", "?since=yesterday", "/abc", "?offset=-1"])
def test_what_is_not_valid_is_one_sentence(kept, path):
    answer = application(kept).get(f"/v1/log{path}")
    assert answer.status_code == 422 and list(answer.json()) == ["error"]


def test_odd_values_find_nothing_and_break_nothing(log):
    client = application(log)
    for asked in ({"text": "\0"}, {"text": "'; DROP TABLE tfdetect_log; --"}, {"sha256": "\0"}, {"text": "\\"}, {"text": "%"}):
        assert client.get("/v1/log", params=asked).json() == {"rows": [], "total": 0}
    assert client.get("/v1/log", params={"since": "0001-01-01T00:00:00+14:00"}).status_code in (200, 400)


def test_the_table_cannot_run_in_a_spreadsheet(kept):
    answer = application(kept).get("/v1/log.csv", params={"text": "calc"})
    rows = list(csv.DictReader(io.StringIO(answer.text)))
    assert len(rows) == 3 and {each["who"] for each in rows} == {"'=cmd|' /C calc'!A0"}
    assert answer.headers["content-type"].startswith("text/csv") and "log.csv" in answer.headers["content-disposition"]
    assert [float(each["probability"]) for each in rows] == [1 / 7, 1 / 5, 1 / 3]


def test_a_token_reads_its_own_rows_unless_it_may_read_all(kept):
    client = application(kept, log_readers=("auditor",))
    counts = {name: client.get("/v1/log", headers={"X-Who": name}).json()["total"] for name in ("desk", "auditor", "new")}
    assert counts == {"desk": 3, "auditor": 6, "new": 0}
    assert len(client.get(f"/v1/log/{SHA[1]}", headers={"X-Who": "new"}).json()["rows"]) == 0
    assert client.get("/v1/log.csv", headers={"X-Who": "new"}).text.count("\n") == 1


def test_without_a_log_nothing_is_kept(tmp_path):
    client = application(None)
    for path in ("/v1/log", "/v1/log.csv", "/v1/log/check", f"/v1/log/{SHA[0]}"):
        answer = client.get(path)
        assert (answer.status_code, answer.json()) == (404, {"error": record.NO_LOG})


def test_a_log_that_cannot_be_read_is_said(kept, tmp_path):
    assert kept.settle(10)
    with closing(sqlite3.connect(tmp_path / "log.db")) as database:
        database.execute("DROP TABLE tfdetect_log")
    answer = application(kept).get("/v1/log")
    assert (answer.status_code, answer.json()) == (503, {"error": "The database of the log cannot be read."})


def test_rows_of_an_answer(kept):
    class Model:
        name, version, model_hash = "cnn", 2, "e" * 64

    verdict = {"verdict": "real", "probability": 0.25}
    files = [{"sha256": SHA[0], "bytes": 3, "kind": "image", "findings": [{"model": "cnn", "seconds": 0.5, "verdict": verdict}]},
             {"sha256": SHA[1], "bytes": 4, "kind": None, "findings": []}]  # fmt: skip
    first, second = log_rows.rows_of(files, [Model()], "score", "desk")
    assert (first.verdict, first.probability, first.seconds, first.model_hash, first.who) == ("real", 0.25, 0.5, "e" * 64, "desk")
    assert (second.verdict, second.probability, second.bytes) == ("failed", None, 4) and len(first.time) == 27
    assert json.dumps(vars(first)) and first.time <= second.time


def test_many_threads_add_without_waiting(tmp_path):
    with closing(Record(str(tmp_path / "log.db"))) as log:
        threads = [threading.Thread(target=lambda: [log.add([row(number)]) for number in range(200)]) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert log.settle(20) and log.count() == 1600 and log.check()["first_changed"] is None
