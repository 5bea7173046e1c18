#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# npm run worlds: every sequence of up to four events with an accident at every disk operation;
# -- --length N: of N; -- --plan JSON: one world again, with its story.
. "$(dirname "$0")/prepare.sh"
prepare_packages
exec "$NODE" test/model/worlds.ts "$@"
