#!/usr/bin/env bash
# Holds a pod and a gateway against h2spec, and against curl, over cleartext and TLS. docs/reference/http2.md says which cases may fail, and why.
set -euo pipefail
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."
. tests/tools/edge.sh

readonly ALLOWED=docs/reference/http2.md
# a GET of it is answered with a body, and a POST only once its own body is there
readonly TARGET=/api/v1/products
readonly REPEATS=20
FAULTS=0

main() {
    tests/tools/install.sh h2spec
    PROGRAM=$(tool_dir h2spec)/h2spec
    start_pod plain configs/samples
    start_gateway plain configs/samples "$POD"
    prove cleartext
    make_tls
    start_pod secure "$RUN/samples" --security "$RUN/security"
    start_gateway secure "$RUN/samples" "$POD" --security "$RUN/security"
    prove TLS --tls --insecure
    ((FAULTS == 0)) || die "$FAULTS answers were not as HTTP/2 has it"
    ok "HTTP/2 is as RFC 9113 has it, but for what $ALLOWED says"
}

# Pod and gateway over one transport: prove TRANSPORT [ARGUMENT...]
prove() {
    local transport=$1
    shift
    hold pod "$POD" "$transport" "$@"
    hold gateway "$GATEWAY" "$transport" "$@"
    ask pod "$POD" "$transport"
    ask gateway "$GATEWAY" "$transport"
}

# All cases at one server: hold WHO PORT TRANSPORT [ARGUMENT...]
hold() {
    local who=$1 port=$2 transport=$3 failed
    shift 3
    step "h2spec: $who, $transport"
    h2spec "$port" "$@"
    note "$(grep -a 'tests, ' "$RUN/printed" | tail -n 1)"
    grep -q '<testcase' "$RUN/report.xml" || die "h2spec did not run: $(cat "$RUN/printed")"
    failed=$(failures)
    cp -- "$RUN/printed" "$RUN/all"
    for case in $failed; do judge "$case" "$port" "$transport" "$@"; done
}

# Runs cases, or all, and leaves $RUN/report.xml and $RUN/printed: h2spec PORT [ARGUMENT...]
h2spec() {
    local port=$1
    shift
    rm -f "$RUN/report.xml"
    "$PROGRAM" --host localhost --port "$port" --timeout 5 --path "$TARGET" --strict \
        --junit-report "$RUN/report.xml" "$@" >"$RUN/printed" 2>&1 || true
}

# The names of the cases that failed or were skipped in the last run, such as http2/5.1/8.
failures() {
    awk '/<testsuite / { number = 0 }
        /<testcase / { number++; match($0, /package="[^"]*"/); name = substr($0, RSTART + 9, RLENGTH - 10) "/" number }
        /<(failure|error|skipped)>/ { print name }' "$RUN/report.xml"
}

# Whether a failure may be: judge CASE PORT TRANSPORT [ARGUMENT...]
judge() {
    local case=$1 port=$2 transport=$3 listed repeat
    shift 3
    listed=$(allowed_in "$ALLOWED" | grep -E "^$case\|($transport|everywhere)\|" || true)
    case ${listed##*|} in
        always) note "$case fails, as $ALLOWED says" ;;
        "at times")
            if repeat=$(passes "$case" "$port" "$@"); then
                note "$case failed, as $ALLOWED says it may, and passed at repeat $repeat"
            else
                fault "$case may fail at times, and failed $REPEATS times"
            fi
            ;;
        *) fault "$case fails and is not in $ALLOWED: $(sed -n '/^Failures/,/^Finished/p' "$RUN/all")" ;;
    esac
}

# Repeats one case until it passes, and prints how often that took: passes CASE PORT [ARGUMENT...]
passes() {
    local case=$1 port=$2 repeat
    shift 2
    for repeat in $(seq "$REPEATS"); do
        h2spec "$port" "$@" "$case"
        if grep -q '<testcase' "$RUN/report.xml" && [[ -z $(failures) ]]; then
            echo "$repeat"
            return
        fi
    done
    return 1
}

# Requests as curl makes them, with a body and without: ask WHO PORT TRANSPORT
ask() {
    local who=$1 port=$2 url=http://localhost:$2 way
    [[ $3 == cleartext ]] || url=https://localhost:$port
    step "curl: $who, $3"
    for way in --http2-prior-knowledge --http2 --http1.1; do
        local version=2
        # in cleartext --http2 asks for h2c, which is not taken up
        [[ $way != --http1.1 && ($3 == TLS || $way != --http2) ]] || version=1.1
        expect "$version 201" "$way" --request POST --header "Content-Type: application/json" \
            --data '{ "name": "lamp", "price": 1 }' "$url$TARGET"
        expect "$version 200" "$way" "$url$TARGET"
        expect "$version 426" "$way" "$url/ws"
    done
}

# One request, and the version and status of its answer: expect "VERSION STATUS" ARGUMENT...
expect() {
    local wanted=$1 found
    shift
    found=$(curl --silent --insecure --max-time 10 --output /dev/null --write-out '%{http_version} %{http_code}' "$@" || true)
    [[ $found == "$wanted" ]] || fault "curl $*: $found instead of $wanted"
}

fault() {
    note "FAULT: $*"
    FAULTS=$((FAULTS + 1))
}

main
