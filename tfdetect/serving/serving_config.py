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
    """Return the name under which a run is served, from the folder of one of its versions: that of its folder."""
    return versions.base(run).resolve().name


def models_config(base_paths: Mapping[str, str]) -> str:
    """Return the text of a ModelServerConfig that serves the newest version in each folder, by the name of its model."""
    from google.protobuf import text_format
    from tensorflow_serving.config.model_server_config_pb2 import ModelServerConfig

    config = ModelServerConfig()
    for name, path in base_paths.items():
        config.model_config_list.config.add(name=name, base_path=path, model_platform="tensorflow")
    comment = "# For --model_config_file: the models, and where the server finds their versions.\n"
    return comment + text_format.MessageToString(config)


def write(run: Path, name: str) -> None:
    """Write the three files into the folder of a run, or of one of its versions."""
    texts = {MODELS: models_config({name: f"{MOUNT}/{name}"}), BATCHING: BATCHING_TEXT, MONITORING: MONITORING_TEXT}
    for file, text in texts.items():
        files.write_bytes(run / file, text.encode())
