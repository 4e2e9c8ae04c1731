#!/bin/sh
# TensorFlow Serving's REST contract with curl: sh examples/predict.sh http://localhost:8501 MODEL a.jpg
# The same request goes to `serve` and to `tensorflow/serving`. The exit code is 2 for an error.
set -eu
printf '{"signature_name": "serve_bytes", "instances": [{"b64": "%s"}]}' "$(base64 < "$3" | tr -d '\n')" |
  curl --silent --show-error --fail-with-body --data @- "$1/v1/models/$2:predict" || exit 2
