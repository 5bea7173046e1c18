#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# npm run powercuts -- --rounds N [--mode M] [--kind K] [--seed S]: real nodes lose their power, again and again.
. "$(dirname "$0")/prepare.sh"
prepare_packages
prepare_tools nbdfuse=libnbd-bin fusermount3=fuse3 losetup=mount mount=mount \
  mountpoint=util-linux mkfs.ext4=e2fsprogs

exec "$NODE" scripts/powercuts.ts "$@"
