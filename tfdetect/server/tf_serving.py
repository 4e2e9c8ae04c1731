"""TensorFlow Serving's REST contract, https://www.tensorflow.org/tfx/serving/api_rest, for the models of this server."""

import asyncio
import hashlib
import re
import time
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, Literal

import numpy as np
from fastapi import APIRouter, Depends, HTTPException, Path, Request, Response

from tfdetect.answers import LogRow
from tfdetect.server import tf_serving_json
from tfdetect.server.health import Error
from tfdetect.server.log_rows import row
from tfdetect.server.models import Models, ServedModel
from tfdetect.server.tf_serving_json import BadRequest

ERRORS: dict[int | str, dict[str, Any]] = {400: {"model": Error, "description": "The request is not valid."},
                                           404: {"model": Error, "description": "No such model or version."},
                                           503: {"model": Error, "description": "Too many requests wait."}}  # fmt: skip
ANY = {"description": "A value, nested lists of one shape, or objects of them by name; binary values as {\"b64\": \"...\"}."}
SIGNATURE = {"type": "string", "description": "The signature to call; by default serving_default."}
PREDICT = {"type": "object", "properties": {"signature_name": SIGNATURE, "instances": ANY, "inputs": ANY}}
EXAMPLES = {"type": "object", "required": ["examples"],
            "properties": {"signature_name": SIGNATURE, "context": {"type": "object"},
                           "examples": {"type": "array", "items": {"type": "object"}, "minItems": 1}}}  # fmt: skip
IN_THREAD = 2**18  # bytes of a body from which on it is parsed and hashed in threads, so that others are answered meanwhile
MAX_VERSION = 2**63 - 1
LOGGED_AS = {"O": "predict", "u": "predict pixels"}  # by what was sent: files, uint8; anything else is features
NOT_SAID = re.compile(r"\s|Graph execution error|Detected at node|<stack traces|\d+ root error")  # lines around an error's text
router = APIRouter(tags=["TensorFlow Serving"], responses=ERRORS)


@dataclass(frozen=True)
class Asked:
    """The model that a path names."""

    name: str
    version: int | None = None
    label: str | None = None


async def _newest(name: str) -> Asked:
    return Asked(name)


async def _numbered(request: Request, name: str, version: Annotated[str, Path(description="Number of a version.")]) -> Asked:
    if not (version.isascii() and version.isdecimal()):
        raise malformed(request)
    if int(version[:20]) > MAX_VERSION:
        raise HTTPException(400, f"Failed to convert version: {version} to numeric.")
    return Asked(name, int(version))


async def _labelled(name: str, label: str) -> Asked:
    return Asked(name, None, label)


def malformed(request: Request) -> HTTPException:
    """Return the error for a path or method that the contract does not have."""
    return HTTPException(400, f"Malformed request: {request.method} {request.url.path}")


def _add_routes(path: str, asked: Any) -> None:
    """Add what can be asked of a model at this path."""
    Model = Annotated[Asked, Depends(asked)]

    def body(schema: Any) -> dict[str, Any]:
        return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}

    @router.post(f"{path}:predict", openapi_extra=body(PREDICT), response_class=Response,
                 responses={200: {"content": {"application/json": {"schema": {"type": "object"}}}}})  # fmt: skip
    async def predict(request: Request, model: Model) -> Response:
        """Call a signature of the model on inputs by row, `instances`, or by column, `inputs`."""
        return await call(request, model)

    @router.post(f"{path}:classify", openapi_extra=body(EXAMPLES))
    async def classify(request: Request, model: Model) -> dict[str, Any]:
        """Call a classification signature; the models of tfdetect have none, which is the error."""
        return await refuse_method(request, model, "classify")

    @router.post(f"{path}:regress", openapi_extra=body(EXAMPLES))
    async def regress(request: Request, model: Model) -> dict[str, Any]:
        """Call a regression signature; the models of tfdetect have none, which is the error."""
        return await refuse_method(request, model, "regress")

    @router.get(f"{path}/metadata")
    async def metadata(request: Request, model: Model) -> dict[str, Any]:
        """Return the signatures of the model: inputs and outputs with their types and shapes."""
        held = request.app.state.models.get(model.name, model.version, model.label)
        spec = {"name": held.name, "signature_name": "", "version": str(held.version)}
        return {"model_spec": spec, "metadata": {"signature_def": {"signature_def": held.signature_defs}}}

    @router.get(path)
    async def status(request: Request, model: Model) -> dict[str, Any]:
        """Return the versions of the model and their states."""
        if ":" in model.name and model.name not in request.app.state.models.names():
            raise malformed(request)
        return {"model_version_status": model_status(request.app.state.models, model)}


for _path, _asked in (("", _newest), ("/versions/{version}", _numbered), ("/labels/{label}", _labelled)):
    _add_routes(f"/v1/models/{{name}}{_path}", _asked)


@router.get("/v1/models", include_in_schema=False)
async def no_name() -> None:
    """Refuse to list all models, as TensorFlow Serving does; /v1/server lists them."""
    raise HTTPException(400, "Missing model name in request.")


@router.api_route("/v1/models{rest:path}", methods=["GET", "POST", "PUT", "PATCH", "DELETE"], include_in_schema=False)
async def other(request: Request, rest: str) -> None:
    """Refuse all other paths and methods."""
    raise malformed(request)


async def call(request: Request, asked: Asked) -> Response:
    """Answer a `:predict` request, and log its verdicts where there is a log."""
    models, start = request.app.state.models, time.perf_counter()
    body = await request.body()
    model = models.get(asked.name, asked.version, asked.label)
    try:
        read = partial(_read, model, body)
        signature, inputs, by_row = await asyncio.to_thread(read) if len(body) > IN_THREAD else read()
        outputs = await _outputs(models, model, signature, inputs)
        answer = tf_serving_json.write_outputs(outputs, by_row)
    except BadRequest as error:
        raise HTTPException(400, str(error)) from error
    if request.app.state.record and "verdict" in outputs:
        write = partial(_log_rows, model, inputs, outputs, time.perf_counter() - start, getattr(request.state, "who", ""))
        request.app.state.record.add(await asyncio.to_thread(write) if len(body) > IN_THREAD else write())
    return Response(answer, media_type="application/json")


def _log_rows(model: ServedModel, inputs: dict[str, np.ndarray], outputs: dict[str, np.ndarray], seconds: float,
              who: str) -> list[LogRow]:  # fmt: skip
    """Return a row for each row of the one input: an encoded image, which is a file, or an array, whose hash is that of its bytes
    in C order."""
    [values] = inputs.values()
    request = LOGGED_AS.get(values.dtype.kind, "predict features")
    contents = [value if isinstance(value, bytes) else value.tobytes() for value in values]
    return [row(hashlib.sha256(content).hexdigest(), len(content), model, verdict.decode() or None,
                float(probability) if verdict else None, seconds, request, who)
            for content, verdict, probability in zip(contents, outputs["verdict"], outputs["probability"], strict=True)
            ]  # fmt: skip


def _read(model: ServedModel, body: bytes) -> tuple[str, dict[str, np.ndarray], bool]:
    """Return the signature that a body asks for, its inputs, and whether they came by row. Raises BadRequest."""
    request = tf_serving_json.parse_body(body)
    signature = request.get("signature_name") or "serving_default"
    if signature not in model.signatures():
        raise BadRequest(f'Serving signature name: "{signature}" not found in signature def')
    specs = model.signatures()[signature].structured_input_signature[1]
    dtypes = {name: np.dtype(spec.dtype.as_numpy_dtype) for name, spec in sorted(specs.items())}
    inputs, by_row = tf_serving_json.read_inputs(request, dtypes)
    for name, spec in specs.items():
        if not spec.shape.is_compatible_with(inputs[name].shape) or not inputs[name].size:
            raise BadRequest(f"Input {name} must have the shape {spec.shape} and not be empty, got {inputs[name].shape}.")
    return signature, inputs, by_row


async def _outputs(models: Models, model: ServedModel, signature: str, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Call a signature, together with other requests if all its inputs have as many rows. Raises BadRequest if it refuses."""
    try:
        if len({len(value) if value.ndim else -1 for value in inputs.values()}) == 1 and next(iter(inputs.values())).ndim:
            return await models.predict(model, signature, inputs)
        return (await models.run(model.call, signature, inputs))[0]
    except Exception as error:
        if type(error).__name__ not in ("InvalidArgumentError", "FailedPreconditionError"):  # of TensorFlow
            raise
        raise BadRequest(f"The model refuses these inputs: {describe(error)}") from error


def describe(error: Exception) -> str:
    """Return what an error of TensorFlow says, without the names of nodes and the Python lines that made them."""
    lines = [line for line in str(error).splitlines() if line and not NOT_SAID.match(line)]
    return lines[0].partition(" [Op:")[0][:200] if lines else "it does not say why"


async def refuse_method(request: Request, asked: Asked, method: Literal["classify", "regress"]) -> dict[str, Any]:
    """Answer a `:classify` or `:regress` request, whose signatures the models of tfdetect lack: all are for `:predict`."""
    model = request.app.state.models.get(asked.name, asked.version, asked.label)
    try:
        parsed = tf_serving_json.parse_body(await request.body())
    except BadRequest as error:
        raise HTTPException(400, str(error)) from error
    examples, signature = parsed.get("examples"), parsed.get("signature_name") or "serving_default"
    if not isinstance(examples, list) or not examples:
        reason = f"When method is {method}, key 'examples' is expected and was not found"
        reason = reason if "examples" not in parsed else "'examples' value must be a list that is not empty"
        raise HTTPException(400, reason)
    if signature not in model.signatures():
        raise HTTPException(400, f"No signature was found with the name: {signature}")
    kind = {"classify": "classification", "regress": "regression"}[method]
    raise HTTPException(400, f"Expected {kind} signature method_name to be tensorflow/serving/{method}. Was: "
                             "tensorflow/serving/predict")  # fmt: skip


def model_status(models: Models, asked: Asked) -> list[dict[str, Any]]:
    """Return the states of the versions that a path names. Raises HTTPException for an unknown one."""
    version = models.get(asked.name, None, asked.label).version if asked.label is not None else asked.version
    states = models.states(asked.name)
    if version is not None and version not in states:
        raise HTTPException(404, f"Could not find version {version} of model {asked.name}")
    if not states:
        raise HTTPException(404, f"Could not find any versions of model {asked.name}")
    return [{"version": str(number), "state": state,
             "status": {"error_code": "UNKNOWN" if error else "OK", "error_message": "The version is damaged." if error else ""}}
            for number, (state, error) in sorted(states.items(), reverse=True) if version in (None, number)]  # fmt: skip
