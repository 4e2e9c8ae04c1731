"""Verdicts of a server on files, with the client of tfdetect: python examples/score.py http://localhost:8501 a.jpg b.mp4

A token comes from the environment variable TFDETECT_TOKEN. The exit code is 2 if a file was not judged. Without tfdetect,
`predict.py` asks the same server, or TensorFlow Serving.
"""

import sys

from tfdetect.client import Client
from tfdetect.errors import UserError

code = 0
try:
    with Client(sys.argv[1]) as client:
        for file in client.score_each(sys.argv[2:]):
            if file.error:
                print(f"{file.path}: {file.error}", file=sys.stderr)
                code = 2
            for finding in file.findings:
                verdict = finding.verdict
                words = verdict.error or f"{verdict.verdict}, probability of being fake {verdict.probability:.3f}"
                print(f"{file.path}: {words} ({finding.model})")
except UserError as error:  # such as a server that cannot be reached, or a wrong token
    print(error, file=sys.stderr)
    code = 2
sys.exit(code)
