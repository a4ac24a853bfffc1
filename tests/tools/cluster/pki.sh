# The cluster's certificates and kubeconfigs, made anew at each start. Sourced.
# shellcheck shell=bash

make_pki() {
    local pki=$STATE/pki
    mkdir -p "$pki"
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 3650 -subj /CN=flyweight-test-ca \
        -addext keyUsage=critical,keyCertSign,digitalSignature,cRLSign \
        -keyout "$pki/ca.key" -out "$pki/ca.crt" 2>/dev/null
    openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$pki/accounts.key" 2>/dev/null
    openssl pkey -in "$pki/accounts.key" -pubout -out "$pki/accounts.pub"
    certificate apiserver /CN=kube-apiserver "$(api_names)"
    certificate front-proxy /CN=front-proxy
    certificate admin /O=system:masters/CN=admin
    certificate scheduler /CN=system:kube-scheduler
    certificate proxy /CN=system:kube-proxy
    local number
    for ((number = 1; number <= NODES; number++)); do
        certificate "node$number" "/O=system:nodes/CN=system:node:node$number"
        kubeconfig "node$number" "$STATE/node$number/kubeconfig"
    done
    kubeconfig scheduler "$pki/scheduler.kubeconfig"
    kubeconfig proxy "$pki/proxy.kubeconfig"
    kubeconfig admin "$STATE/kubeconfig"
}

api_names() {
    local name=kubernetes.default
    echo "IP:$(node_ip 1),IP:$API_SERVICE_IP,IP:127.0.0.1,DNS:localhost,DNS:kubernetes,DNS:$name,DNS:$name.svc,DNS:$name.svc.cluster.local"
}

# certificate NAME SUBJECT [NAMES]: for a server where names are given, for a client otherwise
certificate() {
    local path=$STATE/pki/$1 usage=clientAuth
    if [[ -n ${3:-} ]]; then usage=serverAuth; fi
    openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "$2" -keyout "$path.key" -out "$path.csr" 2>/dev/null
    openssl x509 -req -in "$path.csr" -CA "$STATE/pki/ca.crt" -CAkey "$STATE/pki/ca.key" -days 3650 -out "$path.crt" \
        -set_serial "0x$(openssl rand -hex 8)" \
        -extfile <(echo "extendedKeyUsage=$usage" && { [[ -z ${3:-} ]] || echo "subjectAltName=$3"; }) 2>/dev/null
    rm -f -- "$path.csr"
}

# kubeconfig NAME FILE: everything in the one file, so that it may be copied
kubeconfig() {
    local pki=$STATE/pki
    mkdir -p "$(dirname -- "$2")"
    (umask 077 && cat >"$2") <<YAML
apiVersion: v1
kind: Config
current-context: flyweight
clusters:
  - name: flyweight
    cluster:
      server: https://$(node_ip 1):6443
      certificate-authority-data: $(base64 -w0 "$pki/ca.crt")
users:
  - name: $1
    user:
      client-certificate-data: $(base64 -w0 "$pki/$1.crt")
      client-key-data: $(base64 -w0 "$pki/$1.key")
contexts:
  - name: flyweight
    context:
      cluster: flyweight
      user: $1
YAML
}
