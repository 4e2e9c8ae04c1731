"""The configuration of TensorFlow Serving for a run, as text of its protocol buffers, beside the SavedModels.

`models.config` is a ModelServerConfig, `batching.config` BatchingParameters and `monitoring.config` a MonitoringConfig; see
https://www.tensorflow.org/tfx/serving/serving_config. They expect the folder of the run's folder at /models, as the image
tensorflow/serving has it.
"""

from collections.abc import Mapping
from pathlib import Path

from tfdetect import files, versions

MODELS, BATCHING, MONITORING = "models.config", "batching.config", "monitoring.config"
MOUNT = "/models"
BATCHING_TEXT = """\
# For --enable_batching --batching_parameters_file: requests that wait are scored together. Requests with more than
# max_batch_size rows are refused; on a GPU, more rows pay. With batching, send frames of one size, or encoded images.
max_batch_size { value: 16 }
batch_timeout_micros { value: 5000 }
max_enqueued_batches { value: 100 }
"""
MONITORING_TEXT = """\
# For --monitoring_config_file: metrics for Prometheus, at the port of the REST API.
prometheus_config { enable: true path: "/monitoring/prometheus/metrics" }
"""


def model_name(run: Path) -> str:
    """Return the name under which a run is served, from the folder of one of its versions: that of its folder, as UTF-8."""
    return _utf8(versions.base(run).resolve().name)


def write_models(target: Path, folders: Mapping[str, str]) -> None:
    """Write a ModelServerConfig that serves the newest version in each folder, below /models, by the name of its model."""
    from google.protobuf import text_format
    from tensorflow_serving.config.model_server_config_pb2 import ModelServerConfig

    config = ModelServerConfig()
    for name, folder in folders.items():
        config.model_config_list.config.add(name=_utf8(name), base_path=_utf8(f"{MOUNT}/{folder}"), model_platform="tensorflow")
    comment = "# For --model_config_file: the models, and where the server finds their versions.\n"
    files.write_bytes(target, (comment + text_format.MessageToString(config)).encode())


def write(run: Path, name: str) -> None:
    """Write the three files into the folder of a run, or of one of its versions."""
    write_models(run / MODELS, {name: name})
    files.write_bytes(run / BATCHING, BATCHING_TEXT.encode())
    files.write_bytes(run / MONITORING, MONITORING_TEXT.encode())


def _utf8(text: str) -> str:
    """Return a file name as protocol buffers take it: bytes that are not UTF-8 as "\\udcff"."""
    return text.encode(errors="backslashreplace").decode()
