# A server of one model: docker build -t crossmask . && docker run --read-only --tmpfs /tmp \
#     -v "$PWD/runs/multi30k-en-de:/model:ro" -p 5000:5000 crossmask
FROM python:3.11-slim

COPY . /source
# The processor's build of torch: that of PyPI brings gigabytes of CUDA. What torch needs comes from PyPI with the rest,
# since the index of torch has not all of its versions.
RUN pip install --no-cache-dir --no-deps --constraint /source/constraints.txt \
        --index-url https://download.pytorch.org/whl/cpu torch \
    && pip install --no-cache-dir --constraint /source/constraints.txt "/source[serve,ctranslate2]" \
    && rm -rf /source \
    && useradd --system --no-create-home --uid 10001 server

# By its number, so that Kubernetes can tell that it is not root.
USER 10001
WORKDIR /
# The model is read and never written, and nothing is fetched.
ENV HF_HUB_OFFLINE=1 HF_HOME=/tmp/huggingface PYTHONDONTWRITEBYTECODE=1
VOLUME /model
EXPOSE 5000
HEALTHCHECK --start-period=60s CMD ["python", "-c", \
    "import urllib.request; urllib.request.urlopen('http://127.0.0.1:5000/health', timeout=5)"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["crossmask", "serve", "/model", "--host", "0.0.0.0"]
