#!/usr/bin/env bash
# One node: containerd, kubelet and kube-proxy. cluster.sh runs it; not meant to be called by hand.
#
# It is process 1 of its own process and mount namespaces, so when it is killed the kernel ends every container
# and undoes every mount of the node, whatever state they were in.
set -euo pipefail

main() {
    NODE=$1 # the folder of the node, with the file "settings" that cluster.sh wrote
    # shellcheck source=/dev/null
    . "$NODE/settings"
    own_mounts
    write_containerd
    write_kubelet
    containerd --config "$NODE/containerd.toml" >"$LOGS/containerd-$NAME.log" 2>&1 &
    until ctr --address "$SOCKET" version >/dev/null 2>&1; do sleep 0.05; done
    ctr --address "$SOCKET" --namespace k8s.io images import "$PAUSE_IMAGE" >/dev/null
    until curl -fsSk -m 2 -o /dev/null "$API/livez"; do sleep 0.1; done
    "$KUBERNETES" kubelet --config="$NODE/kubelet.yaml" --kubeconfig="$NODE/kubeconfig" --root-dir="$NODE/kubelet" \
        --cert-dir="$NODE/kubelet-pki" --node-ip="$IP" --hostname-override="$NAME" >"$LOGS/kubelet-$NAME.log" 2>&1 &
    # no connection tracking limits: they belong to the host
    "$KUBERNETES" kube-proxy --kubeconfig="$PROXY_KUBECONFIG" --proxy-mode=iptables --cluster-cidr="$POD_RANGE" \
        --hostname-override="$NAME" --conntrack-max-per-core=0 --conntrack-tcp-timeout-established=0 \
        --conntrack-tcp-timeout-close-wait=0 --iptables-min-sync-period=200ms >"$LOGS/kube-proxy-$NAME.log" 2>&1 &
    # process 1 must stay, and take in the orphans of its namespace
    while :; do wait -n || true; sleep 0.2; done
}

# Folders that the programs insist on, empty and the node's own.
own_mounts() {
    mount --make-rprivate /
    mount -t proc proc /proc
    local folder
    for folder in /run/containerd /run/netns /var/lib/cni /var/lib/kubelet /var/log/containers /var/log/pods; do
        mkdir -p "$folder"
        mount -t tmpfs -o mode=755 tmpfs "$folder"
    done
    mount --make-rshared /
}

write_containerd() {
    mkdir -p "$NODE/cni"
    cat >"$NODE/containerd.toml" <<TOML
version = 2
root = "$NODE/containerd"
state = "/run/containerd/state"
oom_score = 0
disabled_plugins = ["io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs"]
[grpc]
  address = "$SOCKET"
[plugins."io.containerd.internal.v1.opt"]
  path = "$NODE/opt"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "flyweight.dev/pause:1"
  disable_apparmor = true
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".containerd]
    default_runtime_name = "runc"
    snapshotter = "$SNAPSHOTTER"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "$NODE/cni"
TOML
    cat >"$NODE/cni/10-flyweight.conflist" <<JSON
{
  "cniVersion": "0.4.0",
  "name": "flyweight",
  "plugins": [
    {
      "type": "bridge", "bridge": "cni0", "isGateway": true, "hairpinMode": true,
      "ipam": {"type": "host-local", "ranges": [[{"subnet": "$PODS"}]], "routes": [{"dst": "0.0.0.0/0"}]}
    },
    {"type": "portmap", "capabilities": {"portMappings": true}}
  ]
}
JSON
}

# Differs from the defaults in where things are and in being quick; a node has no say over the host's disk.
write_kubelet() {
    : >"$NODE/resolv.conf"
    cat >"$NODE/kubelet.yaml" <<YAML
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
authentication:
  anonymous: {enabled: false}
  webhook: {enabled: true}
  x509: {clientCAFile: $CA}
authorization: {mode: Webhook}
containerRuntimeEndpoint: unix://$SOCKET
cgroupDriver: cgroupfs
cgroupRoot: $CGROUP
failCgroupV1: false
failSwapOn: false
clusterDNS: [$DNS]
clusterDomain: cluster.local
resolvConf: $NODE/resolv.conf
podLogsDir: $NODE/pod-logs
volumePluginDir: $NODE/volume-plugins
evictionHard: {memory.available: 50Mi, nodefs.available: 1%, imagefs.available: 1%}
imageGCHighThresholdPercent: 100
imageGCLowThresholdPercent: 99
nodeStatusUpdateFrequency: 5s
syncFrequency: 20s
serializeImagePulls: false
readOnlyPort: 0
YAML
}

main "$@"
