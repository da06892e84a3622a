#!/usr/bin/env bash
# scripts/test.sh COMMAND… runs COMMAND with TMPDIR on a new ext4; if that cannot be mounted, with TMPDIR
# unchanged.
# Tests make and remove thousands of files, for which a disk without a journal takes ten times as long.
# After TEST_MINUTES (25) it kills the command and its descendants, as root also orphans, and exits with 137.
set -euo pipefail

if [ "${1-}" != --mount ]; then
  if unshare --mount true 2>/dev/null; then exec unshare --mount bash "$0" --mount "$@"; fi
else
  shift
  disk=$(mktemp -d)
  # A subshell that is killed before it has reset its traps runs this trap, too.
  trap 'umount --lazy "$disk" 2>/dev/null || true; rm -f "$disk.ext4"; rmdir "$disk" 2>/dev/null || true' EXIT
  if truncate --size 16G "$disk.ext4" && mkfs.ext4 -q "$disk.ext4" && mount -o loop "$disk.ext4" "$disk"; then
    rm "$disk.ext4" # the mount keeps it
    chmod 1777 "$disk"
    export TMPDIR=$disk
  fi 2>/dev/null
  mounts=$(readlink /proc/self/ns/mnt)
fi

# Kills the descendants of process $1 except process $2; with a mount namespace also its processes without a
# parent.
kill_below() {
  local -A below=([$1]=1)
  local size=0 process fields stat
  while [ ${#below[@]} != $size ]; do
    size=${#below[@]}
    for process in /proc/[0-9]*; do
      { read -r stat <"$process/stat"; } 2>/dev/null || continue
      read -ra fields <<<"${stat##*) }"
      if [ -n "${below[${fields[1]}]-}" ] || [ "${mounts:-none}" = "$(readlink "$process/ns/mnt")" ]; then
        below[${process#/proc/}]=1
      fi
    done
  done
  unset "below[$1]" "below[$2]"
  kill -KILL "${!below[@]}" 2>/dev/null || true
}

(
  sleep "${TEST_MINUTES:-25}m" &
  trap 'kill $!' TERM
  wait $! || exit 0
  echo "error: the tests did not end within ${TEST_MINUTES:-25} minutes: killed" >&2
  kill_below $$ "$BASHPID"
) &
watchdog=$!
status=0
"$@" || status=$?
kill "$watchdog" 2>/dev/null || true
exit $status
