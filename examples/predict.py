"""TensorFlow Serving's REST contract from Python's standard library: python examples/predict.py http://localhost:8501 MODEL a.jpg

The same request goes to `serve` and to `tensorflow/serving`. A clip detector takes each image for
a still.
"""

import base64
import json
import sys
import urllib.request
from pathlib import Path
from urllib.error import HTTPError

url, model, *files = sys.argv[1:]
try:
    images = [{"b64": base64.b64encode(Path(file).read_bytes()).decode()} for file in files]
    request = urllib.request.Request(f"{url}/v1/models/{model}:predict",
                                     json.dumps({"signature_name": "serve_bytes", "instances": images}).encode(),
                                     {"Content-Type": "application/json"})  # fmt: skip
    with urllib.request.urlopen(request, timeout=60) as response:
        predictions = json.load(response)["predictions"]
except OSError as error:  # of a file, of the connection, or an answer that is an error
    print(json.load(error)["error"] if isinstance(error, HTTPError) else error, file=sys.stderr)
    sys.exit(2)
for file, found in zip(files, predictions, strict=True):
    print(f"{file}: {found['error'] or found['verdict']}, probability of being fake {found['probability']}")
