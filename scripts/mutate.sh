#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# npm run mutate: breaks a copy of the source in each way that test/mutations.ts lists, and expects a
# test to notice. npm run mutate -- WORD ...: only those whose name or defect contains a word.
. "$(dirname "$0")/prepare.sh"
prepare_packages
exec "$NODE" scripts/mutate.ts "$@"
