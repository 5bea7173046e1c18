#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# npm run e2e: hosts as namespaces, with the tools of the field. npm run e2e -- FILE ...: only those.
. "$(dirname "$0")/prepare.sh"
if [ "$(id -u)" != 0 ]; then
  complain "hast: the hosts of these tests are namespaces with networks and mounts: run this as root"
  exit 1
fi
prepare_packages
prepare_tools ip=iproute2 nft=nftables losetup=mount nbdfuse=libnbd-bin fusermount3=fuse3 \
  nbdkit=nbdkit mkfs.ext4=e2fsprogs fuser=psmisc flock=util-linux logger=bsdutils \
  mkfs.xfs=xfsprogs tc=iproute2 ucarp=ucarp keepalived=keepalived zfs-fuse=zfs-fuse

[ $# -gt 0 ] || set -- test/e2e/*.test.ts
exec "$NODE" scripts/test.ts "$@"
