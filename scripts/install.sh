#!/usr/bin/env bash
# install.sh PREFIX [BINARY]: installs the binary, its manual page, the shells' completions, documents,
# samples and licences. install.sh --remove PREFIX: removes these files, and the directories that only they
# need.
set -euo pipefail
cd "$(dirname "$0")/.."

# SOURCE DESTINATION, below the prefix; one line per file.
listing() {
  printf '%s\n' \
    "dist/dlrootfs.1 share/man/man1/dlrootfs.1" \
    "dist/completions/dlrootfs.bash share/bash-completion/completions/dlrootfs" \
    "dist/completions/_dlrootfs share/zsh/site-functions/_dlrootfs" \
    "dist/completions/dlrootfs.fish share/fish/vendor_completions.d/dlrootfs.fish" \
    "dist/copyright share/doc/dlrootfs/copyright" \
    "README.md share/doc/dlrootfs/README.md" \
    "CHANGELOG.md share/doc/dlrootfs/CHANGELOG.md"
  local file
  for file in docs/*.md docs/schema/*; do echo "$file share/doc/dlrootfs/$file"; done
  for file in sample_configs/*; do echo "$file share/doc/dlrootfs/examples/${file##*/}"; done
}

if [ "$1" = --remove ]; then
  prefix=$2
  { echo "- bin/dlrootfs"; listing; } | while read -r _ path; do
    [ -e "$prefix/$path" ] || continue
    rm -f "$prefix/$path" && echo "removed $prefix/$path"
  done
  find "$prefix/share/doc/dlrootfs" -depth -type d -empty -delete 2>/dev/null || true
  exit 0
fi

prefix=$1
place() { install -D -m "$1" "$2" "$prefix/$3" && echo "$prefix/$3"; }
place 0755 "${2:-dist/dlrootfs}" bin/dlrootfs
listing | while read -r source path; do
  mode=0644
  [ ! -x "$source" ] || mode=0755
  place "$mode" "$source" "$path"
done
