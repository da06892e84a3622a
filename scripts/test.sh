#!/usr/bin/env bash
# scripts/test.sh COMMAND… runs it with TMPDIR on an ext4 of its own; with TMPDIR as it is where that cannot be mounted.
# Tests make and remove thousands of files: a disk without a journal, as virtual machines have, takes ten times as long for that.
set -euo pipefail

if [ "${1-}" != --mount ]; then
  if unshare --mount true 2>/dev/null; then exec unshare --mount bash "$0" --mount "$@"; fi
  exec "$@"
fi
shift

disk=$(mktemp -d)
trap 'umount --lazy "$disk" 2>/dev/null || true; rm -f "$disk.ext4"; rmdir "$disk"' EXIT
if truncate --size 16G "$disk.ext4" && mkfs.ext4 -q "$disk.ext4" && mount -o loop "$disk.ext4" "$disk"; then
  rm "$disk.ext4" # the mount keeps it
  chmod 1777 "$disk"
  export TMPDIR=$disk
fi 2>/dev/null
"$@"
