#!/usr/bin/env bash
# Installs the missing packages of scripts/debian-packages.txt, as root on Debian or Ubuntu.
# Without root it lists the missing packages in one line; tests that need them are skipped, each with the
# reason. A package marked with `?` is only for releases: it is installed if the distribution has it, and
# never listed.
set -euo pipefail
cd "$(dirname "$0")"

command -v dpkg-query >/dev/null || { echo 'not Debian or Ubuntu: tests that need programs from there are skipped' >&2; exit 0; }

installed() { [ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]; }
wanted=() optional=()
while read -r name _; do
  case $name in
    '' | '#'*) ;;
    *'?') installed "${name%?}" || optional+=("${name%?}") ;;
    *) installed "$name" || wanted+=("$name") ;;
  esac
done <debian-packages.txt
[ ${#wanted[@]} -gt 0 ] || exit 0

if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
  echo "missing Debian packages, tests that need them are skipped: apt-get install ${wanted[*]}" >&2
  exit 0
fi

export DEBIAN_FRONTEND=noninteractive
apt=(apt-get -q -y -o DPkg::Lock::Timeout=600 -o Acquire::Retries=3)
# Package lists older than a day may name versions that the mirrors no longer have.
if [ -z "$(find /var/lib/apt/lists -name '*_Packages*' -mtime -1 -print -quit 2>/dev/null)" ]; then
  "${apt[@]}" update >/dev/null || echo 'apt-get update failed; using the existing lists' >&2
fi
has_candidate() { [[ $(apt-cache policy "$1" 2>/dev/null) =~ Candidate:\ [^\(] ]]; }
install=() unknown=()
for name in "${wanted[@]}"; do if has_candidate "$name"; then install+=("$name"); else unknown+=("$name"); fi; done
for name in "${optional[@]}"; do if has_candidate "$name"; then install+=("$name"); fi; done

if [ ${#install[@]} -gt 0 ]; then
  echo "installing Debian packages: ${install[*]}" >&2
  log=$(mktemp)
  for try in 1 2 3; do
    if "${apt[@]}" install --no-install-recommends "${install[@]}" </dev/null >"$log" 2>&1; then break; fi
    if [ "$try" = 3 ]; then
      tail -n 20 "$log" >&2
      unknown+=("${install[@]}")
      break
    fi
    sleep $((try * 5))
    "${apt[@]}" update >/dev/null 2>&1 || true
  done
  rm -f "$log"
fi
if [ ${#unknown[@]} -gt 0 ]; then
  echo "could not install these Debian packages, tests that need them are skipped: ${unknown[*]}" >&2
fi
