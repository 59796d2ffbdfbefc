# An image for machines with NVIDIA GPUs, and for those without. docs/installing.md says how to build and run it.
# PyTorch's wheels bring CUDA's libraries with them; of the machine, they need NVIDIA's driver and its container toolkit.
ARG PYTHON=3.12
FROM python:${PYTHON}-slim-bookworm

# What OpenCV's wheel takes from the system.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends libgl1 libglib2.0-0 libxcb1 \
    && rm -rf /var/lib/apt/lists/*

# Further arguments of pip: for an image without CUDA's libraries, the index of PyTorch's builds for CPUs.
ARG PIP_ARGS=""
# Extras of pyproject.toml, with commas between.
ARG EXTRAS="s3"

WORKDIR /src
COPY LICENSE README.md constraints.txt pyproject.toml setup.py ./
COPY cache ./cache
COPY pipeline ./pipeline
COPY tasks ./tasks
COPY vibe_model ./vibe_model
RUN pip install --no-cache-dir --constraint constraints.txt ${PIP_ARGS} ".[${EXTRAS}]" && rm -rf /src/*

ENV NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    PYTHONUNBUFFERED=1

# No root: --user "$(id -u):$(id -g)" makes the files yours. Everything is read and written below /work, which you mount.
RUN useradd --create-home --uid 1000 vibe && mkdir /work && chown vibe:vibe /work
USER vibe
ENV HOME=/tmp
WORKDIR /work
ENTRYPOINT ["vibe-pipeline"]
CMD ["--help"]
