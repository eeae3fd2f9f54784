# A server of captions: `docker build -t mac . && docker run -p 8000:8000 mac`. Linted (hadolint), not built.
#
#   CPU (the default):  docker build -t mac .
#   CUDA:               docker build -t mac-cuda --build-arg BASE=nvidia/cuda:12.6.3-runtime-ubuntu24.04 \
#                         --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cu126 --build-arg EXTRAS=serve,ray .
ARG BASE=ubuntu:24.04
FROM ${BASE}

ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
ARG EXTRAS=serve

SHELL ["/bin/bash", "-o", "pipefail", "-c"]

# The version of Python is that of the base; the package needs 3.11 or newer, which Ubuntu 24.04 has.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates python3 python3-venv \
    && rm -rf /var/lib/apt/lists/* \
    && python3 -m venv /opt/mac

ENV PATH=/opt/mac/bin:${PATH} PYTHONUNBUFFERED=1

WORKDIR /build
COPY constraints.txt ./
RUN pip install --no-cache-dir --index-url "${TORCH_INDEX}" "$(grep '^torch==' constraints.txt)"
COPY . .
RUN pip install --no-cache-dir --constraint constraints.txt ".[${EXTRAS}]"

# Uploads are kept in /tmp; nothing else is written. The user is nobody, who needs no entry of its own.
USER 65534:65534
ENV HOME=/tmp
WORKDIR /tmp

EXPOSE 8000
HEALTHCHECK --start-period=60s CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:8000/health', timeout=3)"]
CMD ["mac-serve", "--host", "0.0.0.0"]
