#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# npm run fuzz: hostile bytes for ten minutes; -- --minutes N, --target TEXT, --seed N.
. "$(dirname "$0")/prepare.sh"
prepare_packages
exec "$NODE" scripts/fuzz.ts "$@"
