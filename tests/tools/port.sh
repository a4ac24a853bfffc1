#!/usr/bin/env bash
# Prints a TCP port that is free now.
set -euo pipefail
python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])' 2>/dev/null ||
    comm -23 <(seq 20000 29999 | sort) <(ss -Htan | awk '{ sub(".*:", "", $4); print $4 }' | sort -u) | shuf -n 1
