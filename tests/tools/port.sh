#!/usr/bin/env bash
# Prints a TCP port that is free now, of those that no system gives to outgoing connections.
set -euo pipefail
comm -23 <(seq 20000 29999 | sort) <(ss -Htan | awk '{ sub(".*:", "", $4); print $4 }' | sort -u) | shuf -n 1
