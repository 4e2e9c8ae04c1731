"""A served run answers with the scores that it has offline, and says in one sentence what it cannot do."""

import base64
import hashlib

import numpy as np
import pytest
from served import picture
from starlette.testclient import TestClient

from tfdetect import hashes
from tfdetect.errors import UserError
from tfdetect.server.models import Models
from tfdetect.server.settings import ServeSettings


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
