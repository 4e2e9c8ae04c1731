# The server on the CPU, installed as README says:
#   docker build -t tfdetect . && docker run -p 127.0.0.1:8501:8501 tfdetect
# It trains a small detector on the embedded sample first. With runs of your own:
#   docker run -p 127.0.0.1:8501:8501 -v "$PWD/saved_models:/app/saved_models:ro" tfdetect
FROM python:3.11-slim-bookworm
RUN useradd --create-home tfdetect && install --directory --owner tfdetect /app
USER tfdetect
WORKDIR /app
COPY --chown=tfdetect . .
ENV PIP_NO_CACHE_DIR=1 PYTHONUNBUFFERED=1
RUN python3 -m venv .venv && .venv/bin/pip install -e . -c constraints/py311.txt
EXPOSE 8501
HEALTHCHECK --start-period=10m CMD [".venv/bin/python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:8501/readyz')"]
CMD [".venv/bin/python", "scripts/serve.py", "--demo", "--host", "0.0.0.0"]
