#!/bin/bash
# Builds the image NAME from images/NAME/Containerfile with buildah, and pushes it with gzip layers to
# REPOSITORY:gzip by plain http. It needs root, npm and the packages of setup.ts.
# usage: build.sh debian|manyfiles REPOSITORY WORKDIR
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
name=$1 repository=$2 work=$3
context=$work/context-$name
rm -rf "$context"; mkdir -p "$context"

if [ ! -s "$work/base.tar" ]; then
  sources=/etc/apt/sources.list.d/debian.sources
  [ -s "$sources" ] || sources=/etc/apt/sources.list
  mmdebstrap --variant=minbase --format=tar "${SUITE:-trixie}" "$work/base.tar.new" - <"$sources"
  mv "$work/base.tar.new" "$work/base.tar"
fi
ln "$work/base.tar" "$context/base.tar"

npm_tree() { # NAME PACKAGE...: what `npm install` makes of the packages, no install scripts run
  mkdir -p "$context/$1"
  (cd "$context/$1" && npm init -y >/dev/null && npm install --ignore-scripts --no-audit --no-fund "${@:2}" >/dev/null)
}
if [ "$name" = manyfiles ]; then
  npm_tree app1 @mui/material@9 @mui/icons-material@9 @emotion/react@11 @emotion/styled@11 react@19 react-dom@19
  npm_tree app2 lodash@4 core-js@3 rxjs@7 typescript@5 eslint@9 jest@30 webpack@5 webpack-cli@6 @babel/preset-env@7 @aws-sdk/client-s3@3 express@5
fi

run_buildah() { buildah --root "$work/containers/storage" --runroot "$work/containers/run" "$@"; }
# The limits are named because a sandbox may lack the right to raise them.
run_buildah build --quiet --layers --isolation chroot --network host \
  --ulimit "nofile=$(ulimit -Hn):$(ulimit -Hn)" --ulimit "nproc=$(ulimit -Hu):$(ulimit -Hu)" \
  -f "$here/$name/Containerfile" -t "bench-$name" "$context"
run_buildah push --quiet --tls-verify=false --force-compression --format oci --compression-format gzip \
  "bench-$name" "docker://$repository:gzip"
rm -rf "$context"
