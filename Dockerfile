# One image for every agent and for the command line: `docker run veilstream worker detection`.
FROM python:3.12-slim-bookworm
WORKDIR /app
COPY requirements.lock pyproject.toml README.md LICENSE NOTICE ./
RUN python -m pip install --no-cache-dir --require-hashes --only-binary :all: -r requirements.lock
COPY veilstream veilstream
COPY agents agents
COPY schemas schemas
COPY topics topics
COPY infra infra
RUN python -m pip install --no-cache-dir --no-deps --no-build-isolation -e . && useradd --system --create-home veil
USER veil
ENTRYPOINT ["veil"]
