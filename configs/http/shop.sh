#!/usr/bin/env bash
# A walk through the API with curl: records, versions, conditions, pages, the live feed. Each answer is checked.
# usage: configs/http/shop.sh [URL]     (make run serves http://localhost:8080)
set -euo pipefail

readonly URL=${1:-http://localhost:8080} API=${1:-http://localhost:8080}/api/v1
RUN=$(mktemp -d)
trap 'kill "${FEED:-}" 2>/dev/null || true; rm -rf -- "$RUN"' EXIT

# Asks, shows what was asked and answered, and wants this status: call STATUS METHOD PATH [BODY] [CURL-OPTION...]
call() {
    local wanted=$1 method=$2 path=$3 body=${4:-} status
    shift $(($# < 4 ? $# : 4))
    local options=(-sS -X "$method" -o "$RUN/body" -D "$RUN/head" -w '%{http_code}' "$@")
    [[ -z $body ]] || options+=(-H 'content-type: application/json' -d "$body")
    printf '\n\033[1m%s %s\033[0m %s\n' "$method" "$path" "$body"
    status=$(curl "${options[@]}" "$URL$path")
    grep -iE '^(HTTP|etag|location|flyweight-explain|retry-after)' "$RUN/head"
    head -c 600 "$RUN/body"
    echo
    [[ $status == "$wanted" ]] || { echo "answered with $status, not $wanted" >&2 && exit 1; }
}

id=lamp-$$
curl -sSN --max-time 30 "$API/events/stream?topics=products" >"$RUN/feed" &
FEED=$!

call 200 GET /health
call 201 POST /api/v1/products "{\"id\":\"$id\",\"name\":\"Lamp\",\"price\":\"19.90\",\"category\":\"light\",\"stock\":3}"
call 200 GET "/api/v1/products/$id" '' -H 'flyweight-explain: 1'
call 304 GET "/api/v1/products/$id" '' -H 'if-none-match: "1"'
call 200 PATCH "/api/v1/products/$id" '{"price":"21.50","attributes":{"colour":"red"}}' -H 'if-match: "1"'
call 412 PATCH "/api/v1/products/$id" '{"price":"18.00"}' -H 'if-match: "1"'
call 200 GET "/api/v1/products/$id" '' -H 'if-min-version: 2'
call 200 GET '/api/v1/products/category/light?limit=2'
call 400 POST /api/v1/products '{"name":"","price":"cheap","colour":"red"}'

call 201 POST /api/v1/users "{\"id\":\"ada-$$\",\"email\":\"ada-$$@example.com\",\"name\":\"Ada\"}"
call 409 POST /api/v1/users "{\"email\":\"ada-$$@example.com\",\"name\":\"Another Ada\"}"
call 200 GET '/api/v1/users/search?name=Ada&limit=2'
call 201 POST /api/v1/orders "{\"user_id\":\"ada-$$\",\"items\":[{\"product_id\":\"$id\",\"quantity\":2}]}"
call 200 GET "/api/v1/orders/user/ada-$$"
call 201 POST /api/v1/payments "{\"id\":\"pay-$$\",\"user_id\":\"ada-$$\",\"amount\":\"43.00\",\"currency\":\"EUR\"}"
call 200 PUT "/api/v1/payments/pay-$$/status" '{"status":"completed"}'
call 409 PUT "/api/v1/payments/pay-$$/status" '{"status":"cancelled"}'
call 201 PUT "/api/v1/configurations/theme-$$" '{"value":{"dark":true}}'
call 200 GET /api/v1/pools
call 204 DELETE "/api/v1/products/$id"
call 404 GET "/api/v1/products/$id"

printf '\n\033[1mthe live feed said of %s\033[0m\n' "$id"
for _ in $(seq 100); do
    grep -q "product_deleted.*\"$id\"" "$RUN/feed" && break
    sleep 0.1
done
grep "\"$id\"" "$RUN/feed" | cut -c1-140
grep -q "product_deleted.*\"$id\"" "$RUN/feed"
