#!/usr/bin/env bash
# The main job on data that is to be had: Fashion-MNIST, or where nobody gives it the digits that come with the library.
set -euo pipefail
project=$1 port=${2:-8080}
if [ "$project" = examples/fashion-cnn ] && ! "${MAKE:-make}" --no-print-directory data 2>/dev/null; then
    project=build/digits
    echo "Fashion-MNIST is not to be had here (make data says why): the demo runs on the digits that come with Boatyard, in $project"
    [ -f "$project/boatyard.yaml" ] || boatyard init "$project"
fi
boatyard run "$project"
exec "$(dirname "$0")/ask.sh" "$project" "$port"
