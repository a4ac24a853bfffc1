"""What the runs of schemathesis must know of this API that a document cannot say."""

import re

import schemathesis
from schemathesis.core.failures import AcceptedNegativeData
from schemathesis.core.parameters import ParameterLocation
from schemathesis.openapi.checks import RejectedPositiveData
from schemathesis.specs.openapi.checks import negative_data_rejection, positive_data_acceptance

# Why a request may be refused that is as the document has it: the status, what the problem says, and why no schema says it.
REFUSED_RIGHTLY = [
    (412, r".*", "a condition is about the version that the record has at that moment"),
    (405, r".*", "a key may be the word of another route, which wins"),
    (422, r"^Idempotency-Key came with another request before", "it is about an earlier request"),
    (422, r"^.* of another currency", "it is about other records"),
    (400, r"cannot be joined with", "a rule between parameters"),
    (400, r"^cursor is not a cursor of", "a cursor is opaque, and of one list"),
    (400, r"must be the key of the path, or left out$", "a rule between path and body"),
    (400, r"must be 1 to 128 letters, digits", "a record that is there has any key, a new one a plain key"),
    (400, r"is not a currency code of ISO 4217", "the document has the form of a code, not the list of them"),
    (400, r"must have at most \d+ digits after the point",
     "a double has no digits that could be counted; a currency has its own"),
    (400, r"must be from -?[\d.]+ to -?[\d.]+$", "a pattern has the digits of a number that is sent as text, not its bounds"),
    (400, r"the total has more than 15 digits$", "a rule over all items"),
    (400, r"has more than 28 digits$", "a double has no digits that could be counted"),
    (400, r"must be a whole number",
     "a number with a point is not taken for a whole one, which 7.0 is to a schema"),
    (400, r"must be a time from the year 1000 to 9999", "databases hold no others"),
    (400, r"^(version|created_at|updated_at) is set by the server",
     "what was read may be sent back, and nothing else"),
    (400, r"is more than 5 minutes ahead of this server's clock$", "it is about the time of the request"),
    (400, r"^variables\.\S+ is required: (subject|body) uses it", "it is about the template"),
    (400, r"must have at most \d+ bytes as JSON$", "a length in bytes"),
    (400, r"which cannot be kept exactly: send it as text$",
     "JSON does not tell numbers apart that a double holds"),
    (400, r"holds a NUL character$", "databases hold every other character"),
    (400, r"there is no such product$", "it is about another record"),
    (400, r"^(entity|repository) must be one of", "names are those of the pools that are served"),
    (400, r"is no pool that is served here", "names are those of the pools that are served"),
    (400, r"^where", "the fields of a search are those of the repository that it names"),
    (400, r"^order_by", "the fields of a search are those of the repository that it names"),
]

# Headers that mean nothing where they are wrong: what is no entity tag is the tag of no record (RFC 9110, section 13.1),
# and what is not 1 asks for no explanation. `before_call` puts If-Min-Version right.
PASSED_OVER = {"If-Match", "If-None-Match", "If-Min-Version", "Flyweight-Explain"}


@schemathesis.hook
def before_call(ctx, case, kwargs):
    """A version that no record has yet is answered with 503, and rightly: ask for one that is there."""
    for name in list(case.headers or {}):
        if name.lower() == "if-min-version":
            case.headers[name] = "0"


@schemathesis.check
def refuses_only_what_no_schema_says(ctx, response, case):
    """`positive_data_acceptance`, but for what is refused rightly."""
    try:
        positive_data_acceptance(ctx, response, case)
    except RejectedPositiveData:
        said = faults(response)
        if not said or not all(refused_rightly(response.status_code, one) for one in said):
            raise


@schemathesis.check
def accepts_only_what_the_document_has(ctx, response, case):
    """`negative_data_rejection`, but for what is answered rightly."""
    try:
        negative_data_rejection(ctx, response, case)
    except AcceptedNegativeData:
        if not answered_rightly(response, case):
            raise


def answered_rightly(response, case):
    """Whether a request that is not as the document has it may have this answer."""
    # RFC 9110, section 13.2.1: a condition is judged before the content of a request
    if response.status_code == 412:
        return True
    # each operation of a batch has an answer of its own
    if response.status_code == 207:
        return any(result["status"] >= 400 for result in response.json()["results"])
    data = case.meta.phase.data
    # RFC 9110, section 5.1: headers that are not known are passed over
    if data.parameter_location is ParameterLocation.HEADER and "unexpected properties" in (data.description or "").lower():
        return True
    wrong = {data.parameter} if data.parameter else {mutation.parameter for mutation in data.mutations}
    return bool(wrong) and wrong <= PASSED_OVER


def faults(response):
    """What a problem says, fault by fault."""
    problem = response.json()
    errors = problem.get("errors") or []
    return [f"{error['field']} {error['message']}" for error in errors] or [problem.get("detail", "")]


def refused_rightly(status, said):
    return any(status == known and re.search(pattern, said) for known, pattern, _ in REFUSED_RIGHTLY)
