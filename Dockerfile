# xception on a CPU:
#   docker build -t xception .
#   docker run --rm -it --user "$(id -u):$(id -g)" -v "$PWD:/work" -v xception-cache:/cache xception train --data food
# `xception serve` listens inside the container; --network host makes it reachable.
# --shm-size 1g where images are loaded by several processes and /dev/shm is small.
FROM python:3.13-slim

WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY configs configs
COPY xception_cli xception_cli
# PyTorch's own index has it without CUDA's libraries, which are most of its size.
# hadolint ignore=DL3013
RUN pip install --no-cache-dir --extra-index-url https://download.pytorch.org/whl/cpu ".[heif,onnx]" \
    && mkdir -m 1777 /cache

ENV XCEPTION_CACHE=/cache
WORKDIR /work
USER 65534:65534
ENTRYPOINT ["xception"]
