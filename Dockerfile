# `slam-asr serve` in a container. This file has never been built: no tool for containers was at hand where it
# was written. Report what does not work.
#
#   docker build --tag slam-asr .                                                                    NVIDIA GPUs
#   docker build --tag slam-asr --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cpu .       CPUs
#   docker run --gpus all -p 8000:8000 -v ./runs/nl-medium:/models/nl-medium:ro -v hub:/hub \
#       -e SLAM_ASR_API_KEY slam-asr /models/nl-medium
#
# What follows the image's name are arguments of `slam-asr serve`. PyPI's torch brings CUDA's libraries, so the
# machine needs its driver and the NVIDIA container toolkit alone.
FROM python:3.11-slim

ARG TORCH_INDEX=https://pypi.org/simple
COPY . /source
RUN pip install --no-cache-dir --constraint /source/locks/newest.txt \
        --index-url "$TORCH_INDEX" --extra-index-url https://pypi.org/simple torch \
    && pip install --no-cache-dir --constraint /source/locks/newest.txt "/source[serve]" \
    && rm -rf /source \
    && useradd --create-home asr \
    && install --directory --owner asr /hub
USER asr
# Base models that a lean checkpoint names are fetched once, into the volume.
ENV HF_HOME=/hub
VOLUME /hub
EXPOSE 8000
HEALTHCHECK --start-period=10m \
    CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:8000/health', timeout=5)"]
# `docker stop --time 600` leaves it the time to answer what it has begun. The container's own address is not the host's.
ENTRYPOINT ["sh", "-c", "exec slam-asr serve \"$@\" --host 0.0.0.0 --port 8000", "slam-asr"]
