#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# npm run sim -- --minutes N --workers W: two nodes of production code in simulated time; -- --seed N: one world again.
. "$(dirname "$0")/prepare.sh"
prepare_packages
exec "$NODE" test/sim/simulate.ts "$@"
