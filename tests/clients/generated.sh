#!/usr/bin/env bash
# Makes clients from the OpenAPI document by three generators, builds them, and makes ten calls with each:
# openapi-typescript, openapi-python-client, openapi-generator (Java). Needs Node, Python, Java and Maven.
set -euo pipefail
cd "$(dirname -- "${BASH_SOURCE[0]}")/../.."
. tests/tools/lib.sh

WORK=$CACHE/clients
CALLS=$PWD/tests/clients/generated
BIN=${FLYWEIGHT_BIN_DIR:-${CARGO_TARGET_DIR:-$CACHE/target}/debug}
RUN=$(mktemp -d)
PORT=$(tests/tools/port.sh)
ADMIN_PORT=$(tests/tools/port.sh)
URL=http://localhost:$PORT
SERVER=
readonly WORK CALLS BIN RUN PORT ADMIN_PORT URL

main() {
    local program
    for program in npm python3 java mvn curl; do
        have "$program" || die "$program is needed"
    done
    trap finish EXIT
    mkdir -p "$WORK"
    "$BIN/flyweight-dataplane" serve --manifests configs/samples --data-dir "$RUN/data" --drain-delay 0s \
        --port "$PORT" --admin-port "$ADMIN_PORT" >"$RUN/log" 2>&1 &
    SERVER=$!
    wait_until 30 curl --silent --fail --output "$RUN/openapi.json" "$URL/openapi.json" || die "no document: $(cat "$RUN/log")"
    step "openapi-typescript $OPENAPI_TYPESCRIPT_VERSION"
    typescript
    step "openapi-python-client $OPENAPI_PYTHON_CLIENT_VERSION"
    python
    step "openapi-generator $OPENAPI_GENERATOR_VERSION, Java with the JDK's HttpClient"
    java_client
    ok "three generated clients made ten calls each"
}

typescript() {
    mkdir -p "$WORK/typescript"
    cd "$WORK/typescript"
    echo '{ "type": "module", "private": true }' >package.json
    npm install --silent --no-audit --no-fund "openapi-typescript@$OPENAPI_TYPESCRIPT_VERSION" \
        "openapi-fetch@$OPENAPI_FETCH_VERSION" "typescript@$TYPESCRIPT_VERSION" "@types/node@20"
    npx openapi-typescript "$RUN/openapi.json" -o schema.d.ts >/dev/null
    cp -- "$CALLS/calls.ts" .
    npx tsc --strict --target es2022 --module nodenext --moduleResolution nodenext --skipLibCheck calls.ts
    node calls.js "$URL"
    cd - >/dev/null
}

python() {
    mkdir -p "$WORK/python"
    cd "$WORK/python"
    [[ -x venv/bin/pip ]] || python3 -m venv venv
    venv/bin/pip --quiet --disable-pip-version-check install "openapi-python-client==$OPENAPI_PYTHON_CLIENT_VERSION"
    # a stream of lines is for its reader to take apart
    printf '%s\n' 'post_hooks: []' 'content_type_overrides:' '  application/x-ndjson: application/octet-stream' >config.yaml
    rm -rf client
    venv/bin/openapi-python-client generate --path "$RUN/openapi.json" --output-path client --meta none \
        --config config.yaml --fail-on-warning
    cp -- "$CALLS/calls.py" .
    venv/bin/python calls.py "$URL"
    cd - >/dev/null
}

java_client() {
    local jar=$WORK/openapi-generator-cli-$OPENAPI_GENERATOR_VERSION.jar copy=org.apache.maven.plugins:maven-dependency-plugin:3.8.1
    [[ -f $jar ]] || mvn -q -B "$copy:copy" "-DoutputDirectory=$WORK" \
        "-Dartifact=org.openapitools:openapi-generator-cli:$OPENAPI_GENERATOR_VERSION"
    rm -rf "$WORK/java"
    java -jar "$jar" generate -i "$RUN/openapi.json" -g java --library native -o "$WORK/java" \
        --additional-properties=useJakartaEe=true,hideGenerationTimestamp=true >"$RUN/generator.log" 2>&1 ||
        die "$(tail -n 20 "$RUN/generator.log")"
    cp -- "$CALLS/Calls.java" "$WORK/java/src/main/java/"
    cd "$WORK/java"
    mvn -q -B -DskipTests compile "$copy:copy-dependencies" -DoutputDirectory=target/lib
    java -cp 'target/classes:target/lib/*' Calls "$URL"
    cd - >/dev/null
}

finish() {
    [[ -z $SERVER ]] || kill -KILL "$SERVER" 2>/dev/null || true
    rm -rf -- "$RUN"
}

main
