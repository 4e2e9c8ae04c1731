"""A server for tests of the page: the page as it is, and answers made up by the contract of /v1, without TensorFlow.

The content of a file is never read; its name says what the answer is: "fake", "real", "inconclusive", "unfamiliar", "noface",
"faces", "broken", "busy", "unready", "crash", "job" (a job with server-sent events), "poll" (a job without them).
"""

import asyncio
import base64
import hashlib
import io
import json
import threading
import time
from contextlib import contextmanager

import numpy as np
import uvicorn
from fastapi import APIRouter, FastAPI, Request
from fastapi.responses import HTMLResponse, JSONResponse, StreamingResponse
from PIL import Image

from tfdetect.pages import explanation
from tfdetect.pages.case_content import Finding, file_caveats
from tfdetect.server import page

CSP = ("default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; media-src blob:; "
       "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")  # fmt: skip
FIRST = {"name": "faces_v2", "version": 3, "detector": "cnn_lstm", "input": "clip", "faces": "all", "threshold": 0.577,
         "band": [0.45, 0.7], "explains": True, "caveats": [],
         "headline": "Better than chance and than file properties, on fakes of sources it knows; others were not measured. "
                     "AUC 0.953 (0.912 to 0.984, 120 fakes), measured only on fakes of sources it was trained on (swap and "
                     "upsample): how it does on fakes of others is not known. Measured on 140 real and 120 fake files.",
         "not_for": ["on fakes of other sources than it was tested on (swap and upsample): how it does there is not known.",
                     "to accuse anyone where few files are fake: where 1 % are, 84 % of those that it calls fake are real."],
         "date": "2026-05-04T10:11:12+00:00"}  # fmt: skip
SECOND = FIRST | {"name": "clip_images", "version": 1, "detector": "clip", "input": "image", "faces": "none", "threshold": 0.5,
                  "band": None,  "not_for": []}  # fmt: skip
MEANING = ["Where 50 % of the files are fake, of 100 files like those of validation with this score about 93 are fake.",
           "The same score means a probability of 0.593 where 10 % are, 0.117 where 1 % are.",
           "Of 140 real test files, 0.7 % have at least this score; of others like them 0.1 to 3.9 % (95 % interval).",
           "Of 120 fake test files, 61.7 % have at most this score; of others like them 52.8 to 69.9 % (95 % interval).",
           ]  # fmt: skip
REFUSALS = {"busy": (429, "Too many requests."), "unready": (503, "Models are being loaded."), "crash": (500, "It failed."),
            "huge": (413, "The image has 400 megapixels, at most 100 are read."),
            "text": (415, "not an image or video in a supported format (first bytes b'Dear Sir')")}  # fmt: skip
PROBABILITIES = {"fake": 0.931, "real": 0.0412, "inconclusive": 0.55, "unfamiliar": 0.82}


def picture(seed=0, side=224):
    """Return a picture (side, side, 3) uint8 that looks a little like something: sky, hill, a head."""
    y, x = np.mgrid[0:side, 0:side] / side
    image = np.stack([120 + 90 * y, 150 + 40 * (1 - y), 210 - 120 * y], -1)
    image[y > 0.72 + 0.08 * np.sin(6 * x + seed)] = (70, 110, 70)
    image[(x - 0.5) ** 2 + 1.3 * (y - 0.72) ** 2 < 0.11] = (60, 70, 110)
    image[((x - 0.5) / 0.8) ** 2 + (y - 0.42) ** 2 < 0.04] = (224, 178, 150)
    for eye in (0.44, 0.56):
        image[(x - eye) ** 2 + 1.6 * (y - 0.39) ** 2 < 0.0006] = (40, 40, 40)
    image[(abs(x - 0.5) < 0.06) & (abs(y - 0.52) < 0.008)] = (150, 60, 60)
    return np.clip(image + np.random.default_rng(seed).normal(0, 3, image.shape), 0, 255).astype(np.uint8)


def data_uri(image):
    return "data:image/png;base64," + base64.b64encode(png(image)).decode()


def png(image):
    target = io.BytesIO()
    Image.fromarray(image).save(target, "png")
    return target.getvalue()


def overlay(side=224):
    """Return an RGBA heat-map with one hot place."""
    y, x = np.mgrid[0:side, 0:side] / side
    heat = np.exp(-(((x - 0.5) ** 2 + (y - 0.5) ** 2) / 0.02))
    return np.stack([np.full_like(heat, 213), np.full_like(heat, 94), np.zeros_like(heat), 220 * heat], -1).astype(np.uint8)


def verdict(name, model):
    """Return the verdict on a file of this name."""
    word = next((each for each in PROBABILITIES if each in name), "real")
    probability = PROBABILITIES[word]
    if "split" in name and model is SECOND:
        word, probability = "real", 0.128
    faces = None
    if "faces" in name:
        faces = [{"face": 0, "box": [6, 4, 11, 13], "box_frame": 0, "score": 2.1, "probability": 0.93},
                 {"face": 1, "box": [40, 20, 8, 9], "box_frame": 0, "score": -1.2, "probability": 0.08}]  # fmt: skip
    found = {"probability": probability, "label": "fake" if probability >= model["threshold"] else "real", "score": 2.591,
             "frames": 8, "note": "damaged: 28 of 50 frames intact" if "note" in name else "", "error": None, "source": None,
             "source_probability": None, "text": None, "verdict": "inconclusive" if word == "unfamiliar" else word,
             "familiarity": 0.004 if word == "unfamiliar" else 0.412, "unfamiliar": word == "unfamiliar",
             "unfamiliar_reason": "other content" if word == "unfamiliar" else None, "faces": faces}  # fmt: skip
    if "noface" in name and model["faces"] != "none":
        empty = dict.fromkeys(found)
        return empty | {"frames": 0, "note": "", "error": "no face found (best detection score 0.21, 0.7 required)"}
    return found


def kind_of(file):
    return (file.content_type or "").split("/")[0]


def score(file, models):
    """Return the answer of /v1/score on one file, or a refusal."""
    name, data = file.filename, file.file.read()
    entry = {"name": name, "sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data), "kind": kind_of(file), "error": None}
    if "broken" in name:
        return entry | {"kind": None, "error": "truncated JPEG: its end marker is missing", "findings": []}
    findings = [{"model": model["name"], "version": model["version"], "threshold": model["threshold"], "band": model["band"],
                 "seconds": 0.21, "verdict": found, "meaning": [] if found["error"] else MEANING, "caveats": caveats(name, found)}
                for model in models for found in [verdict(name, model)]]  # fmt: skip
    errors = {each["verdict"]["error"] for each in findings}
    return entry | ({"findings": findings} if None in errors else {"error": "; ".join(errors), "findings": []})


def caveats(name, found):
    """Return what is to be careful about in a verdict."""
    verdict = {"unfamiliar": False, "note": ""} | {key: value for key, value in found.items() if value is not None}
    return file_caveats(Finding(verdict, used_in="train" if "known" in name else ""))


def explained(file, model):
    """Return the answer of /v1/explain."""
    times = [round(0.1 * at, 3) for at in range(40)]
    bump = lambda at, middle, width: np.exp(-((at - middle) ** 2) / width).item()  # noqa: E731
    curve = [0.15 + 0.75 * bump(at, 1.4, 0.1) + 0.5 * bump(at, 3.1, 0.05) for at in times]
    peaks = [{"time": 1.4, "probability": 0.9, "image": data_uri(picture(1, 120))},
             {"time": 3.1, "probability": 0.65, "image": data_uri(picture(2, 120))}]  # fmt: skip
    line = {"times": times, "probabilities": curve, "scores": curve, "threshold": model["threshold"], "peaks": peaks}
    failed = "badmap" in file.filename
    heat = {"image": data_uri(overlay()), "method": "occlusion", "passed": not failed, "result": "Hiding ...",
            "note": explanation.METHOD_NOTES["occlusion"],
            "check": {"hottest_tenth": -0.021 if failed else 0.583, "elsewhere": 0.042}}  # fmt: skip
    found = verdict(file.filename, model)
    return {"name": file.filename, "sha256": "0" * 64, "kind": kind_of(file), "model": model["name"], "version": model["version"],
            "verdict": found, "picture": data_uri(picture()), "heat_map": heat, "faces": found["faces"],
            "face_note": None, "timeline": line if kind_of(file) == "video" else None}  # fmt: skip


router = APIRouter()


def create_app(models=(FIRST,), keeps=None, token="", limits=None):
    """Return the application; `app.state.seen` lists the requests, `app.state.jobs` the jobs."""
    app = FastAPI()
    limits = limits or {"bytes": 20_000_000, "pixels": 100e6, "frames": 10_000, "seconds": 120.0, "files": 20}
    app.state.seen, app.state.jobs, app.state.models, app.state.token = [], {}, {model["name"]: model for model in models}, token
    app.state.about = {"version": "0.1.0", "languages": page.languages(), "models": list(models), "limits": limits,
                       "keeps": keeps, "needs_token": bool(token)}  # fmt: skip
    app.middleware("http")(guard)
    app.include_router(router)
    app.include_router(page.router)
    return app


async def guard(request, call_next):
    state, path = request.app.state, request.url.path
    state.seen.append(f"{request.method} {path}")
    wanted = state.token and path.startswith("/v1/") and path != "/v1/server"
    if wanted and request.headers.get("authorization") != f"Bearer {state.token}":
        return JSONResponse({"error": "A token is needed."}, 401)
    answer = await call_next(request)
    answer.headers["Content-Security-Policy"] = CSP
    return answer


@router.get("/v1/server")
async def about(request: Request):
    return request.app.state.about


@router.post("/v1/score")
async def post_score(request: Request):
    return await respond(request, lambda file, asked: {"files": [score(file, asked)]})


@router.post("/v1/explain")
async def post_explain(request: Request):
    return await respond(request, lambda file, asked: explained(file, asked[0]))


@router.post("/v1/case")
async def post_case(request: Request):
    return await respond(request, lambda file, asked: HTMLResponse("<h1>case</h1>"))


async def respond(request, make):
    """Return `make(file, models)`, or the refusal or the job that the name of the file asks for."""
    form, state = await request.form(), request.app.state
    file, models = form["file"], [state.models[name] for name in form.getlist("model")] or [*state.models.values()]
    for word, (status, sentence) in REFUSALS.items():
        if word in file.filename:
            return JSONResponse({"error": sentence}, status, {"Retry-After": "7"} if status in (429, 503) else None)
    if "slow" in file.filename:
        await asyncio.sleep(0.5)
    result = make(file, models)
    if "job" not in file.filename and "poll" not in file.filename:
        return result
    number = f"j{len(state.jobs)}"
    state.jobs[number] = {"id": number, "state": "running", "done": 0, "total": 2 if "poll" in file.filename else 4,
                          "stage": "Decoding", "result": result}  # fmt: skip
    return JSONResponse({"job": number}, 202)


def step(job):
    if job["state"] == "running":
        job["done"] += 0 if "endless" in str(job["result"]) else 1
        job["state"] = "done" if job["done"] >= job["total"] else "running"
    return {**job, "error": None, "result": job["result"] if job["state"] == "done" else None}


@router.get("/v1/jobs/{number}")
async def get_job(request: Request, number: str):
    return step(request.app.state.jobs[number])


@router.get("/v1/jobs/{number}/events")
async def get_events(request: Request, number: str):
    job = request.app.state.jobs[number]
    if "poll" in str(job["result"]):
        return JSONResponse({"error": "no events"}, 503)
    return StreamingResponse(events(job), media_type="text/event-stream")


async def events(job):
    while True:
        told = step(job)
        name = "end" if told["state"] in ("done", "failed") else "progress"
        yield f"event: {name}\r\ndata: {json.dumps(told)}\r\n\r\n"
        if name == "end":
            return
        await asyncio.sleep(0.05)


@router.delete("/v1/jobs/{number}")
async def delete_job(request: Request, number: str):
    request.app.state.jobs[number]["state"] = "failed"
    return {}


@router.get("/v1/log/{sha256}")
async def log(sha256: str):
    row = {"sha256": sha256, "model": "faces_v2", "verdict": "fake", "probability": 0.9}
    return {"rows": [{**row, "time": f"2026-03-0{day}T10:00:00+00:00"} for day in (1, 2, 3)]}


@contextmanager
def serving(app):
    """Run an application on a free port of this machine in a thread; yield its address."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join(10)
