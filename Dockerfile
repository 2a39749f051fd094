# pgsluice alone: docker build -t pgsluice . && docker run -v ./pgsluice.toml:/etc/pgsluice/pgsluice.toml:ro pgsluice
FROM rust:1.95-bookworm AS build
WORKDIR /src
COPY . .
RUN cargo build --release --locked

FROM debian:bookworm-slim
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --no-create-home pgsluice
COPY --from=build /src/target/release/pgsluice /usr/local/bin/pgsluice
USER pgsluice
EXPOSE 5000 5001 6432 7000
# SIGTERM drains: sessions end with their transactions.
STOPSIGNAL SIGTERM
ENTRYPOINT ["pgsluice"]
CMD ["run", "--config", "/etc/pgsluice/pgsluice.toml"]
