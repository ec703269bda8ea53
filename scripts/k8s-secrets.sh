#!/bin/sh
# Prints the namespace and the Secrets of k8s/overlays/local with fresh random values, for:
#   scripts/k8s-secrets.sh | kubectl apply --filename -
# Run it once: the stores keep the values they were first started with.
set -eu

secret() {
    od -An -N32 -tx1 /dev/urandom | tr -d ' \n'
}

access_key=$(secret | cut -c1-20)
secret_key=$(secret)
valkey=$(secret)
postgres=$(secret)

cat "$(dirname "$0")/../k8s/base/namespace.yaml"
cat <<END
---
apiVersion: v1
kind: Secret
metadata:
  name: stores
  namespace: audiofoundation
stringData:
  S3_ACCESS_KEY: "$access_key"
  S3_SECRET_KEY: "$secret_key"
  VALKEY_PASSWORD: "$valkey"
  POSTGRES_PASSWORD: "$postgres"
---
apiVersion: v1
kind: Secret
metadata:
  name: platform
  namespace: audiofoundation
stringData:
  AF_STORAGE__ACCESS_KEY: "$access_key"
  AF_STORAGE__SECRET_KEY: "$secret_key"
  AF_QUEUE__URL: "redis://:$valkey@valkey:6379/0"
  AF_CATALOG__URL: "postgresql+psycopg://audiofoundation:$postgres@postgres:5432/audiofoundation"
  AF_SERVING__API_KEYS: "$(secret)"
END
