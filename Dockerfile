# The server with its weights and packs, on a CPU or an NVIDIA GPU:
#   docker build -t whisper-sae-steer --build-arg TORCH_INDEX=... .    (an index with CPU builds of torch is enough)
#   docker build -t whisper-sae-steer:cuda --build-arg VARIANT=cuda .
#   docker run -p 8000:8000 whisper-sae-steer --model base        (GPU: docker run --gpus all …)
ARG VARIANT=cpu

FROM python:3.11-slim-bookworm AS cpu

FROM nvidia/cuda:12.9.1-cudnn-runtime-ubuntu24.04 AS cuda
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends python3 python3-venv \
    && rm -rf /var/lib/apt/lists/*

# hadolint ignore=DL3006
FROM ${VARIANT} AS server
ARG VARIANT
ARG TORCH_INDEX=
ENV PATH=/opt/venv/bin:$PATH PYTHONUNBUFFERED=1
WORKDIR /opt/source
COPY constraints.txt ./
RUN useradd --create-home --uid 10001 server \
    && python3 -m venv /opt/venv \
    && pip install --no-cache-dir -c constraints.txt ${TORCH_INDEX:+--index-url $TORCH_INDEX} torch
COPY pyproject.toml README.md LICENSE ./
COPY whisper_sae_steer whisper_sae_steer
# triton is 1 GB that only a GPU needs
RUN pip install --no-cache-dir -c constraints.txt ".[serve,otel,weights]" \
    && if [ "$VARIANT" = cpu ]; then pip uninstall --yes triton; fi

USER 10001
WORKDIR /home/server
# puts the weights together, and fails here rather than at the first start if one doesn't fit its pack
RUN whisper-sae-steer info --model base && whisper-sae-steer info --model tiny.en

EXPOSE 8000
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s \
    CMD ["python3", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/health')"]
ENTRYPOINT ["whisper-sae-steer", "serve", "--host", "0.0.0.0"]
CMD ["--model", "base"]
