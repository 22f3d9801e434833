# Walden and everything it needs, the database included.
#
#     docker build --tag walden .
#     docker run --detach --publish 8008:8008 --volume walden:/data --env WALDEN_SERVER_NAME=example.org walden
#
# Every setting is an environment variable (docs/configuration.md); docs/docker.md says the rest.

FROM debian:bookworm-slim AS build
RUN apt-get update \
 && apt-get install --yes --no-install-recommends ca-certificates python3 python3-venv
WORKDIR /source
# What Walden needs changes seldom: a layer of its own, made from the metadata alone.
COPY setup.cfg ./
RUN python3 -m venv /opt/walden \
 && python3 -c 'import configparser; c = configparser.ConfigParser(interpolation=None); c.read("setup.cfg"); print(c["options"]["install_requires"])' > needed.txt \
 && /opt/walden/bin/pip install --no-cache-dir --requirement needed.txt
COPY setup.py README.md LICENSE ./
COPY matrix matrix
COPY eventlog eventlog
COPY sql sql
COPY writer writer
COPY roomserver roomserver
COPY readers readers
COPY bin bin
RUN /opt/walden/bin/pip install --no-cache-dir --no-deps . \
 && /opt/walden/bin/pip uninstall --yes pip

FROM debian:bookworm-slim
RUN apt-get update \
 && apt-get install --yes --no-install-recommends ca-certificates python3 tzdata \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --system --uid 8008 --user-group --no-create-home --home-dir /data walden \
 && install --directory --owner walden --group walden --mode 0700 /data
COPY --from=build /opt/walden /opt/walden
ENV PATH=/opt/walden/bin:$PATH \
    WALDEN_DATA_DIR=/data \
    WALDEN_CLIENT_LISTEN=0.0.0.0:8008 \
    WALDEN_FEDERATION_LISTEN=0.0.0.0:8448
USER walden
WORKDIR /data
VOLUME /data
EXPOSE 8008 8448
# What a client asks first. Bash alone can do it, and costs less than an interpreter every few seconds.
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s CMD ["bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/8008 && printf 'GET /_matrix/client/versions HTTP/1.0\\r\\n\\r\\n' >&3 && read -r line <&3 && [[ $line == *' 200 '* ]]"]
CMD ["walden", "up"]
