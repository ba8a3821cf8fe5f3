# docker build -t nemo-distill .
# docker run --gpus all -v "$PWD/data:/workspace/nemo_distill/data" -v "$PWD/runs:/workspace/nemo_distill/runs" nemo-distill make demo
#
# NeMo's release notes name 24.01.speech as the container of NeMo 1.23.0 (Ubuntu 22.04, Python 3.10). Its own torch is older than
# 2.5, the first that reads checkpoints under the protection this library relies on, so the locked environment stands in a .venv of
# its own and the image gives the system below it. torch comes with its CUDA libraries; the host's driver must be new enough for them.
ARG BASE_IMAGE=nvcr.io/nvidia/nemo:24.01.speech
FROM ${BASE_IMAGE}

# Versions are those of the image's Ubuntu release.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends g++ make python3.10-dev python3.10-venv \
    && rm -rf /var/lib/apt/lists/*

RUN useradd --create-home --uid 10001 distill \
    && install --directory --owner=distill --group=distill /workspace/nemo_distill
USER 10001
WORKDIR /workspace/nemo_distill

# NVIDIA's images hold pip and Python to their own packages by these two; here the lock file decides.
ENV PIP_CONSTRAINT="" \
    PIP_NO_CACHE_DIR=1 \
    PYTHONPATH=""

# What the installation reads comes first, so that a change of the code does not install everything anew.
COPY --chown=distill:distill Makefile setup.py README.md LICENSE ./
COPY --chown=distill:distill requirements requirements
COPY --chown=distill:distill nemo_distill/__init__.py nemo_distill/__init__.py
RUN make install-runtime PYTHON=/usr/bin/python3.10

COPY --chown=distill:distill . .
RUN make install-runtime \
    && .venv/bin/python -c "from nemo_distill import DistilledMTEncDecModel"

ENV PATH="/workspace/nemo_distill/.venv/bin:${PATH}"
CMD ["nemo-distill", "--help"]
