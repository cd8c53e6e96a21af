# The proxy's image: one static binary on nothing. docker build -t evenkeel .
#
# Link-time optimization over everything takes 2 GB of memory; on a smaller machine add --build-arg PROFILE=thin, which
# takes less than 1 GB (tried with exactly that) and costs a few per cent of speed, or build elsewhere and load the image.

# The bases can be others of the same kind: --build-arg RUST_IMAGE=…
ARG RUST_IMAGE=rust:1.95-slim-bookworm

# Every manifest with an empty program beside it: what the dependencies' layer depends on, whatever the sources say.
FROM ${RUST_IMAGE} AS manifests
WORKDIR /src
COPY . .
RUN echo 'fn main() {}' >/empty.rs \
 && find . -type f ! -name Cargo.toml ! -name Cargo.lock -delete \
 && find . -depth -type d -empty -delete \
 && find . -name Cargo.toml -execdir sh -c 'mkdir -p src && touch src/lib.rs && cp /empty.rs src/main.rs' \;

FROM ${RUST_IMAGE} AS build
WORKDIR /src
ARG PROFILE=release
# A target that is named, if only as the machine's own, keeps the flag from the build scripts and macros, which cannot
# be static.
ENV RUSTFLAGS="-C target-feature=+crt-static"
COPY --from=manifests /src .
RUN cargo build --locked --profile "$PROFILE" --target "$(rustc --print host-tuple)"
COPY src src
# Sources may be older than the build above, and cargo goes by that.
RUN touch src/lib.rs src/main.rs \
 && cargo build --locked --profile "$PROFILE" --target "$(rustc --print host-tuple)" \
 && cp target/*/"$PROFILE"/evenkeel /evenkeel

# From here on `make dist` (deploy/dist/image.sh) does the same around an executable that it has built. It adds the labels
# `revision` and `created`.
FROM scratch
LABEL org.opencontainers.image.title="Evenkeel" \
      org.opencontainers.image.description="A lightweight load-balancing HTTP proxy for apps on a Docker network" \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.licenses="MIT"
# Where Dokku looks for them.
WORKDIR /app
COPY Procfile app.json ./
# The example's configuration is not read unless EVENKEEL_CONFIG names it: its probe asks for db-checker's /ping, and
# another app needs UPSTREAM alone. A proxy.toml of yours in this folder is read.
COPY proxy.toml db-checker.toml
COPY --from=build /evenkeel /usr/local/bin/evenkeel
# A number, so that an orchestrator that demands "not root" can tell. A container may listen on 80 without root.
USER 65532:65532
EXPOSE 80
# Does not depend on the replicas: a proxy without them is healthy and waits for them.
HEALTHCHECK --interval=10s --timeout=3s --start-period=5s CMD ["evenkeel", "ready"]
# The default, but said: without it a signal sent by `docker kill` ends the restart policy.
STOPSIGNAL SIGTERM
# Not ENTRYPOINT: Dokku's Procfile replaces CMD, and would become its arguments.
CMD ["evenkeel"]
