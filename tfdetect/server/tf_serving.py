"""TensorFlow Serving's REST contract, https://www.tensorflow.org/tfx/serving/api_rest, for the models of this server."""

import binascii
import json
from typing import Any

import numpy as np
from fastapi import APIRouter, HTTPException, Request
from fastapi.responses import JSONResponse

from tfdetect.server.health import Error

router = APIRouter(tags=["TensorFlow Serving"], responses={404: {"model": Error}, 400: {"model": Error}})


@router.get("/v1/models/{name}")
async def status(request: Request, name: str) -> dict[str, Any]:
    """Return the versions of a model and their states."""
    model = request.app.state.models.get(name)
    entry = {"version": str(model.version), "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
    return {"model_version_status": [entry]}


@router.post("/v1/models/{name}:predict")
async def predict(request: Request, name: str) -> JSONResponse:
    """Call a signature of a model."""
    models = request.app.state.models
    with models.hold(name) as model:
        body = json.loads(await request.body())
        signature = body.get("signature_name") or "serving_default"
        if signature not in model.signatures():
            raise HTTPException(400, f"Serving signature name: \"{signature}\" not found in signature def")
        [(input_name, spec)] = model.signatures()[signature].structured_input_signature[1].items()
        rows = [binascii.a2b_base64(row["b64"]) if isinstance(row, dict) else row for row in body["instances"]]
        inputs = {input_name: np.array(rows, spec.dtype.as_numpy_dtype)}
        outputs = await models.predict(model, signature, inputs)
    columns = {key: np.char.decode(value.astype(bytes)).tolist() if value.dtype == object else value.tolist()
               for key, value in outputs.items()}  # fmt: skip
    return JSONResponse({"predictions": [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]})
