#!/bin/sh
# A CI job runs prepare-ci.sh IMAGE DIR.
# It pulls IMAGE twice, as an LXC container in DIR/lxc and, from the cache, as a runc bundle in DIR/runc.
# For a private image set DLROOTFS_CREDS=user:password in the job's environment.
set -eu
image=${1:?usage: prepare-ci.sh IMAGE DIR}
dir=${2:?usage: prepare-ci.sh IMAGE DIR}

dlrootfs "$image" -d "$dir/lxc/rootfs" --for lxc --quiet
dlrootfs "$image" -d "$dir/runc/rootfs" --for runc --quiet

echo "LXC:  lxc-execute -n ci -f $dir/lxc/config -- COMMAND"
echo "runc: runc run -b $dir/runc ci"
