# Starts etcd, the API server, the controllers, the scheduler and the cluster's DNS, in node 1's network. Sourced.
# shellcheck shell=bash

# run NAME FLAG...: one part of Kubernetes, its log in logs/NAME.log
run() { start_in_node 1 "$STATE/logs/$1.log" "$KUBERNETES" "$@"; }

start_api() {
    local pki=$STATE/pki
    # a test may lose its cluster with the machine, so etcd need not wait for the disk
    run etcd --data-dir="$STATE/etcd" --unsafe-no-fsync --log-level=warn \
        --listen-client-urls=http://127.0.0.1:2379 --advertise-client-urls=http://127.0.0.1:2379 \
        --listen-peer-urls=http://127.0.0.1:2380
    run kube-apiserver --etcd-servers=http://127.0.0.1:2379 \
        --advertise-address="$(node_ip 1)" --secure-port=6443 --allow-privileged=true \
        --tls-cert-file="$pki/apiserver.crt" --tls-private-key-file="$pki/apiserver.key" --client-ca-file="$pki/ca.crt" \
        --authorization-mode=Node,RBAC --enable-admission-plugins=NodeRestriction \
        --service-cluster-ip-range="$SERVICE_RANGE" \
        --service-account-issuer=https://kubernetes.default.svc.cluster.local \
        --service-account-key-file="$pki/accounts.key" --service-account-signing-key-file="$pki/accounts.key" \
        --kubelet-client-certificate="$pki/kubelet-client.crt" --kubelet-client-key="$pki/kubelet-client.key" \
        --kubelet-preferred-address-types=InternalIP \
        --requestheader-client-ca-file="$pki/ca.crt" --requestheader-allowed-names=front-proxy \
        --requestheader-username-headers=X-Remote-User --requestheader-group-headers=X-Remote-Group \
        --requestheader-extra-headers-prefix=X-Remote-Extra- \
        --proxy-client-cert-file="$pki/front-proxy.crt" --proxy-client-key-file="$pki/front-proxy.key" \
        --enable-aggregator-routing=true --profiling=false
}

start_controllers() {
    local pki=$STATE/pki
    run kube-controller-manager --leader-elect=false \
        --kubeconfig="$pki/controller-manager.kubeconfig" --use-service-account-credentials=true \
        --authentication-kubeconfig="$pki/controller-manager.kubeconfig" \
        --authorization-kubeconfig="$pki/controller-manager.kubeconfig" \
        --service-account-private-key-file="$pki/accounts.key" --root-ca-file="$pki/ca.crt" \
        --cluster-signing-cert-file="$pki/ca.crt" --cluster-signing-key-file="$pki/ca.key" \
        --horizontal-pod-autoscaler-sync-period=5s --bind-address=127.0.0.1 --profiling=false
    run kube-scheduler --leader-elect=false --kubeconfig="$pki/scheduler.kubeconfig" \
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

api_ready() { [[ $(kubectl get --raw '/readyz?timeout=2s' 2>/dev/null) == ok ]]; }
controllers_ready() { kubectl get serviceaccount default -o name >/dev/null 2>&1; }
dns_ready() { in_node 1 curl -fsS -m 2 -o /dev/null http://127.0.0.1:5302/ready 2>/dev/null; }
