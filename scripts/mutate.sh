#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# npm run mutate: breaks a copy of the source in each way that test/mutations.ts lists, and expects a
# test to notice. npm run mutate -- WORD ...: only those whose name or defect contains a word.
. "$(dirname "$0")/prepare.sh"
prepare_packages
prepare_tools nbdfuse=libnbd-bin fusermount3=fuse3 losetup=mount mountpoint=util-linux
exec "$NODE" scripts/mutate.ts "$@"
