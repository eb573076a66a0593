# FuseBench in a container; what it writes lands in the folder it is started from.
#   docker build -t fusebench .
#   docker run --rm --user "$(id -u)" -v "$PWD:/work" fusebench --methods mean,cls --tasks LeeSTS
# For a GPU:
#   docker build -t fusebench:cuda --build-arg TORCH=cu130 .
#   docker run --rm --gpus all --user "$(id -u)" -v "$PWD:/work" fusebench:cuda --methods
ARG PYTHON=3.13
FROM python:${PYTHON}-slim

ARG TORCH=cpu
# uv knows where each build of PyTorch is; its version and all others are those that the tests ran with.
RUN --mount=type=bind,target=/source,rw \
    pip install --no-cache-dir uv==0.13.9 && \
    uv pip install --system --no-cache --torch-backend="${TORCH}" -c /source/constraints.txt "/source[report]"

RUN useradd --uid 1000 fusebench && install -d -o fusebench /work
USER 1000
# Caches of models and data sets; any user can write there, also one given by docker run --user.
ENV HOME=/tmp
WORKDIR /work
ENTRYPOINT ["fusebench"]
CMD ["--help"]
