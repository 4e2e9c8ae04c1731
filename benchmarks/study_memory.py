"""How much memory a process that trains one detector after the other keeps: the reason why studies train in another process.

    python benchmarks/study_memory.py --detector resnet50 --trainings 5

Each training is that of `train DETECTOR` on 40 images of the embedded sample, without pretrained weights, for one epoch.
"""

import argparse
import gc
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that it runs from a checkout, installed or not


def main() -> None:
    """Train, and print the memory after each training."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--detector", default="cnn")
    parser.add_argument("--trainings", type=int, default=10)
    options = parser.parse_args()

    import keras

    import tfdetect
    from tfdetect.detector import find
    from tfdetect.machine import resident_memory

    weights = {"weights": "none"} if hasattr(find(options.detector), "weights") else {}
    with tempfile.TemporaryDirectory() as folder:
        for number in range(options.trainings):
            keras.backend.clear_session()
            tfdetect.train(options.detector, sample=20, epochs=1, stress=0, seed=number, cache_dir=f"{folder}/cache",
                           out=f"{folder}/runs", name=f"run-{number}", **{"data.size": 64}, **weights)  # fmt: skip
            gc.collect()
            print(f"training {number + 1}: {resident_memory() / 1e6:.0f} MB", flush=True)


if __name__ == "__main__":
    main()
