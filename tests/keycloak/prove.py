#!/usr/bin/env python3
"""Shows with the tokens of a real Keycloak who is let in, who is not, and why: tests/keycloak.sh runs it.

usage: prove.py FOLDER-OF-KEYCLOAK PROGRAM

A realm is imported (realm.json); its keys are changed through the admin API. The program serves on embedded
stores and knows nothing of Keycloak but the realm's address. Each check asserts a status and its reason.
"""

import base64
import contextlib
import hashlib
import hmac
import http.client
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

HERE = Path(__file__).resolve().parent
START_S = 240
# The least time between two fetches of keys, and as much again for a busy machine.
FETCH_S = 20

MANIFESTS = """
apiVersion: flyweight.dev/v1alpha1
kind: CacheTier
metadata: {{ name: hot }}
spec: {{ memory: {{ maxBytes: 16Mi }}, ttl: 60s }}
---
apiVersion: flyweight.dev/v1alpha1
kind: FlyweightPool
metadata: {{ name: products }}
spec:
  entity: Product
  tierRefs: [{{ name: hot }}]
  access: {{ read: [support], write: [catalog-admin] }}
---
apiVersion: flyweight.dev/v1alpha1
kind: FlyweightPool
metadata: {{ name: users }}
spec:
  entity: User
  tierRefs: [{{ name: hot }}]
  access: {{ read: [email], write: [catalog-admin] }}
---
apiVersion: flyweight.dev/v1alpha1
kind: FlyweightService
metadata: {{ name: shop }}
spec:
  image: flyweight/dataplane:0.1.0
  poolRefs: [{{ name: products }}, {{ name: users }}]
  backends:
    - {{ name: mysql, mysql: {{ secretRef: {{ name: shop-mysql }} }} }}
    - {{ name: mongodb, mongodb: {{ secretRef: {{ name: shop-mongodb }}, database: shop }} }}
  security:
    jwt:
      issuers:
        - issuer: {issuer}
          audiences: [shop-api]
          rolesClaim: /realm_access/roles
          scopeClaim: /scope
          leeway: 1s
"""


def main(keycloak_dir, program):
    run = Path(tempfile.mkdtemp(prefix="keycloak-"))
    keycloak = Keycloak(keycloak_dir, run)
    service = Service(program, run, "first", keycloak.issuer)
    try:
        step("Keycloak starts, and imports a realm")
        keycloak.start()
        service.start()
        roles(keycloak, service)
        bad_tokens(keycloak, service)
        keys_change(keycloak, service)
        issuer_away(keycloak, service, Service(program, run, "second", keycloak.issuer))
        print(" ok tokens of Keycloak are held against its keys, and against what the service says")
    except BaseException:
        for log in sorted(run.glob("*.log")):
            end = log.read_text().splitlines()[-15:]
            print(f"--- the end of {log.name}", *end, sep="\n", file=sys.stderr)
        raise
    finally:
        for one in Process.running[:]:
            one.stop(signal.SIGKILL)
        shutil.rmtree(run, ignore_errors=True)


def roles(keycloak, service):
    step("roles of the realm say who reads and writes")
    importer, ann = keycloak.client("importer"), keycloak.user("ann", "ann-secret")
    assert claims(importer)["iss"] == keycloak.issuer
    check("without a token", service.read(None), 401)
    check("a client whose account has the role that writes", service.write(importer, "tea"), 201)
    check("it reads, too", service.read(importer, "tea"), 200)
    check("a user whose role reads", service.read(ann, "tea"), 200)
    check("a user without the role that writes", service.write(ann, "milk"), 403)
    check("a user whose token has the scope that counts as a role", service.users(ann), 200)
    check("neither role nor scope", service.users(keycloak.client("importer", scope_left_out=True)), 403)


def bad_tokens(keycloak, service):
    step("what is not the realm's, not for this service, or over is refused")
    stranger, good = keycloak.client("stranger"), keycloak.client("importer")
    check("a token for another audience", service.read(stranger), 401, "it is for others (aud)")
    head, body, signature = good.split(".")
    altered = claims(good) | {"sub": "somebody-else"}
    tampered = f"{head}.{encoded(altered)}.{signature}"
    check("a token that was altered", service.read(tampered), 401, "its signature does not match")
    unsigned = f"{encoded({'alg': 'none', 'typ': 'JWT'})}.{body}."
    check("a token without a signature", service.read(unsigned), 401, "it is malformed")
    by_public_key = service.read(confused(keycloak, body))
    check("one signed by the public key as a secret", by_public_key, 401, "by an algorithm that is not")
    check("another realm's token", service.read(keycloak.admin()), 401, "(iss) is none of those")
    hasty = keycloak.client("hasty")
    check("a token that lives for 4 s", service.read(hasty), 200)
    feed = Feed(service, hasty)
    feed.must_last("the live feed that it opened")
    wait(max(0, claims(hasty)["exp"] - time.time()) + 2.5)
    feed.must_end("the live feed that it opened")
    check("the same when it is over", service.read(hasty), 401, "it has expired")
    check("a new one of the same client", service.read(keycloak.client("hasty")), 200)


def keys_change(keycloak, service):
    step("keys come and go without a restart")
    old = keycloak.client("importer")
    former, feed = keycloak.signing_provider(), Feed(service, old)
    keycloak.add_provider("second", 200)
    new = keycloak.client("importer")
    assert key_of(old) != key_of(new), "Keycloak signs by its new key"
    eventually("a token of the new key", lambda: service.read(new), 200)
    check("one of the old key, which Keycloak still gives out", service.read(old), 200)
    feed.must_last("the live feed that it opened")
    keycloak.remove_provider(former)
    keycloak.add_provider("third", 300)
    third = keycloak.client("importer")
    assert key_of(third) not in (key_of(old), key_of(new))
    eventually("a token of a third key", lambda: service.read(third), 200)
    check("the old key is gone, and its token refused", service.read(old), 401, "no such key")
    feed.must_end("the live feed that it opened")
    check("the second key goes on", service.read(new), 200)


def issuer_away(keycloak, service, second):
    step("Keycloak is away")
    known, unseen = keycloak.client("importer"), keycloak.client("importer")
    check("a token", service.read(known), 200)
    keycloak.stop(signal.SIGKILL)
    check("a token that was seen before", service.read(known), 200)
    check("a token that was never seen, by a known key", service.read(unseen), 200)
    second.start()
    check("a service that starts meanwhile", second.read(known), 503, "its issuer does not give out its keys")
    assert second.problem["type"].endswith("issuer-away"), second.problem
    check("it still asks for a token", second.read(None), 401)
    step("Keycloak comes back")
    keycloak.start()
    eventually("the same service, without a restart", lambda: second.read(known), 200)


class Process:
    """A process of its own group, with a log."""

    running = []

    def __init__(self, name, run):
        self.log, self.child = run / f"{name}.log", None

    def spawn(self, command, environment=None):
        with self.log.open("a") as log:
            environment = os.environ | (environment or {})
            self.child = subprocess.Popen(
                command, stdout=log, stderr=subprocess.STDOUT, env=environment, start_new_session=True
            )
        Process.running.append(self)

    def stop(self, how):
        if self.child.poll() is None:
            os.killpg(self.child.pid, how)
        self.child.wait()
        Process.running.remove(self)

    def wait_for(self, url, seconds):
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            assert self.child.poll() is None, f"{self.log.stem} ended"
            try:
                with urllib.request.urlopen(url, timeout=5):
                    return
            except OSError:
                time.sleep(0.2)
        raise AssertionError(f"{self.log.stem} is not there after {seconds} s")


class Keycloak(Process):
    """A server of its own, with all its data in the folder of this run."""

    def __init__(self, installed, run):
        super().__init__("keycloak", run)
        self.home, port = run / "keycloak", free_port()
        # it keeps its data, and what it makes of its settings, beside its programs
        shutil.copytree(installed, self.home, ignore=shutil.ignore_patterns(".ready"))
        (self.home / "data" / "import").mkdir(parents=True)
        shutil.copy(HERE / "realm.json", self.home / "data" / "import" / "realm.json")
        self.port, self.url = port, f"http://localhost:{port}"
        self.issuer = f"{self.url}/realms/shop"

    def start(self):
        start = time.monotonic()
        imports = [] if self.log.exists() else ["--import-realm"]
        self.spawn(
            ["bash", self.home / "bin" / "kc.sh", "start-dev", *imports, f"--http-port={self.port}"],
            {
                "KC_BOOTSTRAP_ADMIN_USERNAME": "admin",
                "KC_BOOTSTRAP_ADMIN_PASSWORD": "admin-secret",
                "JAVA_OPTS_KC_HEAP": "-Xms64m -Xmx512m",
            },
        )
        self.wait_for(f"{self.issuer}/.well-known/openid-configuration", START_S)
        print(f"    Keycloak at {self.url} after {time.monotonic() - start:.0f} s", flush=True)

    def token(self, realm, **form):
        url = f"{self.url}/realms/{realm}/protocol/openid-connect/token"
        with urllib.request.urlopen(url, urllib.parse.urlencode(form).encode(), timeout=30) as answer:
            return json.load(answer)["access_token"]

    def client(self, name, scope_left_out=False):
        """By the grant client_credentials."""
        if scope_left_out:
            self.leave_scope_out(name, "email")
        return self.token(
            "shop", grant_type="client_credentials", client_id=name, client_secret=f"{name}-secret"
        )

    def user(self, name, password):
        """By the grant password."""
        return self.token("shop", grant_type="password", client_id="desk", username=name, password=password)

    def admin(self):
        return self.token(
            "master", grant_type="password", client_id="admin-cli", username="admin", password="admin-secret"
        )

    def ask(self, method, path, body=None):
        """Through the admin API."""
        request = urllib.request.Request(f"{self.url}/admin/realms/shop{path}", method=method)
        request.add_header("authorization", f"Bearer {self.admin()}")
        request.add_header("content-type", "application/json")
        data = None if body is None else json.dumps(body).encode()
        with urllib.request.urlopen(request, data, timeout=30) as answer:
            text = answer.read()
        return json.loads(text) if text else None

    def leave_scope_out(self, client, scope):
        found = self.ask("GET", f"/clients?clientId={client}")[0]["id"]
        scopes = self.ask("GET", f"/clients/{found}/default-client-scopes")
        [named] = [one["id"] for one in scopes if one["name"] == scope]
        self.ask("DELETE", f"/clients/{found}/default-client-scopes/{named}")

    def signing_key(self):
        keys = self.ask("GET", "/keys")
        active = keys["active"]["RS256"]
        return next(key for key in keys["keys"] if key["kid"] == active)

    def signing_provider(self):
        return self.signing_key()["providerId"]

    def add_provider(self, name, priority):
        """The provider with the highest priority signs."""
        provider = {
            "name": name,
            "providerId": "rsa-generated",
            "providerType": "org.keycloak.keys.KeyProvider",
            "parentId": self.ask("GET", "")["id"],
            "config": {
                "priority": [str(priority)],
                "enabled": ["true"],
                "active": ["true"],
                "algorithm": ["RS256"],
                "keySize": ["2048"],
            },
        }
        self.ask("POST", "/components", provider)

    def remove_provider(self, provider):
        self.ask("DELETE", f"/components/{provider}")


class Service(Process):
    """The data plane on embedded stores."""

    def __init__(self, program, run, name, issuer):
        super().__init__(f"service-{name}", run)
        self.program, self.data, self.problem = program, run / f"data-{name}", {}
        self.manifests = run / f"manifests-{name}"
        self.manifests.mkdir()
        (self.manifests / "shop.yaml").write_text(MANIFESTS.format(issuer=issuer))
        self.port, self.admin_port = free_port(), free_port()

    def start(self):
        ports = ["--port", str(self.port), "--admin-port", str(self.admin_port)]
        folders = ["--manifests", self.manifests, "--data-dir", self.data]
        self.spawn([self.program, "serve", *folders, *ports, "--drain-delay", "0s"])
        self.wait_for(f"http://localhost:{self.port}/api/v1/readyz", 60)

    def call(self, method, path, token, body=None):
        request = urllib.request.Request(f"http://localhost:{self.port}/api/v1{path}", method=method)
        if token:
            request.add_header("authorization", f"Bearer {token}")
        request.add_header("content-type", "application/json")
        data = None if body is None else json.dumps(body).encode()
        self.problem = {}
        try:
            with urllib.request.urlopen(request, data, timeout=30) as answer:
                return answer.status, ""
        except urllib.error.HTTPError as refused:
            self.problem = json.load(refused)
            return refused.code, self.problem.get("detail", "")

    def read(self, token, key=None):
        return self.call("GET", f"/products/{key}" if key else "/products?limit=1", token)

    def write(self, token, key):
        return self.call("POST", "/products", token, {"id": key, "name": key, "price": "4.90"})

    def users(self, token):
        return self.call("GET", "/users?limit=1", token)


class Feed:
    """A live feed, open from now on."""

    def __init__(self, service, token):
        url = f"http://localhost:{service.port}/api/v1/events/stream?topics=product"
        request = urllib.request.Request(url, headers={"authorization": f"Bearer {token}"})
        # longer than a silent feed is without a sign of life
        self.answer = urllib.request.urlopen(request, timeout=30)
        self.ended = threading.Event()
        threading.Thread(target=self.read, daemon=True).start()

    def read(self):
        with contextlib.suppress(OSError, http.client.HTTPException):
            while self.answer.read1():
                pass
        self.ended.set()

    def must_last(self, what):
        assert not self.ended.wait(1), f"{what} has ended"
        print(f" ok {what} goes on", flush=True)

    def must_end(self, what):
        assert self.ended.wait(10), f"{what} goes on"
        print(f" ok {what} has ended", flush=True)


def confused(keycloak, body):
    """A token whose shared secret is what everybody may know: the realm's public key."""
    key = keycloak.signing_key()
    lines = [key["publicKey"][at : at + 64] for at in range(0, len(key["publicKey"]), 64)]
    pem = "\n".join(["-----BEGIN PUBLIC KEY-----", *lines, "-----END PUBLIC KEY-----", ""])
    signed = f"{encoded({'alg': 'HS256', 'typ': 'JWT', 'kid': key['kid']})}.{body}"
    digest = hmac.new(pem.encode(), signed.encode(), hashlib.sha256).digest()
    return f"{signed}.{base64.urlsafe_b64encode(digest).rstrip(b'=').decode()}"


def encoded(value):
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


def decoded(part):
    return json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))


def claims(token):
    return decoded(token.split(".")[1])


def key_of(token):
    return decoded(token.split(".")[0])["kid"]


def free_port():
    port = subprocess.run([HERE.parent / "tools" / "port.sh"], capture_output=True, text=True, check=True)
    return int(port.stdout)


def check(what, answer, status, reason=""):
    """The answer has this status, and tells this reason."""
    assert answer[0] == status and reason in answer[1], f"{what}: {answer}, not {status} {reason}"
    print(f" ok {what}: {status} {answer[1]}".rstrip(), flush=True)


def eventually(what, ask, status):
    """An answer has this status before keys must have been fetched anew."""
    start = time.monotonic()
    answer = ask()
    while answer[0] != status and time.monotonic() - start < FETCH_S:
        time.sleep(1)
        answer = ask()
    check(f"{what}, after {time.monotonic() - start:.0f} s", answer, status)


def wait(seconds):
    print(f"    waiting {seconds:.0f} s", flush=True)
    time.sleep(seconds)


def step(what):
    print(f"==> {what}", flush=True)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__.split("\n\n")[1])
    main(Path(sys.argv[1]), sys.argv[2])
