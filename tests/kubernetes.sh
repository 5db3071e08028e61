#!/bin/sh
# Checks deploy/kubernetes: that Kustomize can put it together, that its objects keep to the schemas of Kubernetes and of the
# Prometheus operator, and that the server's settings in it can be read. Where a tool is missing, one line names it and the exit
# code is 77.
set -eu
cd "$(dirname "$0")/.."
tail=${1:?kubernetes.sh NARROWS_TAIL}
: "${PYTHON:=python3}"
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
skip() {
    echo "kubernetes: skipped; missing: $1"
    exit 77
}
if command -v kubectl > /dev/null; then
    build="kubectl kustomize"
elif command -v kustomize > /dev/null; then
    build="kustomize build"
else
    skip "kubectl, or kustomize (https://kubectl.docs.kubernetes.io/installation/kustomize)"
fi
"$PYTHON" -m venv "$folder/venv" 2> /dev/null || skip "Python with venv (apt install python3-venv)"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check 'kubernetes-validate>=1.30' 2> /dev/null ||
    skip "a package index from which pip gets kubernetes-validate"

for overlay in base cuda; do
    $build "deploy/kubernetes/$overlay" > "$folder/$overlay.yaml"
done
"$folder/venv/bin/kubernetes-validate" --strict --quiet "$folder/base.yaml" "$folder/cuda.yaml" deploy/kubernetes/monitoring/autoscaler.yaml
grep -q 'nvidia.com/gpu: 1' "$folder/cuda.yaml"
$build deploy/kubernetes/monitoring > /dev/null

# The operator's objects are none of Kubernetes' own.
if command -v npm > /dev/null &&
    npm install --silent --no-audit --no-fund --prefix "$folder" @kubernetes-models/prometheus-operator yaml > /dev/null 2>&1; then
    cat > "$folder/check.mjs" << 'CHECK'
import fs from "node:fs";
import { parse } from "yaml";
import { ServiceMonitor } from "@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1/ServiceMonitor";
new ServiceMonitor(parse(fs.readFileSync(process.argv[2], "utf8"))).validate();
CHECK
    node "$folder/check.mjs" deploy/kubernetes/monitoring/service-monitor.yaml
else
    echo "kubernetes: the service monitor is not checked; missing: npm (apt install npm) and a registry"
fi

# What the server makes of its settings, with a bundle and an identity that are here.
"$tail" certs init --dir "$folder/certs" --name localhost > /dev/null
sed -e "s#/usr/share/narrows/bundles/#$PWD/models/bundles/#; s#/etc/narrows/identity#$folder/certs/server#" \
    -e 's/0\.0\.0\.0:746[12]/127.0.0.1:0/' deploy/kubernetes/base/tail.toml > "$folder/tail.toml"
"$tail" check --config "$folder/tail.toml" > "$folder/check" || { cat "$folder/check"; exit 1; }

# The autoscaler's metric is the one that the adapter makes, from one that the server has.
metric=$(sed -n 's/.*metric: { name: \([a-z0-9_]*\) }.*/\1/p' deploy/kubernetes/monitoring/autoscaler.yaml)
grep -q "as: $metric\$" deploy/kubernetes/monitoring/metrics-adapter.yaml
series=$(sed -n 's/.*seriesQuery: \([a-z_]*\)_bucket.*/\1/p' deploy/kubernetes/monitoring/metrics-adapter.yaml)
grep -q "^| \`$series\` | histogram" docs/METRICS.md
echo "kubernetes: the objects keep to their schemas, and the server can read its settings"
