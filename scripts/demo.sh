#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# npm run demo: two nodes on this machine, a failover, and the proof that nothing was lost.
. "$(dirname "$0")/prepare.sh"
prepare_packages
prepare_tools mkfs.ext4=e2fsprogs nbdcopy=libnbd-bin

exec "$NODE" scripts/demo.ts "$@"
