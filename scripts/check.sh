#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# npm run check: types, lint, formatting and the house rules; seconds, no daemon is started.
. "$(dirname "$0")/prepare.sh"
prepare_packages

node_modules/.bin/tsc -p .
node_modules/.bin/biome check --error-on-warnings
exec "$NODE" scripts/test.ts test/tidy.test.ts
