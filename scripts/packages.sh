#!/usr/bin/env bash
# Installs the npm packages of the lockfile: all of them, or only the differences to installed ones.
# "prepare" in package.json installs Node 24; it is called again if npm is configured to run no scripts.
set -euo pipefail
cd "$(dirname "$0")/.."
need() {
  echo "error: $1" >&2
  echo "hint: install Node 20 or later with npm (Debian: apt install nodejs npm), then run make again" >&2
  exit 2
}
command -v node >/dev/null || need 'cannot build: node is not installed'
command -v npm >/dev/null || need 'cannot build: npm is not installed'
version=$(node --version)
major=${version#v}
[ "${major%%.*}" -ge 20 ] || need "cannot build: node $version is too old"
quiet=(--no-audit --no-fund --loglevel=error)
for try in 1 2 3; do
  if [ -d node_modules/.bin ]; then npm install --no-save "${quiet[@]}"; else npm ci "${quiet[@]}"; fi && break
  [ "$try" -lt 3 ] || exit 1
  echo "npm failed; trying again in $((try * 5)) s" >&2
  sleep $((try * 5))
done
[ -x node_modules/.bin/node ] || npm run prepare "${quiet[@]}"
node_modules/.bin/node --version >/dev/null
