#!/usr/bin/env bash
# Serve a project's package, ask it once with curl, show request and prediction.
set -euo pipefail
project=$1 port=${2:-8080}
package=$(boatyard show "$project" --path)
name=$(boatyard show "$project" --name)
work=$(mktemp -d)
boatyard serve "$package" --port "$port" --grpc-port $((port + 1)) >"$work/server.log" 2>&1 &
server=$!
trap 'kill $server 2>/dev/null; wait $server 2>/dev/null || true; rm -rf "$work"' EXIT
for _ in $(seq 300); do
    curl -sf "http://127.0.0.1:$port/v1/models/$name" >/dev/null && break
    kill -0 $server 2>/dev/null || { cat "$work/server.log"; exit 1; }
    sleep 0.1
done
boatyard show "$package" --golden 0 >"$work/request.json"
echo
echo "request   $(boatyard show "$package" --golden 0 --picture)"
echo "  curl -H 'Content-Type: application/json' -d @request.json http://127.0.0.1:$port/v1/models/$name:predict"
echo "prediction $(curl -sf -H 'Content-Type: application/json' -d @"$work/request.json" "http://127.0.0.1:$port/v1/models/$name:predict")"
echo
echo "next      boatyard serve $project                  keep it running"
echo "          boatyard run $project --set train.epochs=10    only what that touches runs again"
echo "          boatyard render $project                 the InferenceService for a cluster"
