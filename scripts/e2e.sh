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
  ucarp=ucarp keepalived=keepalived zfs-fuse=zfs-fuse
libraries=/usr/lib/$(uname -m)-linux-gnu
prepare_tools /usr/lib/postgresql/15/bin/postgres=postgresql-15 psql=postgresql-client-common tgtd=tgt \
  ganesha.nfsd=nfs-ganesha "$libraries/ganesha/libfsalvfs.so=nfs-ganesha-vfs" rpcbind=rpcbind \
  qemu-nbd=qemu-utils "$libraries/qemu/block-iscsi.so=qemu-block-extra"

[ $# -gt 0 ] || set -- test/e2e/*.test.ts
exec "$NODE" scripts/test.ts "$@"
