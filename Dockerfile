# With CUDA, which pip selects by default:       docker build -t particle_grid .
# Smaller, for CPUs only:                        docker build -t particle_grid --build-arg WHEELS=URL .
#   where URL is the index of CPU wheels named on PyTorch's installation page
# docker run --rm -v "$PWD/outputs:/app/outputs" particle_grid train task=forage     (CUDA: with --gpus all)
FROM python:3.11-slim
ARG WHEELS=""
WORKDIR /app
COPY pyproject.toml README.md LICENSE ./
COPY particle_grid particle_grid
COPY hydra_plugins hydra_plugins
COPY conf conf
RUN pip install --no-cache-dir ${WHEELS:+--extra-index-url "$WHEELS"} ".[video,rank,sweep]"
ENTRYPOINT ["/bin/sh", "-c", "name=${1:?give a command, such as train}; shift; exec python -m particle_grid.$name \"$@\"", "sh"]
