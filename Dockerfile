# FlowStone: engine, HTTP, and the base of images with workers. See docs/deploying.md.
#
#   docker build -t flowstone .
#   docker run --rm flowstone engine --server nats://nats:4222
#
# The image has no shell and no package manager. It runs as a user without rights. Node is process 1
# and gets SIGTERM itself: each command then finishes what it does, and ends.
ARG BUILD_IMAGE=node:24-bookworm-slim
ARG RUNTIME_IMAGE=gcr.io/distroless/nodejs24-debian12:nonroot

FROM ${BUILD_IMAGE} AS build
ARG NPM_CONFIG_REGISTRY
WORKDIR /src
COPY package.json package-lock.json ./
RUN npm ci --ignore-scripts --no-audit --no-fund
COPY . .
RUN npm run build \
  && npm prune --omit=dev --ignore-scripts --no-audit --no-fund \
  && mkdir -p /app/node_modules/flowstone \
  && cp -R dist node_modules package.json LICENSE /app/node_modules/flowstone/

FROM ${RUNTIME_IMAGE}
ENV NODE_ENV=production
COPY --from=build /app /app
WORKDIR /app
USER 65532:65532
# HTTP, health of engines and workers, metrics.
EXPOSE 8080 8081 9464
STOPSIGNAL SIGTERM
ENTRYPOINT ["/nodejs/bin/node", "/app/node_modules/flowstone/dist/src/cli/main.js"]
CMD ["--help"]
