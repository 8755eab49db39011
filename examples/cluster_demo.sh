#!/usr/bin/env bash
# From data to an endpoint that scales, on a cluster: run it in the cluster's network, with the images of `make images` on its nodes.
set -euo pipefail
export AWS_ACCESS_KEY_ID=${AWS_ACCESS_KEY_ID:-boatyard} AWS_SECRET_ACCESS_KEY=${AWS_SECRET_ACCESS_KEY:-boatyard-secret}
export AWS_ENDPOINT_URL=${AWS_ENDPOINT_URL:-http://s3.s3.svc.cluster.local:9000} AWS_REGION=${AWS_REGION:-us-east-1}
export BOATYARD_IMAGE=${BOATYARD_IMAGE:-boatyard/train:dev}
project=${1:-build/cluster-demo} namespace=boatyard
say() { printf '\n── %s (%s s)\n' "$*" "$SECONDS"; }

say "what an administrator applies once"
kubectl apply -k manifests/overlays/kind
kubectl create secret generic boatyard-s3 -n $namespace --dry-run=client -o yaml --from-literal=AWS_ACCESS_KEY_ID="$AWS_ACCESS_KEY_ID" \
    --from-literal=AWS_SECRET_ACCESS_KEY="$AWS_SECRET_ACCESS_KEY" --from-literal=AWS_ENDPOINT_URL="$AWS_ENDPOINT_URL" \
    --from-literal=AWS_REGION="$AWS_REGION" | kubectl apply -f -
kubectl annotate --overwrite secret boatyard-s3 -n $namespace serving.kserve.io/s3-endpoint="${AWS_ENDPOINT_URL#*://}" \
    serving.kserve.io/s3-usehttps=0 serving.kserve.io/s3-region="$AWS_REGION" serving.kserve.io/s3-usevirtualbucket=false

say "a project"
rm -rf "$project" && boatyard init "$project" >/dev/null
cat >"$project/boatyard.yaml" <<'END'
name: digits
description: Which digit is on an 8×8 image?
data: {source: npz, path: digits.npz, target: label, features: [image]}
train: {recipe: cnn, model: {blocks: [16, 32]}, epochs: 10, learning_rate: 0.003, nodes: 2, storage: s3://boatyard/demo/training}
gate: {minimum: {accuracy: 0.9}}
push: {registry: s3://boatyard/demo/registry}
serve: {namespace: boatyard, cpu: 400m, memory: 1Gi, autoscaling: {minimum: 1, maximum: 3, metric: cpu, target: 30}}
resources: {train: {cpu: 500m, memory: 2Gi}}
kubeflow:
  secrets: {AWS_ACCESS_KEY_ID: boatyard-s3/AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY: boatyard-s3/AWS_SECRET_ACCESS_KEY}
END
cat "$project/boatyard.yaml"

say "trained by a TrainJob on two nodes"
boatyard preprocess "$project"
boatyard train "$project" --cluster --namespace $namespace

say "measured, gated, pushed to S3"
boatyard evaluate "$project"
boatyard gate "$project"
boatyard push "$project"

say "boatyard plan: what will change"
boatyard plan "$project"

say "boatyard deploy: rolled out, proved by the package's golden examples"
boatyard deploy "$project"
boatyard status "$project"

host=digits-predictor.$namespace.svc.cluster.local url=http://$host/v1/models/digits:predict
boatyard show "$project" --golden 0 >"$project/request.json"
say "curl -H 'Content-Type: application/json' -d @request.json $url"
curl -sf -H 'Content-Type: application/json' -d @"$project/request.json" "$url"
echo

replicas() { kubectl get deployment digits-predictor -n $namespace -o 'jsonpath={.status.readyReplicas}'; }
ask() { exec curl -s -o /dev/null -w '%{http_code}\n' -H 'Content-Type: application/json' -d @"$project/request.json" "$url?[1-10000000]"; }
until_replicas() {
    local began=$SECONDS
    while [ "$(replicas)" != "$1" ]; do
        [ $((SECONDS - began)) -lt 300 ] || { echo "not $1 pods within 300 s"; return 1; }
        sleep 1
    done
    echo "$1 pods answer after $((SECONDS - began)) s"
}
say "load: from one pod to three"
clients=()
trap 'kill "${clients[@]}" 2>/dev/null || true' EXIT
for client in 1 2 3 4; do
    ask >"$project/answers.$client" &
    clients+=($!)
done
until_replicas 3
kill "${clients[@]}" && wait "${clients[@]}" 2>/dev/null || true
trap - EXIT
echo "answers: $(cat "$project"/answers.* | grep -E '^[0-9]{3}$' | sort | uniq -c | tr -s ' ' | paste -sd,)"
say "no load: back to one"
until_replicas 1

say "done; next"
echo "boatyard status $project      boatyard rollback $project      boatyard delete $project"
