# Every image of HealthGuard: SERVICE is gateway, auth, records, operator, modelserver or models.
#
# `make images` builds them with docker, podman or buildah; k8s/images/build.py says what it passes. By hand:
#   docker build --build-arg SERVICE=gateway --tag healthguard/gateway .
#
# An image holds the locked dependencies of its service in a virtual environment and, of our code, only the folders
# that the service may import: a forbidden import fails because the code is not there.

# A base is any image with Python 3.11 or newer, its venv module, a shell and CA certificates.
ARG BASE=docker.io/library/python:3.12-slim-trixie@sha256:78387bc3881b8273120a12ebe6c1ab22b018ccc2c9adf565ae1ac9b536e184ea
ARG SERVICE=gateway


# ---- our code, per service: this list is what each image may import

FROM scratch AS code-gateway
COPY healthguard /healthguard
COPY gateway /gateway
COPY serving/__init__.py /serving/
COPY serving/tfs /serving/tfs

FROM scratch AS code-auth
COPY healthguard /healthguard
COPY auth /auth

FROM scratch AS code-records
COPY healthguard /healthguard
COPY records /records

FROM scratch AS code-operator
COPY healthguard /healthguard
COPY serving/__init__.py /serving/
COPY serving/tfs /serving/tfs
COPY serving/operator /serving/operator

FROM scratch AS code-modelserver
COPY healthguard /healthguard
COPY serving/__init__.py /serving/
COPY serving/tfs /serving/tfs
COPY serving/modelserver /serving/modelserver

FROM scratch AS code-models
COPY models /models

FROM code-${SERVICE} AS code


# ---- the dependencies, from the hash-pinned lock

FROM ${BASE} AS dependencies
ARG SERVICE
COPY requirements/${SERVICE}.txt /tmp/requirements.txt
# Two environments: the one with pip installs into the one without. A wheel for everything, so no compiler is needed.
# The lock has decided which versions fit which Python; pip would refuse those whose authors only guessed an upper bound.
# What a site needs to reach its package index (a CA bundle, pip's configuration) comes as secrets, which are files
# during this step and in no layer; what pip downloads stays in the builder's cache.
RUN --mount=type=secret,id=ca --mount=type=secret,id=pip_config,target=/etc/pip.conf \
    --mount=type=cache,target=/var/cache/pip \
    set -eu; \
    python3 -m venv /tmp/installer; \
    python3 -m venv --without-pip /opt/healthguard/venv; \
    if [ -s /run/secrets/ca ]; then export PIP_CERT=/run/secrets/ca; fi; \
    PIP_CACHE_DIR=/var/cache/pip /tmp/installer/bin/pip --quiet --disable-pip-version-check \
      --python /opt/healthguard/venv/bin/python \
      install --no-deps --require-hashes --ignore-requires-python --only-binary :all: --no-compile \
      --requirement /tmp/requirements.txt
# Leave out what nothing uses at run time: tests, type stubs, C sources and headers, other people's commands, debug
# information, OpenCV's face detectors, Pillow's AVIF and fonts (no image format of ours, no text is drawn), NumPy's
# modules for its own tests, and Pygments' grammars but Python's (tracebacks).
# Byte code is compiled here because the root file system is read-only later; "unchecked-hash" makes it a function of
# the source alone, where Python's default would store a time.
COPY k8s/images/strip_libraries.py /tmp/
RUN set -eu; cd /opt/healthguard/venv; \
    rm -rf include; \
    find bin ! -type d ! -name 'python*' -delete; \
    find lib -depth -type d \( -name tests -o -name include -o -path '*/cv2/data' \) -exec rm -rf {} +; \
    find lib -type f \( -name '*.pyi' -o -name '*.pyx' -o -name '*.pxd' -o -name '*.[ch]' -o -name '*.cpp' -o -name '*.a' \
      -o -path '*/numpy/_core/_simd.*' -o -path '*/numpy/_core/_*_tests.*' \
      -o -path '*/pygments/lexers/*' ! -name python.py ! -name _mapping.py ! -name __init__.py \
      -o -path '*/PIL/_avif.*' -o -path '*/PIL/_imagingft.*' -o -path '*/pillow.libs/libavif-*' \
      -o -path '*/pillow.libs/libfreetype-*' -o -path '*/pillow.libs/libharfbuzz-*' \) -delete; \
    python3 /tmp/strip_libraries.py lib; \
    for site in lib/python3*/site-packages; do echo /opt/healthguard/app > "$site/healthguard.pth"; done; \
    python3 -m compileall -q --invalidation-mode unchecked-hash lib


# ---- the code, made ready: its commands, byte code, and modes that do not depend on who checked it out

FROM ${BASE} AS ready
COPY pyproject.toml k8s/images/distribution.py /tmp/
COPY --from=code / /opt/healthguard/app/
RUN set -eu; cd /opt/healthguard; \
    python3 /tmp/distribution.py /tmp/pyproject.toml app bin; \
    chmod -R u=rwX,go=rX app; \
    python3 -m compileall -q --invalidation-mode unchecked-hash app


# ---- what runs: how each image starts comes before what it holds, which changes most

FROM ${BASE} AS runtime
# The first line of ours: k8s/images/build.py tells the base's layers from ours by it.
STOPSIGNAL SIGTERM
# pip installs nothing here any more, so neither it nor what could bring it back stays.
RUN set -eu; \
    rm -rf /usr/local/lib/python3*/site-packages/* /usr/local/lib/python3*/ensurepip /usr/local/bin/pip* /usr/local/bin/wheel \
      /usr/lib/python3*/ensurepip /usr/lib/python3/dist-packages/pip* /usr/share/python-wheels /usr/bin/pip*; \
    echo 'healthguard:x:10001:10001:HealthGuard:/nonexistent:/usr/sbin/nologin' >> /etc/passwd; \
    echo 'healthguard:x:10001:' >> /etc/group
# PYTHONSAFEPATH: what lies in the working directory is never imported.
ENV PATH=/opt/healthguard/bin:/opt/healthguard/venv/bin:/usr/local/bin:/usr/bin:/bin \
    PYTHONSAFEPATH=1 PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
WORKDIR /
# By number, so that Kubernetes can see that it is not root. Nothing in the image belongs to this user.
USER 10001:10001
# No HEALTHCHECK: Kubernetes has its probes (/livez, /readyz), and compose files name theirs.

FROM runtime AS run-gateway
ENV GATEWAY_HOST=0.0.0.0
EXPOSE 8004
ENTRYPOINT ["python", "-m", "gateway"]

FROM runtime AS run-auth
ENV AUTH_HOST=0.0.0.0
EXPOSE 8000
ENTRYPOINT ["python", "-m", "auth"]

FROM runtime AS run-records
ENV RECORDS_HOST=0.0.0.0
EXPOSE 8002
ENTRYPOINT ["python", "-m", "records"]

FROM runtime AS run-operator
ENV OPERATOR_HOST=0.0.0.0
EXPOSE 8080
ENTRYPOINT ["python", "-m", "serving.operator"]

# Models are mounted, as they are into TensorFlow Serving's own image.
FROM runtime AS run-modelserver
EXPOSE 8500 8501
ENTRYPOINT ["python", "-m", "serving.modelserver"]

# The demonstration models as data, for a cluster without object storage: mounted as an image volume, or run once to
# fill a volume (`… /mnt/models`). It has the base only for its `cp`, and shares it with the images above.
FROM runtime AS run-models
ENTRYPOINT ["cp", "--recursive", "/models/."]
CMD ["/mnt/models"]


# ---- the images: a program with its dependencies, or models

FROM run-${SERVICE} AS program
COPY --from=dependencies /opt/healthguard/venv /opt/healthguard/venv
COPY --from=ready /opt/healthguard /opt/healthguard

FROM ${BASE} AS packed
COPY --from=code /models /models
RUN chmod -R u=rwX,go=rX /models

FROM run-models AS image-models
COPY --from=packed /models /models

FROM program AS image-gateway
FROM program AS image-auth
FROM program AS image-records
FROM program AS image-operator
FROM program AS image-modelserver

FROM image-${SERVICE}
# Last, though they seldom change: buildah keeps such steps under their text, not their values, and further up it would
# name one service's image after another. (Its --label would name every step's image, and change digests.)
ARG SERVICE
ARG BASE
ARG VERSION=0
ARG REVISION=
LABEL org.opencontainers.image.title="healthguard-${SERVICE}" \
      org.opencontainers.image.description="HealthGuard: ${SERVICE}" \
      org.opencontainers.image.vendor="HealthGuard" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.base.name="${BASE}"
