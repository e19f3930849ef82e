# Targets `node` and `operator`; `e2e` is the load checker of the end-to-end tests and goes nowhere else.
#
#     docker build --target node -t vectorizer-node .
#
# compiles from source. Where no Rust image can be pulled, or so as not to compile twice, the same targets take
# binaries built outside (`tests/images.sh` puts them into target/image/):
#
#     docker build --build-arg BUILDER=debian:bookworm-slim --target node -t vectorizer-node .
#
# It is one build stage for both because Docker's classic builder makes every stage above the target, needed or not.
ARG BUILDER=rust:1-slim-bookworm
ARG BASE=debian:bookworm-slim

FROM ${BUILDER} AS build
# What is compiled from source; target `e2e` needs vectorizer-e2e here as well.
ARG PACKAGES="vectorizer-node vectorizer-operator"
WORKDIR /src
COPY . .
RUN mkdir -p /out/bin && install -d -o 65532 -g 65532 /out/data \
 && if command -v cargo >/dev/null; then \
      cargo build --release --locked $(printf -- '-p %s ' $PACKAGES) \
      && cd target/release; \
    else \
      cd target/image; \
    fi \
 && for program in vectorizer-node vectorizer-operator vectorizer-e2e; do \
      if [ -f $program ]; then install -m 755 $program /out/bin/; fi; \
    done

FROM ${BASE} AS node
LABEL org.opencontainers.image.title="vectorizer-node" org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /out/bin/vectorizer-node /usr/local/bin/vectorizer-node
COPY --from=build --chown=65532:65532 /out/data /var/lib/vectorizer
USER 65532:65532
EXPOSE 15002 15003 7001
ENTRYPOINT ["/usr/local/bin/vectorizer-node"]

FROM ${BASE} AS operator
LABEL org.opencontainers.image.title="vectorizer-operator" org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /out/bin/vectorizer-operator /usr/local/bin/vectorizer-operator
USER 65532:65532
EXPOSE 8080
ENTRYPOINT ["/usr/local/bin/vectorizer-operator"]
CMD ["run"]

FROM ${BASE} AS e2e
COPY --from=build /out/bin/vectorizer-e2e /usr/local/bin/vectorizer-e2e
USER 65532:65532
ENTRYPOINT ["/usr/local/bin/vectorizer-e2e"]
