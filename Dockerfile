# One image for the API, the workers and the migrations. Which one it is, the command says; see docker-compose.yml.
FROM python:3.11-slim

WORKDIR /srv/weightworks
ENV PYTHONUNBUFFERED=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1

# Torch comes first and by itself, as in the Makefile. For a smaller image without GPU libraries, give pip an index that
# has torch's CPU builds: --build-arg PIP_EXTRA_INDEX_URL=...
ARG PIP_EXTRA_INDEX_URL=
COPY requirements.lock ./
RUN pip install "$(grep '^torch==' requirements.lock)" && pip install --requirement requirements.lock

COPY pyproject.toml README.md alembic.ini ./
COPY weightworks weightworks
COPY core core
COPY api api
COPY worker worker
COPY migrations migrations
RUN pip install --no-deps --editable . \
    && useradd --create-home weightworks \
    && install --directory --owner weightworks /var/lib/weightworks

USER weightworks
ENV WEIGHTWORKS_STORAGE_URL=/var/lib/weightworks
EXPOSE 8000
CMD ["python", "-m", "api", "--host", "0.0.0.0", "--port", "8000"]
