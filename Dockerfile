# syntax=docker/dockerfile:1
# The images of the data plane and of the operator:
#   docker build --target dataplane -t flyweight/dataplane:0.1.0 .
#   docker build --target operator -t flyweight/operator:0.1.0 .
# Without arguments the data plane serves the samples on embedded stores:
#   docker run -p 8080:8080 -e WORKERS=5 flyweight/dataplane:0.1.0
# Without a container engine, `make images` builds the same as archives.

FROM rust:1.95-slim-bookworm AS build
# librdkafka and OpenSSL are built from source: they need a C++ compiler, make and perl.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends g++ make perl pkg-config \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
# The caches keep what cargo fetched and built from one build of the image to the next; a cache is not part of a layer,
# so the programs are copied out of it.
RUN --mount=type=cache,target=/usr/local/cargo/registry,sharing=locked \
    --mount=type=cache,target=/src/target,sharing=locked \
    cargo build --release --locked --package flyweight-dataplane --package flyweight-operator \
    && mkdir -p /out/lib/flyweight \
    && cp target/release/flyweight-dataplane target/release/flyweight-operator /out/ \
    # OpenShift gives a container a user of its own, of group 0
    && chmod 2775 /out/lib/flyweight

# glibc, libgcc and the certificates of public authorities; no shell, no package manager.
FROM gcr.io/distroless/cc-debian12:nonroot AS runtime
# By number, so that Kubernetes can tell that it is not root.
USER 65532:65532

FROM runtime AS operator
COPY --from=build /out/flyweight-operator /usr/local/bin/
EXPOSE 9090
ENTRYPOINT ["/usr/local/bin/flyweight-operator"]
CMD ["run"]

FROM runtime AS dataplane
COPY --from=build /out/flyweight-dataplane /usr/local/bin/
COPY configs/samples /usr/share/flyweight/samples
COPY --from=build --chown=65532:0 /out/lib /var/lib
# A container is there for others; without this only its own loopback address is listened on.
ENV LISTEN=[::]
EXPOSE 8080 9090
VOLUME /var/lib/flyweight
HEALTHCHECK --interval=10s --timeout=3s --start-period=60s CMD ["/usr/local/bin/flyweight-dataplane", "health"]
ENTRYPOINT ["/usr/local/bin/flyweight-dataplane"]
CMD ["serve", "--manifests", "/usr/share/flyweight/samples", "--data-dir", "/var/lib/flyweight"]
