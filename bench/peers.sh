# The commands of the candidates as bash functions. Every timed script sources this file first.
# $IMAGE is HOST:PORT/NAME:TAG of a plain http registry, $DEST an empty folder, $SCRATCH another on the same
# disk.

untar=(tar -x --numeric-owner -p --xattrs '--xattrs-include=*')
repository=${IMAGE#*/}
blobs=http://${IMAGE%%/*}/v2/${repository%:*}/blobs

layers() { # the digests of the image's layers, base layer first
  curl -fsS -H 'Accept: application/vnd.oci.image.manifest.v1+json' "${blobs%/blobs}/manifests/${IMAGE##*:}" | jq -r '.layers[].digest'
}
# tar fails at a layer that replaces a folder by a link, since these commands apply no whiteouts.
unpack() { "${untar[@]}" -f - -C "$DEST" 2>>"$SCRATCH/tar.err" || true; }

inflate() { if [ "${IMAGE##*:}" = zstd ]; then zstd -dcq; else igzip -dc; fi; }

# The limit: the kernel and C tools process the bytes layer by layer, without verification.
limit() { local d; for d in $(layers); do curl -fsS "$blobs/$d" | inflate | unpack; done; }
# The limit with the sha256 of each blob and of each tar.
limit_sha256() {
  local d
  for d in $(layers); do
    curl -fsS "$blobs/$d" | tee >(sha256sum >>"$SCRATCH/sums") | igzip -dc | tee >(sha256sum >>"$SCRATCH/sums") | unpack
  done
}
# The limit from the files of fetch_blobs.
limit_local() { local d; for d in $(layers); do igzip -dc <"$BLOBS/$d" | unpack; done; }
# Limits the rest of the script to $1 processors.
cores() { taskset -pc "0-$(($1 - 1))" $$ >/dev/null; }
# Downloads all blobs to files, at the same time.
transfer() { fetch_blobs "$SCRATCH"; }
fetch_blobs() { # FOLDER
  local d a=()
  for d in $(layers); do a+=(-o "$1/$d" "$blobs/$d"); done
  curl -fsS -Z --parallel-immediate --parallel-max 7 "${a[@]}"
}
skopeo_umoci() {
  skopeo copy -q --src-tls-verify=false "docker://$IMAGE" "oci:$SCRATCH/oci:image"
  umoci raw unpack --image "$SCRATCH/oci:image" "$DEST"
}
# The tree is beside the disk image and remains, since its removal is not timed.
umoci_tree() {
  skopeo copy -q --src-tls-verify=false "docker://$IMAGE" "oci:$SCRATCH/oci:image"
  umoci raw unpack --image "$SCRATCH/oci:image" "$SCRATCH/tree"
}
umoci_erofs() { umoci_tree && mkfs.erofs --quiet "$DEST/x.erofs" "$SCRATCH/tree"; }
umoci_squashfs() { umoci_tree && mksquashfs "$SCRATCH/tree" "$DEST/x.squashfs" -quiet -no-progress; }
umoci_ext4() {
  umoci_tree
  truncate -s "$(($(du -s --apparent-size -BM "$SCRATCH/tree" | cut -dM -f1) * 3 / 2 + 256))M" "$DEST/x.ext4"
  mke2fs -q -F -t ext4 -N 200000 -d "$SCRATCH/tree" "$DEST/x.ext4"
}
crane_tar() { "$CRANE_EXPORT" "$IMAGE" >"$DEST/x.tar"; }
run_podman() { podman --root "$SCRATCH/podman" --runroot "$SCRATCH/podman-run" --storage-driver overlay "$@"; }
podman_export() {
  run_podman pull -q --tls-verify=false "$IMAGE" >/dev/null
  run_podman export "$(run_podman create --ulimit host --network none "$IMAGE" true)" | "${untar[@]}" -f - -C "$DEST"
}
podman_clean() { run_podman rm -a -f >/dev/null 2>&1; umount "$SCRATCH/podman/overlay" 2>/dev/null; true; }
crane_export() { "$CRANE_EXPORT" "$IMAGE" | "${untar[@]}" -f - -C "$DEST"; }
# Commits each layer by git add and git commit.
git_add_all() {
  local d n=0
  git init -q "$DEST"
  git -C "$DEST" config gc.auto 0
  for d in $(layers); do
    git -C "$DEST" checkout -q -b "layer${n}_${d#sha256:}"
    curl -fsS "$blobs/$d" | igzip -dc | unpack
    git -C "$DEST" add -A
    git -C "$DEST" -c user.name=bench -c user.email=bench@localhost commit -q --allow-empty -m "adding layer $n"
    n=$((n + 1))
  done
}
