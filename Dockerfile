# Four images from one file:
#   docker build --target cpu -t cisi-net:cpu .      graphs in ONNX Runtime on the CPU
#   docker build --target serve -t cisi-net:serve .  the service and its page, on the CPU
#   docker build --target gpu -t cisi-net:gpu .      engines in TensorRT; run it with --gpus all
#   docker build --target ray -t cisi-net:ray .      object storage and Ray, for deploy/rayjob.yaml and deploy/job.yaml
# Pictures of this folder, as the user whose they are:
#   docker run --rm --user "$(id -u):$(id -g)" -v "$PWD:/data" cisi-net:cpu run photo.jpg --mask hole.png -o out.png
# The service:
#   docker run --rm -p 127.0.0.1:8000:8000 -v "$PWD/token.txt:/token.txt:ro" cisi-net:serve --token-file /token.txt
# No instruction of it has been run by a Docker engine yet; tests check them as far as is possible without one.

FROM python:3.11-slim AS wheel
WORKDIR /source
COPY pyproject.toml README.md LICENSE ./
COPY runtime runtime
COPY calibration calibration
COPY export export
COPY train train
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .

FROM python:3.11-slim AS cpu
COPY constraints.txt /tmp/constraints.txt
RUN --mount=type=bind,from=wheel,source=/wheels,target=/wheels \
    pip install --no-cache-dir -c /tmp/constraints.txt "$(ls /wheels/cisi_net-*.whl)[cpu]" \
    && useradd --create-home --uid 10001 cisi
USER 10001
WORKDIR /data
# Whether it still is the network: the shipped graph against its golden file.
HEALTHCHECK --interval=1h --timeout=2m --start-period=10s --retries=1 \
    CMD ["cisi", "parity"]
ENTRYPOINT ["cisi"]
CMD ["--help"]

FROM python:3.11-slim AS serve
COPY constraints.txt /tmp/constraints.txt
RUN --mount=type=bind,from=wheel,source=/wheels,target=/wheels \
    pip install --no-cache-dir -c /tmp/constraints.txt "$(ls /wheels/cisi_net-*.whl)[cpu,serve]" \
    && useradd --create-home --uid 10001 cisi
USER 10001
WORKDIR /home/cisi
EXPOSE 8000
# Whether it takes work: the network has passed its check, and is there.
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/readyz')"]
# In exec form, so that SIGTERM reaches it. Other machines need --token-file, or --insecure where a proxy asks who they are.
ENTRYPOINT ["cisi", "serve", "--host", "0.0.0.0", "--port", "8000"]

# NVIDIA's image has TensorRT, CUDA and the headers that PyCUDA is compiled with.
FROM nvcr.io/nvidia/tensorrt:25.10-py3 AS gpu
COPY constraints.txt /tmp/constraints.txt
RUN --mount=type=bind,from=wheel,source=/wheels,target=/wheels \
    pip install --no-cache-dir -c /tmp/constraints.txt "$(ls /wheels/cisi_net-*.whl)[cpu]" "pycuda>=2025.1" "cuda-bindings>=13.0" \
    && useradd --create-home --uid 10001 cisi
USER 10001
WORKDIR /data
ENV CISI_CACHE=/data/.cisi-cache
# A GPU that answers, and the network; engines are the user's: cisi-parity checks them.
HEALTHCHECK --interval=1h --timeout=2m --start-period=10s --retries=1 \
    CMD ["sh", "-c", "python -c 'from cisi_runtime.cuda.driver import find_gpu; find_gpu()' && cisi parity"]
ENTRYPOINT ["cisi"]
CMD ["--help"]

# A node of KubeRay: it calls `ray` and `python` through /bin/bash, on the PATH of a login shell, which has /usr/local/bin.
# ray[default] has the agent that answers its probes and takes jobs. KubeRay before 1.6 probes with wget.
FROM python:3.11-slim AS ray
COPY constraints.txt /tmp/constraints.txt
# hadolint ignore=DL3008
RUN --mount=type=bind,from=wheel,source=/wheels,target=/wheels \
    apt-get update && apt-get install --yes --no-install-recommends wget && rm -rf /var/lib/apt/lists/* \
    && pip install --no-cache-dir -c /tmp/constraints.txt "$(ls /wheels/cisi_net-*.whl)[cpu,ray,storage]" \
    "ray[default]" s3fs gcsfs adlfs \
    && useradd --create-home --uid 10001 cisi
USER 10001
WORKDIR /data
# Ray tells its makers of each cluster unless it is told not to.
ENV RAY_USAGE_STATS_ENABLED=0
# Kubernetes has probes of its own; this one is for `docker run`.
HEALTHCHECK --interval=1h --timeout=2m --start-period=10s --retries=1 \
    CMD ["cisi", "parity"]
ENTRYPOINT ["cisi"]
CMD ["--help"]
