"""New versions take effect while requests are answered, damaged ones do not, and replaced ones leave memory."""

import asyncio
import contextlib
import gc
import logging
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from served import SECONDS, add_version, wait_for, write_half_plus_run
from starlette.exceptions import HTTPException
from starlette.testclient import TestClient

from tfdetect.errors import UserError
from tfdetect.server.app import create_app
from tfdetect.server.models import Models, UnknownLabel, UnknownModel
from tfdetect.server.page import describe
from tfdetect.server.score import choose
from tfdetect.server.settings import BatchSettings, ServeSettings


@pytest.fixture
def run(tmp_path):
    """A run whose version 1 returns x / 2 + 1."""
    return write_half_plus_run(tmp_path / "tiny")


@pytest.fixture
def serve():
    """A function that returns loaded models, which are closed at the end."""
    made = []

    def serve(*runs, **settings):
        made.append(Models(runs, ServeSettings(**settings)))
        return made[-1].load()

    yield serve
    for models in made:
        models.close()


def ask(models, x=(2.0,), **which):
    model = models.get("tiny", **which)
    return asyncio.run(models.predict(model, "serving_default", {"x": np.array(x, np.float32)}))["y"].tolist()


def test_a_new_version_takes_effect_and_the_old_one_leaves_memory(run, serve):
    models = serve(run)
    held = models.get("tiny")
    assert ask(models) == [2.0] and models.states("tiny") == {1: ("AVAILABLE", "")}
    assert add_version(run, 2) == 2 and ask(models) == [2.0], "nothing happens before the next look"
    models.load()
    assert ask(models) == [3.0] and models.states("tiny") == {1: ("UNLOADING", ""), 2: ("AVAILABLE", "")}
    assert held.call("serving_default", {"x": np.ones(1, np.float32)})[0]["y"] == [1.5], "whoever holds it can use it"
    with pytest.raises(UnknownModel, match=r"Servable not found for request: Specific\(tiny, 1\)"):
        models.get("tiny", 1)
    network = weakref.ref(held.predictor.model)
    del held
    assert models.states("tiny")[1] == ("END", "")
    gc.collect()
    assert network() is None


def test_a_damaged_version_changes_nothing_and_is_reported_once(run, serve, caplog):
    models = serve(run)
    add_version(run, 2, damaged=True)
    with caplog.at_level(logging.INFO, "tfdetect.server"):
        models.load()
        models.load()
    [record] = caplog.records
    assert "model=tiny version=2 not loaded: " in record.getMessage() and "\n" not in record.getMessage()
    assert ask(models) == [2.0] and models.states("tiny")[2][0] == "END" and models.ready
    add_version(run, 3)
    assert ask(models.load()) == [4.0]


def test_a_run_without_a_version_that_loads_is_an_error(run, serve):
    (run / "1" / "saved_model.pb").write_bytes(b"")
    with pytest.raises(UserError, match="not a complete SavedModel"):
        serve(run)
    models, told = Models([run]), threading.Event()
    models.on_failure = told.set
    client = TestClient(create_app(models, models.settings), base_url="http://127.0.0.1")
    assert client.get("/readyz").status_code == 503 and client.get("/healthz").status_code == 200
    models.watch()
    assert told.wait(60) and "not a complete SavedModel" in str(models.failure)
    assert client.get("/v1/models/tiny").json()["model_version_status"][0]["state"] == "END"
    models.close()


def test_older_versions_and_labels_stay(run, serve):
    add_version(run, 2)
    add_version(run, 3)
    models = serve(run, versions=2, labels=("stable=1",))
    assert [ask(models, version=number) for number in (None, 3, 2, 1)] == [[4.0], [4.0], [3.0], [2.0]]
    assert ask(models, label="stable") == [2.0]
    with pytest.raises(UnknownLabel, match="Unrecognized servable version label: canary"):
        models.get("tiny", label="canary")
    with pytest.raises(UserError, match="must name one of the models tiny"):
        Models([run], ServeSettings(labels=("cnn:stable=1",)))


def test_requests_are_gathered_and_each_gets_its_rows(run, serve):
    models = serve(run)
    model, calls, release = models.get("tiny"), [], threading.Event()
    models.metrics.batch = lambda name, rows, waited: calls.append((name, rows))

    async def all_at_once():
        blocked = asyncio.create_task(models.run(release.wait))
        tasks = [asyncio.create_task(models.predict(model, "serving_default", {"x": np.arange(n, dtype=np.float32)}))
                 for n in (1, 3, 20, 9, 40)]  # fmt: skip
        await asyncio.sleep(0.05)
        release.set()
        assert await blocked
        return [(await task)["y"] for task in tasks]

    found = asyncio.run(all_at_once())
    assert [len(each) for each in found] == [1, 3, 20, 9, 40]
    assert all(np.array_equal(each, np.arange(len(each)) / 2 + 1) for each in found)
    assert calls == [("tiny", 4), ("tiny", 20), ("tiny", 9), ("tiny", 40)], "8 rows at most, unless one request has more"


def test_more_requests_than_may_wait_are_refused(run, serve):
    models, release = serve(run, batch=BatchSettings(queue=1)), threading.Event()
    client = TestClient(create_app(models, models.settings), base_url="http://127.0.0.1")

    def waiting():
        return models.metrics.registry.get_sample_value("tfdetect_queue_length")

    with ThreadPoolExecutor(2) as pool, contextlib.ExitStack() as stack:
        stack.callback(release.set)
        started = threading.Event()
        blocked = pool.submit(asyncio.run, models.run(lambda: started.set() or release.wait(SECONDS)))
        assert started.wait(SECONDS)
        second = pool.submit(ask, models)
        wait_for(lambda: waiting() == 1)
        answer = client.post("/v1/models/tiny:predict", json={"instances": [2.0]})
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1") and "Too many requests" in answer.json()["error"]
    assert blocked.result() and second.result() == [2.0] and waiting() == 0
    assert client.post("/v1/models/tiny:predict", json={"instances": [2.0]}).json() == {"predictions": [2.0]}


def test_a_model_answers_while_others_are_loaded(run, tmp_path):
    models = Models([run, write_half_plus_run(tmp_path / "other")])
    models._refresh("tiny", run)
    assert models.loading() == ["other"] and not models.ready and choose(models, ["tiny"]) == ["tiny"]
    for names in ([], ["other"], ["tiny", "other"]):
        with pytest.raises(HTTPException) as refused:
            choose(models, names)
        assert refused.value.status_code == 503 and refused.value.headers["Retry-After"]
    with pytest.raises(UnknownModel):
        choose(models, ["none"])
    assert describe(models, ServeSettings()).loading == ["other"]
    models.close()


def test_a_stop_while_models_are_loaded_loads_no_more_and_announces_nothing(run, tmp_path, monkeypatch):
    models, announced = Models([run, write_half_plus_run(tmp_path / "other")]), []
    ensure, begun = models._ensure, threading.Event()

    def ensure_and_stop(*which):
        models._stopped = True
        begun.set()
        return ensure(*which)

    monkeypatch.setattr(models, "_ensure", ensure_and_stop)
    models.on_ready = models.on_failure = lambda: announced.append(models.failure)
    models.watch()
    assert begun.wait(60)
    models.close()
    assert models.states("tiny") == {1: ("AVAILABLE", "")} and models.states("other") == {} and not announced
