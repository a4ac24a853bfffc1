#!/usr/bin/env bash
# Holds the API against its own OpenAPI document with all phases of schemathesis: examples, coverage, fuzzing, stateful.
# tests/openapi/hooks.py says what is no fault, and why. SEED repeats a run, EXAMPLES is how many requests are made up for each operation.
set -euo pipefail
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."
. tests/tools/edge.sh

readonly SEED=${SEED:-$RANDOM} EXAMPLES=${EXAMPLES:-25}
# Each is replaced by a check of tests/openapi/hooks.py that knows what a schema cannot say.
readonly REPLACED=positive_data_acceptance,negative_data_rejection
# These never end: a WebSocket, and a stream of events.
readonly ENDLESS='(/ws|/events/stream)$'

main() {
    tests/tools/install.sh schemathesis
    start_pod samples configs/samples
    step "schemathesis: all phases, $EXAMPLES examples an operation, SEED=$SEED"
    (
        hooks=$PWD/tests/openapi
        cd -- "$RUN"
        SCHEMATHESIS_HOOKS=hooks PYTHONPATH=$hooks PYTHONDONTWRITEBYTECODE=1 \
            "$(tool_dir schemathesis)/venv/bin/schemathesis" run "http://localhost:$POD/openapi.json" \
            --phases examples,coverage,fuzzing,stateful --max-examples "$EXAMPLES" --seed "$SEED" \
            --checks all --exclude-checks "$REPLACED" --exclude-path-regex "$ENDLESS" \
            --suppress-health-check all --continue-on-failure --request-timeout 20 --workers 1 \
            --warnings off --no-color </dev/null
    ) || die "an answer is not as the document has it: repeat with SEED=$SEED make prove-schemathesis"
    ok "every answer is as the document has it"
}

main
