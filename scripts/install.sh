#!/usr/bin/env bash
# install.sh PREFIX: the binary, and the manual page and completions where they were built.
set -euo pipefail
cd "$(dirname "$0")/../dist"
prefix=$1
place() { if [ -f "$2" ]; then install -D -m "$1" "$2" "$prefix/$3" && echo "$prefix/$3"; fi; }
place 0755 dlrootfs bin/dlrootfs
place 0644 dlrootfs.1 share/man/man1/dlrootfs.1
place 0644 completions/dlrootfs.bash share/bash-completion/completions/dlrootfs
place 0644 completions/_dlrootfs share/zsh/site-functions/_dlrootfs
place 0644 completions/dlrootfs.fish share/fish/vendor_completions.d/dlrootfs.fish
