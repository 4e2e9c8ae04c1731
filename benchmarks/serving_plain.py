"""The plainest service of a Keras model, which `serving.py` compares with: FastAPI, OpenCV and `model.predict`, as in tutorials.

    python benchmarks/serving_plain.py MODEL.keras PORT
"""

import base64
import sys
from pathlib import Path

import cv2
import fastapi
import keras
import numpy as np
import uvicorn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that it runs from a checkout, installed or not
import tfdetect  # noqa: F401  (its layers, without which no Keras loads the model)

app = fastapi.FastAPI()
model = keras.models.load_model(sys.argv[1])


@app.post("/predict")
def predict(body: dict) -> dict:
    """Score the images of a request, which has the shape of TensorFlow Serving's."""
    size = model.input_shape[2]
    encoded = [np.frombuffer(base64.b64decode(row["b64"]), np.uint8) for row in body["instances"]]
    images = [cv2.imdecode(data, cv2.IMREAD_COLOR_RGB) for data in encoded]
    clips = np.stack([cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA)[None] for image in images])
    return {"predictions": [{"score": float(score)} for score in model.predict(clips, verbose=0)[:, 0]]}


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[2]), log_level="error")
