#!/usr/bin/env bash
# install.sh PREFIX [BINARY]: the binary, its manual page, the shells' completions and all licences.
set -euo pipefail
dist=$(dirname "$0")/../dist
prefix=$1
place() { install -D -m "$1" "$2" "$prefix/$3" && echo "$prefix/$3"; }
place 0755 "${2:-$dist/dlrootfs}" bin/dlrootfs
place 0644 "$dist/dlrootfs.1" share/man/man1/dlrootfs.1
place 0644 "$dist/completions/dlrootfs.bash" share/bash-completion/completions/dlrootfs
place 0644 "$dist/completions/_dlrootfs" share/zsh/site-functions/_dlrootfs
place 0644 "$dist/completions/dlrootfs.fish" share/fish/vendor_completions.d/dlrootfs.fish
place 0644 "$dist/copyright" share/doc/dlrootfs/copyright
