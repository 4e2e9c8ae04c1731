"""Verdicts of a server on files, with the client of tfdetect: python examples/score.py http://localhost:8501 a.jpg b.mp4

Without tfdetect, `predict.py` asks the same server, or TensorFlow Serving.
"""

import sys

from tfdetect.client import Client

with Client(sys.argv[1]) as client:
    for file in client.score(sys.argv[2:]):
        if file.error:
            print(f"{file.path}: {file.error}")
        for finding in file.findings:
            verdict = finding.verdict
            print(f"{file.path}: {verdict.verdict}, probability of being fake {verdict.probability:.3f} ({finding.model})")
