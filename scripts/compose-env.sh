#!/bin/sh
# Writes .env for docker-compose.yml with fresh random secrets, readable by its owner only.
# Usage: scripts/compose-env.sh [--gpu] [FILE]        (an existing FILE is never overwritten)
set -eu

profile=cpu
if [ "${1:-}" = "--gpu" ]; then
    profile=gpu
    shift
fi
file=${1:-.env}

if [ -e "$file" ]; then
    echo "$file exists: delete it first if new secrets are wanted (existing volumes keep the old ones)" >&2
    exit 1
fi

secret() {
    od -An -N32 -tx1 /dev/urandom | tr -d ' \n'
}

umask 077
set -C # the redirection below fails if the file appeared meanwhile
{
    echo "COMPOSE_PROFILES=$profile"
    echo "AF_API_KEY=$(secret)"
    echo "S3_ACCESS_KEY=$(secret | cut -c1-20)"
    echo "S3_SECRET_KEY=$(secret)"
    echo "VALKEY_PASSWORD=$(secret)"
    echo "POSTGRES_PASSWORD=$(secret)"
} >"$file"
echo "wrote $file (profile $profile); start with: docker compose up --build --detach"
