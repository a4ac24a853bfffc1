"""Events of the operator, from where it sends them."""

import re

from .page import STRING, page, rust, table


def events():
    found = {}
    files = ["operator/src/publish.rs", "operator/src/apply.rs", "operator/src/deletion.rs"]
    for path in files:
        text = dict(rust("operator/src"))[path]
        for one in re.finditer(rf"\.(normal|warning)\(\s*&[^,]+,\s*{STRING}", text):
            found[one[2]] = one[1]
        for one in re.finditer(rf"self\.did\(\s*{STRING}", text):
            found[one[1]] = "normal"
        warned = re.search(r"WARNED_OF: [^=]*= \[([^\]]*)\]", text)
        for reason in re.findall(r"Reason::(\w+)", warned[1]) if warned else []:
            found[reason] = "warning"
        if "ConditionType::Ready.as_str(), ready.message" in text:
            found["Ready"] = "normal"
        for one in re.finditer(rf"let reason = [^;]*;", text):
            for reason in re.findall(STRING, one[0]):
                found[reason] = "normal"
    words = dict(re.findall(r"/// ([^\n]+)\n +(\w+),", dict(rust("crds/src"))["crds/src/conditions.rs"]))
    words = {word: text for text, word in words.items()}
    rows = [
        [f"`{reason}`", severity.capitalize(), EVENTS.get(reason) or words[reason]]
        for reason, severity in sorted(found.items())
    ]
    about = """What `kubectl describe fws` shows. One object gets at most 30 events of one severity at once,
        then one every 10 seconds. A lost event is only logged: the conditions of the status are what
        counts. See also the [conditions](conditions.md)."""
    return page("Events", files, about, *table(["reason", "type", "when"], rows))


EVENTS = {
    "Adopted": "An orphan that carries the service's labels belongs to it again.",
    "ApplyFailed": "The API server refuses a child: a right, a quota or an admission policy.",
    "BackendUnreachable": "Pods cannot reach a store or a broker that writes need.",
    "BacklogLeft": "The service was deleted and events were not published in time: they stay in the stores.",
    "CanaryFailed": "The canary did worse than the others: the change is held back.",
    "CanaryPassed": "The canary did no worse: the other pods follow.",
    "CanaryStarted": "One pod takes the change first.",
    "CertManagerMissing": "An issuer is named, and the cluster knows no Certificate of cert-manager.",
    "Created": "A child was made; of an encryption key, too: back it up.",
    "InvalidConfiguration": "The resources have faults: each is named with its path.",
    "MigrationFailed": "The stores could not be prepared for another image.",
    "Overloaded": "More than half of the requests of a pod are refused for overload.",
    "PoolUnavailable": "A pool cannot be used: its table, a column or a right is missing.",
    "Pruned": "A child that is no longer wanted was removed.",
    "Ready": "The service became ready.",
    "Repaired": "What somebody else changed or deleted was put right.",
    "RequestsFailing": "More than half of the requests of a pod fail.",
    "SecretMissing": "A Secret that the spec names is not there.",
    "Updated": "A child was changed.",
}
