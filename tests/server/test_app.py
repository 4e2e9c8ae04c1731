"""A served run answers with the scores that it has offline, and says in one sentence what it cannot do."""

import base64

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
