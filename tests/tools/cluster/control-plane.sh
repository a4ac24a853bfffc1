# Starts etcd, the API server, the controllers, the scheduler and the cluster's DNS, in node 1's network. Sourced.
# shellcheck shell=bash

declare -A PARTS=() # process ids by name, of what this run of the script started

# run NAME FLAG...: one part of Kubernetes, its log in logs/NAME.log
run() {
    # a young heap is small, and collecting it would take an eighth of the API server's time
    start_in_node 1 "$STATE/logs/$1.log" env GOGC=400 "$KUBERNETES" "$@"
    PARTS[$1]=$STARTED
}

# await SECONDS CONDITION WHAT: at once an error where a part has ended instead
await() {
    wait_until "$1" holds_or_ended "$2" || die "$3 did not become ready within $1 s"
    "$2" || die "$(ended_parts) ended before $3 was ready"
}

holds_or_ended() { "$1" || [[ -n $(ended_parts) ]]; }

ended_parts() {
    local name
    for name in "${!PARTS[@]}"; do
        kill -0 "${PARTS[$name]}" 2>/dev/null || echo "$name"
    done
}

start_etcd() {
    # a test may lose its cluster with the machine, so etcd need not wait for the disk
    run etcd --data-dir="$STATE/etcd" --unsafe-no-fsync --log-level=warn \
        --listen-client-urls=http://127.0.0.1:2379 --advertise-client-urls=http://127.0.0.1:2379 \
        --listen-peer-urls=http://127.0.0.1:2380
}

start_api() {
    local pki=$STATE/pki
    run kube-apiserver --etcd-servers=http://127.0.0.1:2379 \
        --advertise-address="$(node_ip 1)" --secure-port=6443 --allow-privileged=true \
        --tls-cert-file="$pki/apiserver.crt" --tls-private-key-file="$pki/apiserver.key" --client-ca-file="$pki/ca.crt" \
        --authorization-mode=Node,RBAC --enable-admission-plugins=NodeRestriction \
        --service-cluster-ip-range="$SERVICE_RANGE" \
        --service-account-issuer=https://kubernetes.default.svc.cluster.local \
        --service-account-key-file="$pki/accounts.pub" --service-account-signing-key-file="$pki/accounts.key" \
        --kubelet-client-certificate="$pki/admin.crt" --kubelet-client-key="$pki/admin.key" \
        --kubelet-preferred-address-types=InternalIP \
        --requestheader-client-ca-file="$pki/ca.crt" --requestheader-allowed-names=front-proxy \
        --requestheader-username-headers=X-Remote-User --requestheader-group-headers=X-Remote-Group \
        --requestheader-extra-headers-prefix=X-Remote-Extra- \
        --proxy-client-cert-file="$pki/front-proxy.crt" --proxy-client-key-file="$pki/front-proxy.key" \
        --enable-aggregator-routing=true --profiling=false
}

start_controllers() {
    local pki=$STATE/pki
    # as the administrator: an account for each of the controllers takes 5 seconds to set up
    run kube-controller-manager --leader-elect=false --kube-api-qps=200 --kube-api-burst=400 \
        --kubeconfig="$STATE/kubeconfig" --authentication-kubeconfig="$STATE/kubeconfig" \
        --authorization-kubeconfig="$STATE/kubeconfig" \
        --service-account-private-key-file="$pki/accounts.key" --root-ca-file="$pki/ca.crt" \
        --cluster-signing-cert-file="$pki/ca.crt" --cluster-signing-key-file="$pki/ca.key" \
        --horizontal-pod-autoscaler-sync-period=5s --bind-address=127.0.0.1 --profiling=false
    run kube-scheduler --leader-elect=false --kube-api-qps=200 --kube-api-burst=400 --kubeconfig="$pki/scheduler.kubeconfig" \
        --authentication-kubeconfig="$pki/scheduler.kubeconfig" --authorization-kubeconfig="$pki/scheduler.kubeconfig" \
        --bind-address=127.0.0.1 --profiling=false
}

# CoreDNS runs beside the API server; the Service that pods ask has its address by hand.
start_dns() {
    cat >"$STATE/Corefile" <<COREFILE
.:5300 {
    errors
    health 127.0.0.1:5301
    ready 127.0.0.1:5302
    kubernetes cluster.local in-addr.arpa ip6.arpa {
        kubeconfig $STATE/kubeconfig
        ttl 5
    }
    template ANY ANY . {
        rcode NXDOMAIN
    }
    cache 5
}
COREFILE
    run coredns -conf "$STATE/Corefile"
    kubectl apply -f - >/dev/null <<YAML
apiVersion: v1
kind: Service
metadata: {name: kube-dns, namespace: kube-system, labels: {k8s-app: kube-dns}}
spec:
  clusterIP: $DNS_SERVICE_IP
  ports:
    - {name: dns, port: 53, protocol: UDP, targetPort: 5300}
    - {name: dns-tcp, port: 53, protocol: TCP, targetPort: 5300}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: kube-dns, namespace: kube-system, labels: {kubernetes.io/service-name: kube-dns}}
addressType: IPv4
ports:
  - {name: dns, port: 5300, protocol: UDP}
  - {name: dns-tcp, port: 5300, protocol: TCP}
endpoints:
  - addresses: [$(node_ip 1)]
YAML
}

etcd_ready() { in_node 1 curl -fsS -m 2 -o /dev/null http://127.0.0.1:2379/readyz 2>/dev/null; }
api_ready() { [[ $(kubectl get --raw '/readyz?timeout=2s' 2>/dev/null) == ok ]]; }
controllers_ready() { kubectl get serviceaccount default -o name >/dev/null 2>&1; }
dns_ready() { in_node 1 curl -fsS -m 2 -o /dev/null http://127.0.0.1:5302/ready 2>/dev/null; }
