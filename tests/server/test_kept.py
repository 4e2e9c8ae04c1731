"""A server with a log, asked by the client: what is judged is what is kept, and the file itself is not."""

import io
import json
from hashlib import sha256

import numpy as np
import pytest
from page_server import serving
from PIL import Image
from served import picture

from tfdetect import cli, hashes
from tfdetect.client import Client, ServerError
from tfdetect.server.app import create_app
from tfdetect.server.limits import Access, ServeLimits
from tfdetect.server.models import Models
from tfdetect.server.settings import ServeSettings

TOKENS = {"desk": "a-token-of-the-desk", "auditor": "a-token-of-the-auditor"}


@pytest.fixture(scope="module")
def server(tiny_run, tmp_path_factory):
    """The address of a server that keeps a log, and the folder with its database."""
    folder = tmp_path_factory.mktemp("log")
    (folder / "tokens").write_text("".join(f"{name} {token}\n" for name, token in TOKENS.items()))
    settings = ServeSettings(limits=ServeLimits(workers=1), access=Access(tokens=folder / "tokens"), log=str(folder / "log.db"),
                             log_readers=("auditor",))  # fmt: skip
    models = Models([tiny_run], settings).load()
    with serving(create_app(models, settings)) as address:
        yield address, folder
    models.close()


@pytest.fixture
def client(server):
    with Client(server[0], TOKENS["desk"]) as found:
        yield found


def test_each_request_leaves_rows_that_the_files_can_be_looked_up_by(client, server, tiny_run, tmp_path):
    for name, seed in (("a.png", 1), ("b.png", 2)):
        (tmp_path / name).write_bytes(picture(seed))
    (tmp_path / "broken.png").write_bytes(picture(3)[:60])
    paths = [tmp_path / name for name in ("a.png", "b.png", "broken.png")]
    first, second, broken = client.score(paths)
    assert (first.error, second.error) == (None, None) and broken.error and first.findings[0].verdict.path == str(paths[0])
    [found], verdict = client.lookup(paths[0]), first.findings[0].verdict
    assert (found.sha256, found.bytes, found.model, found.version, found.who, found.request) == \
        (sha256(picture(1)).hexdigest(), len(picture(1)), "tiny", 1, "desk", "score")  # fmt: skip
    assert (found.verdict, found.probability) == (verdict.verdict, verdict.probability)
    assert found.model_hash == hashes.model_hash(tiny_run)
    assert [each.verdict for each in client.lookup(paths[2])] == ["failed"] and client.check_log().first_changed is None
    content = b"".join(path.read_bytes() for path in server[1].glob("log.db*"))
    assert picture(1)[:64] not in content and b"a.png" not in content, "neither the file nor its name is kept"


@pytest.mark.slow  # heat-maps
def test_explanations_and_case_reports_leave_rows(client, tmp_path):
    (tmp_path / "d.png").write_bytes(picture(5))
    found = client.explain(tmp_path / "d.png")
    assert Image.open(io.BytesIO(found.heat_map.image)).size == Image.open(io.BytesIO(found.picture)).size
    assert "<html" in client.case(tmp_path / "d.png") and client.case_data(tmp_path / "d.png")["files"]
    rows = client.lookup(tmp_path / "d.png")
    assert [each.request for each in rows] == ["case", "case", "explain"]
    assert {(each.verdict, each.probability) for each in rows} == {(found.verdict.verdict, found.verdict.probability)}


def test_images_sent_as_tensors_leave_rows_too(client):
    image = picture(7)
    [answer] = client.predict("tiny", [image], "serve_bytes")
    [row] = client.lookup(sha256(image).hexdigest())
    assert (row.request, row.who, row.verdict, row.bytes) == ("predict", "desk", answer["verdict"], len(image))
    assert row.probability == pytest.approx(answer["probability"])
    clip = np.full((1, 32, 30, 3), 7, np.uint8)
    [answer] = client.predict("tiny", [clip])
    [row] = client.lookup(sha256(clip.tobytes()).hexdigest())
    assert (row.request, row.verdict, row.bytes) == ("predict pixels", answer["verdict"], clip.nbytes)


def test_tokens_decide_who_reads_what_and_the_log_says_who_asked(client, server, tmp_path, capsys):
    (tmp_path / "c.png").write_bytes(picture(9))
    with Client(server[0], TOKENS["auditor"]) as auditor, Client(server[0], "a-token-of-nobody") as nobody:
        auditor.score(tmp_path / "c.png")
        assert [each.who for each in auditor.lookup(tmp_path / "c.png")] == ["auditor"]
        assert client.lookup(tmp_path / "c.png") == []
        client.score(tmp_path / "c.png")
        assert [each.who for each in auditor.lookup(tmp_path / "c.png")] == ["desk", "auditor"]
        with pytest.raises(ServerError, match="does not accept this token"):
            nobody.lookup(tmp_path / "c.png")
    assert client.server.keeps and client.server.needs_token and client.models()[0].name == "tiny"
    assert cli.main(["score", server[0], "--token", TOKENS["desk"], "--lookup", str(tmp_path / "c.png"), "--json"]) == 0
    assert [json.loads(line)["who"] for line in capsys.readouterr().out.splitlines()] == ["desk"]


def test_the_command_scores_as_predict_does(client, server, tiny_run, tmp_path, capsys):
    for seed in range(3):
        (tmp_path / f"{seed}.png").write_bytes(picture(seed))
    assert cli.main(["score", server[0], str(tmp_path), "--token", TOKENS["desk"], "--json"]) == 0
    served = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert cli.main(["predict", str(tiny_run), str(tmp_path), "--json", "--workers", "1"]) == 0
    offline = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [each["path"] for each in served] == [each["path"] for each in offline]
    for one, other in zip(served, offline, strict=True):
        assert one["score"] == pytest.approx(other["score"], abs=1e-6)
        assert {name: one[name] for name in other if name not in ("score", "probability")} == \
            {name: other[name] for name in other if name not in ("score", "probability")}  # fmt: skip
