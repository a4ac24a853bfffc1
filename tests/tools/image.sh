#!/usr/bin/env bash
# Builds a container image archive from programs, without a container engine.
#
# One layer: the programs in /usr/local/bin, the shared libraries they need, certificates, and an unprivileged
# user. The same input gives the same bytes. Docker, Podman and containerd import the archive.
set -euo pipefail
# shellcheck source=lib.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/lib.sh"

readonly USER_ID=65532

main() {
    local name='' out='' entrypoint='' command='' folder='' writable='' programs=()
    while (($#)); do
        case $1 in
            -h | --help) help && exit 0 ;;
            --name) name=${2:?} && shift 2 ;;
            --out) out=${2:?} && shift 2 ;;
            --entrypoint) entrypoint=${2:?} && shift 2 ;;
            --command) command=${2:?} && shift 2 ;;
            --folder) folder=${2:?} && shift 2 ;;
            --writable) writable=${2:?} && shift 2 ;;
            -*) usage_error "unknown option: $1" ;;
            *) programs+=("$1") && shift ;;
        esac
    done
    [[ -n $name && -n $out && ${#programs[@]} -gt 0 ]] || { help >&2 && exit "$EXIT_USAGE"; }
    entrypoint=${entrypoint:-/usr/local/bin/$(basename -- "${programs[0]}")}

    WORK=$(mktemp -d)
    trap 'rm -rf -- "$WORK"' EXIT
    build_root "$WORK/root" "${programs[@]}"
    if [[ -n $folder ]]; then
        mkdir -p "$WORK/root${folder#*=}"
        cp -R -- "${folder%%=*}/." "$WORK/root${folder#*=}"
        chmod -R u=rwX,go=rX "$WORK/root${folder#*=}"
    fi
    # whoever the container runs as may write there
    if [[ -n $writable ]]; then mkdir -p "$WORK/root$writable" && chmod 1777 "$WORK/root$writable"; fi
    [[ -e $WORK/root$entrypoint ]] || die "the entry point $entrypoint is not in the image"
    build_archive "$name" "$entrypoint" "$out" "$command"
    ok "$name: $(du -h -- "$out" | cut -f1) in $out"
}

help() {
    cat <<'TEXT'
usage: image.sh --name REPOSITORY:TAG --out FILE.tar [OPTION...] PROGRAM...
PROGRAM... are put into /usr/local/bin; the entry point is the first of them unless said otherwise.
  --entrypoint PATH     another entry point
  --command JSON        its arguments where none are given, as a list
  --folder FROM=TO      a folder that is put into the image
  --writable PATH       a folder there that everybody may write to
TEXT
}

build_root() {
    local root=$1 program
    shift
    mkdir -p "$root"/{etc/ssl/certs,usr/local/bin,tmp,var/empty}
    for program in "$@"; do
        [[ -f $program && -x $program ]] || die "not a program: $program"
        cp -L -- "$program" "$root/usr/local/bin/"
        add_libraries "$root" "$program"
    done
    printf 'root:x:0:0:root:/:/sbin/nologin\nnonroot:x:%s:%s:nonroot:/var/empty:/sbin/nologin\n' $USER_ID $USER_ID >"$root/etc/passwd"
    printf 'root:x:0:\nnonroot:x:%s:\n' $USER_ID >"$root/etc/group"
    echo 'hosts: files dns' >"$root/etc/nsswitch.conf"
    cp -L /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/" || die "install the package ca-certificates"
    find "$root" -type d -exec chmod 755 {} +
    find "$root" -type f -perm /111 -exec chmod 755 {} +
    find "$root" -type f ! -perm /111 -exec chmod 644 {} +
    chmod 1777 "$root/tmp"
}

# Each library goes where the program looks for it, the loader to its fixed path.
add_libraries() {
    local root=$1 program=$2 library listing
    listing=$(ldd -- "$program" 2>/dev/null) || return 0 # linked statically
    if [[ $listing == *'not found'* ]]; then die "$program: $(grep 'not found' <<<"$listing")"; fi
    # /lib and /lib64 are the same as below /usr only where the system is merged, so write the path as it is asked for
    while read -r library; do
        [[ -e $root$library ]] && continue
        mkdir -p "$root$(dirname -- "$library")"
        cp -L -- "$library" "$root$library"
    done < <(grep -oE '/[^ ]+ \(0x' <<<"$listing" | sed 's/ (0x$//' | sort -u)
    # opened by name at run time: users, hosts and name servers
    for library in libnss_files.so.2 libnss_dns.so.2 libresolv.so.2; do
        local dir
        dir=$(dirname -- "$(grep -oE '/[^ ]+/libc\.so\.6' <<<"$listing" | head -1)")
        if [[ -e $dir/$library && ! -e $root$dir/$library ]]; then cp -L -- "$dir/$library" "$root$dir/"; fi
    done
}

build_archive() {
    local name=$1 entrypoint=$2 out=$3 command=${4:+,\"Cmd\":$4} layer config manifest architecture reference=$1
    architecture=$(uname -m | sed 's/x86_64/amd64/; s/aarch64/arm64/')
    # a name without a registry means Docker's, as every runtime reads it
    if [[ $name != */* ]]; then
        reference=docker.io/library/$name
    elif [[ ! ${name%%/*} =~ [.:] && ${name%%/*} != localhost ]]; then
        reference=docker.io/$name
    fi
    [[ ${reference##*/} == *:* ]] || reference+=:latest

    mkdir -p "$WORK/oci/blobs/sha256"
    pack "$WORK/root" "$WORK/layer.tar"
    layer=$(sha256sum "$WORK/layer.tar" | cut -d' ' -f1)
    mv "$WORK/layer.tar" "$WORK/oci/blobs/sha256/$layer"

    config=$(blob <<JSON
{"architecture":"$architecture","os":"linux","created":"1970-01-01T00:00:00Z","config":{"User":"$USER_ID:$USER_ID","Env":["PATH=/usr/local/bin","SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt","LISTEN=[::]"],"Entrypoint":["$entrypoint"]$command,"WorkingDir":"/"},"rootfs":{"type":"layers","diff_ids":["sha256:$layer"]}}
JSON
    )
    manifest=$(blob <<JSON
{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"sha256:$config","size":$(size_of "$config")},"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":"sha256:$layer","size":$(size_of "$layer")}]}
JSON
    )
    cat >"$WORK/oci/index.json" <<JSON
{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:$manifest","size":$(size_of "$manifest"),"platform":{"architecture":"$architecture","os":"linux"},"annotations":{"io.containerd.image.name":"$reference","org.opencontainers.image.ref.name":"${reference##*:}"}}]}
JSON
    echo '{"imageLayoutVersion":"1.0.0"}' >"$WORK/oci/oci-layout"
    # what Docker read before it knew the layout above
    echo "[{\"Config\":\"blobs/sha256/$config\",\"RepoTags\":[\"${reference#docker.io/}\"],\"Layers\":[\"blobs/sha256/$layer\"]}]" >"$WORK/oci/manifest.json"
    mkdir -p "$(dirname -- "$out")"
    pack "$WORK/oci" "$out.part"
    mv -- "$out.part" "$out"
}

pack() {
    tar --create --file="$2" --directory="$1" --format=gnu --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner .
}

# keeps what it reads as a blob, without the final newline, and prints its digest
blob() {
    local text digest
    text=$(cat)
    digest=$(printf %s "$text" | sha256sum | cut -d' ' -f1)
    printf %s "$text" >"$WORK/oci/blobs/sha256/$digest"
    echo "$digest"
}

size_of() { stat -c %s "$WORK/oci/blobs/sha256/$1"; }

main "$@"
