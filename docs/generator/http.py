"""Problem types and routes."""

import re

from .page import STRING, cell, page, read, rust, table

STATUSES = {
    "BAD_REQUEST": 400,
    "UNAUTHORIZED": 401,
    "FORBIDDEN": 403,
    "NOT_FOUND": 404,
    "METHOD_NOT_ALLOWED": 405,
    "NOT_ACCEPTABLE": 406,
    "REQUEST_TIMEOUT": 408,
    "CONFLICT": 409,
    "GONE": 410,
    "PRECONDITION_FAILED": 412,
    "PAYLOAD_TOO_LARGE": 413,
    "UNSUPPORTED_MEDIA_TYPE": 415,
    "EXPECTATION_FAILED": 417,
    "MISDIRECTED_REQUEST": 421,
    "UNPROCESSABLE_ENTITY": 422,
    "FAILED_DEPENDENCY": 424,
    "UPGRADE_REQUIRED": 426,
    "TOO_MANY_REQUESTS": 429,
    "INTERNAL_SERVER_ERROR": 500,
    "NOT_IMPLEMENTED": 501,
    "BAD_GATEWAY": 502,
    "SERVICE_UNAVAILABLE": 503,
    "GATEWAY_TIMEOUT": 504,
    "INSUFFICIENT_STORAGE": 507,
}


def problems():
    found, files = {}, set()
    for path, text in [
        *rust("dataplane/src"),
    ]:
        flat = re.sub(r"\\\n\s*", "", text)
        constants = dict(re.findall(rf"const (\w+): &str = {STRING};", flat))
        word = rf"(?:{STRING}|([A-Z_]+))"
        made = r"(?:Problem::new|Self::new|problem)\(\s*(?:StatusCode::)?([A-Z_]+),"
        made += rf"\s*{word},\s*(?:{STRING}|title)"
        for one in re.finditer(made, flat):
            if one[1] not in STATUSES or (one[3] and one[3] not in constants):
                continue
            kind_of = one[2] or constants[one[3]]
            title = one[4] or re.findall(rf"let title = {STRING};", flat[: one.start()])[-1]
            found[kind_of] = (STATUSES[one[1]], title)
            files.add(path)
        for one in re.finditer(rf"(?:unavailable|overload)\(\s*{STRING}", flat):
            found.setdefault(one[1], (503, "The service cannot do this now"))
            files.add(path)
        for one in re.finditer(rf"conflict\({STRING}", flat):
            found.setdefault(one[1], (409, "The record's state does not allow this"))
    found.setdefault("pool-unavailable", (503, ""))
    found["pool-unavailable"] = (503, "The pool is unavailable")
    rows = [
        [f"`{name}`", str(status), cell(title)]
        for name, (status, title) in sorted(found.items(), key=lambda one: (one[1][0], one[0]))
    ]
    about = """An error is an `application/problem+json` of RFC 9457. Its `type` is `urn:flyweight:problem:`
        with one of these words at the end. `detail` says what was wrong in this request. `errors`
        names each field that is wrong. The word is also the label `reason` of
        `flyweight_refused_requests_total`. What the gateway says of its own has the type
        `about:blank`."""
    return page("Problem types", sorted(files), about, *table(["type ends in", "status", "title"], rows))


def routes():
    source = "model/src/routes/table.rs"
    rows = []
    words = {
        "OF_USERS": "users",
        "OF_PAYMENTS": "payments",
        "OF_ORDERS": "orders",
        "OF_PRODUCTS": "products",
        "OF_TEMPLATES": "templates",
    }
    whose = {
        "Home": "the pods of the pool",
        "Any": "any pod",
        "Gateway": "the gateway itself",
        "InTurn": "each group in turn",
    }
    effects = {
        "Reads": "nothing",
        "Writes": "records",
        "WritesByKey": "records; a repeat is told by its key",
        "Caches": "caches and tickets",
    }
    for one in re.finditer(r'^    \w+: ([A-Z]+) "([^"]*)", (.+?), (\w+);$', read(source), re.M):
        method, path, owner, effect = one.groups()
        path = (
            path
            if path.startswith("/") and not path.startswith(("/{key}", "/batch"))
            else f"/api/v1/{{collection}}{path}"
        )
        owner = owner.split("(")[0]
        if owner in words:
            owner = f"the pods of {words[owner]}"
        elif owner in ("Every", "Query", "Body"):
            owner = {
                "Every": "one pod of each group, joined",
                "Query": "as its query names, or each group",
                "Body": "as its body names",
            }[owner]
        else:
            owner = whose[owner]
        rows.append([method, f"`{path}`", owner, effects[effect]])
    files = [source]
    for path, text in rust("model/src/entities"):
        for one in re.finditer(r'List \{\s*path: "([^"]+)"', text):
            home = re.search(r'pub static DEFINITION[^;]*?path: "/api/v1/([^"]+)"', text, re.S)[1]
            rows.append(["GET", f"`{one[1]}`", f"the pods of {home}", "nothing"])
            files.append(path)
    about = """Every route of the API. A collection is `users`, `payments`, `orders`, `products`,
        `notifications/templates`, `configurations` or `pools/{pool}`. The whole description, with
        every body, status and header, is served at `/docs` and as `/openapi.json`. The
        [overview](http-api.md) says what an application sends."""
    head = ["method", "path", "who answers behind a gateway", "what it changes"]
    return page("Routes", sorted(set(files)), about, *table(head, rows))
