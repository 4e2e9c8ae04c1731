"""A served run answers with the scores that it has offline, and says in one sentence what it cannot do."""

import base64
import hashlib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from served import picture
from starlette.testclient import TestClient

from tfdetect import hashes
from tfdetect.errors import UserError
from tfdetect.server import record_store
from tfdetect.server.models import Models, ServedModel
from tfdetect.server.settings import ServeSettings
from tfdetect.verbs import serve


@pytest.fixture(scope="module")
def client(app):
    return TestClient(app, base_url="http://127.0.0.1", raise_server_exceptions=False)


def test_scores_equal_those_offline(app, client):
    images = [picture(seed) for seed in range(3)]
    instances = [{"b64": base64.b64encode(image).decode()} for image in images]
    answer = client.post("/v1/models/tiny:predict", json={"signature_name": "serve_bytes", "instances": instances})
    assert answer.status_code == 200
    found = [row["score"] for row in answer.json()["predictions"]]
    offline = app.state.models.get("tiny").signatures()["serve_bytes"]
    expected = [offline(image=np.array([image], object))["score"].numpy()[0] for image in images]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    assert np.std(found) > 1e-4, "the images have different scores"


def test_images_are_logged_where_there_is_a_log(app, client, monkeypatch):
    class Log:
        rows = []
        add = rows.extend

    monkeypatch.setitem(app.state._state, "record", Log)
    images = [picture(0), b"no image"]
    instances = [{"b64": base64.b64encode(image).decode()} for image in images]
    answers = client.post("/v1/models/tiny:predict", json={"signature_name": "serve_bytes", "instances": instances}).json()
    first, second = answers["predictions"]
    assert [row.sha256 for row in Log.rows] == [hashlib.sha256(image).hexdigest() for image in images]
    assert [(row.model, row.version, row.verdict) for row in Log.rows] == [("tiny", 1, first["verdict"]), ("tiny", 1, "failed")]
    assert Log.rows[0].probability == pytest.approx(first["probability"]) and Log.rows[1].probability is None
    assert first["error"] == "" and second["error"] and [row.bytes for row in Log.rows] == list(map(len, images))


def test_the_start_names_models_of_which_the_log_lacks_verdicts(app, capsys):
    old = SimpleNamespace(structured_outputs={"score": 0, "probability": 0})
    predictor = SimpleNamespace(model=SimpleNamespace(signatures={"serve_bytes": old}))
    detector = SimpleNamespace(predictor=predictor, folder=Path("runs/old"))
    found = {"tiny": app.state.models.get("tiny"), "old": ServedModel("old", 1, detector)}
    models = SimpleNamespace(names=lambda: list(found), get=found.get)
    for log in ("log.db", None):
        with serve.listen("127.0.0.1", 0) as listener:
            serve.announce(models, listener, ServeSettings(log=log))
        lines = [line for line in capsys.readouterr().out.splitlines() if "The log gets" in line]
        assert [("old:predict" in line, "export" in line and "runs/old" in line) for line in lines] == [(True, True)] * bool(log)


def test_arrays_are_logged_as_what_they_are(app, client, monkeypatch):
    class Log:
        rows = []
        add = rows.extend

    monkeypatch.setitem(app.state._state, "record", Log)
    clips = np.random.default_rng(0).integers(0, 256, (2, 1, 8, 9, 3), np.uint8)
    found = client.post("/v1/models/tiny:predict", json={"instances": clips.tolist()}).json()["predictions"]
    assert [row.sha256 for row in Log.rows] == [hashlib.sha256(clips[number].tobytes()).hexdigest() for number in (0, 1)]
    assert len("predict features") <= record_store.TABLE.c.request.type.length
    assert {(row.bytes, row.request, row.model) for row in Log.rows} == {(8 * 9 * 3, "predict pixels", "tiny")}
    assert [(row.verdict, row.probability) for row in Log.rows] == [
        (each["verdict"], pytest.approx(each["probability"])) for each in found]  # fmt: skip


@pytest.mark.parametrize("path, status", [("/", 200), ("/page/page.js", 200), ("/healthz", 200), ("/metrics", 200),
                                          ("/v1/server", 200), ("/v1/models/tiny", 200), ("/v1/models/none", 404),
                                          ("/v1/models/tiny:predict", 400), ("/v1/score", 405), ("/nowhere", 404)])  # fmt: skip
def test_head_is_get_without_a_body(client, path, status):
    head, get = client.head(path), client.get(path)
    assert head.status_code == get.status_code == status and head.content == b""
    varying = {"content-length"} if path == "/metrics" else set()
    assert {name: value for name, value in head.headers.items() if name not in varying}.items() <= get.headers.items()


def test_metrics_count_requests_and_batches(client):
    def value(name):
        line = next((line for line in client.get("/metrics").text.splitlines() if line.startswith(name)), "0")
        return float(line.split()[-1])

    names = ('tfdetect_requests_total{model="tiny",path="/v1/models/{name}:predict",status="400"}',
             'tfdetect_requests_total{model="",path="/v1/models/{name}:predict",status="404"}',
             'tfdetect_request_seconds_count{model="tiny",path="/v1/models/{name}:predict"}',
             'tfdetect_batch_rows_sum{model="tiny"}')  # fmt: skip
    before = list(map(value, names))
    client.post("/v1/models/tiny:predict", content=b"x")
    client.post("/v1/models/secret-name:predict", content=b"x")
    client.post("/v1/models/tiny:predict", json={"instances": [np.zeros((1, 8, 8, 3), int).tolist()] * 3})
    assert [after - then for after, then in zip(map(value, names), before, strict=True)] == [1, 1, 2, 3]
    assert "secret-name" not in client.get("/metrics").text, "who asks cannot make the table grow"
    assert value('tfdetect_model_version{model="tiny"}') == 1 and value("process_resident_memory_bytes") > 2**27


def test_alive_ready_and_errors(client):
    assert client.get("/healthz").json() == {"status": "alive"} and client.get("/readyz").status_code == 200
    assert "tfdetect_requests" in client.get("/metrics").text
    assert client.get("/nowhere").json() == {"error": "Not Found"} and client.get("/openapi.json").status_code == 200
    assert client.get("/docs").status_code == 404, "that page loads scripts from a CDN"


def test_a_run_that_cannot_be_served_is_one_sentence(own_run):
    (own_run / "1").rename(own_run / "other")
    with pytest.raises(Exception, match=r"has no SavedModel,.* make one with .*export"):
        Models([own_run])


def test_a_changed_run_is_not_served_unless_it_is_trusted(own_run):
    hashes.write(own_run)
    (own_run / "calibration.json").write_text('{"slope": 2, "intercept": 0.25, "threshold": 0.9}')
    with pytest.raises(UserError, match=r"tiny differs from its SHA256SUMS: calibration\.json \(changed\)"):
        Models([own_run])
    models = Models([own_run], ServeSettings(trust=True)).load()
    assert models.get("tiny").predictor.threshold == 0.9
    models.close()
