#!/usr/bin/env bash
# Prints the address by which a client connects to a server that serve.sh runs.
set -euo pipefail

[[ $# -eq 3 ]] || { echo "usage: url.sh mysql|mariadb|redis|kafka|mongo HOST PORT" >&2 && exit 2; }
case $1 in
    mysql | mariadb) echo "mysql://shop:shop-secret@$2:$3/shop" ;;
    redis) echo "redis://${REDIS_PASSWORD:+:$REDIS_PASSWORD@}$2:$3/0" ;;
    mongo) echo "mongodb://$2:$3" ;;
    kafka) echo "$2:$3" ;;
    *) echo "url.sh: unknown server: $1" >&2 && exit 2 ;;
esac
