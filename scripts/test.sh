#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# npm test: types and lint, then every test. npm test -- FILE ...: only those test files.
. "$(dirname "$0")/prepare.sh"
prepare_packages
prepare_tools fio=fio nbdinfo=libnbd-bin nbdcopy=libnbd-bin /usr/bin/nbdsh=python3-libnbd \
  nbdkit=nbdkit qemu-img=qemu-utils qemu-io=qemu-utils qemu-nbd=qemu-utils \
  mkfs.ext4=e2fsprogs mandoc=mandoc openssl=openssl nbdfuse=libnbd-bin fusermount3=fuse3 losetup=mount \
  mountpoint=util-linux blkdiscard=util-linux ip=iproute2 nft=nftables fuser=psmisc flock=util-linux \
  logger=bsdutils ucarp=ucarp keepalived=keepalived

if [ $# -eq 0 ]; then
  node_modules/.bin/tsc -p .
  node_modules/.bin/biome check --error-on-warnings
fi
exec "$NODE" scripts/test.ts "$@"
