#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# npm run bench: lists the benchmarks. npm run bench -- NAME [OPTION ...]: runs bench/NAME.ts,
# or bench/NAME/NAME.ts, at full size.
. "$(dirname "$0")/prepare.sh"
prepare_packages

name=${1-}
[ $# -eq 0 ] || shift
for file in "bench/$name.ts" "bench/$name/$name.ts"; do
  if [ -n "$name" ] && [ -f "$file" ]; then
    [ "$name" != fio ] || prepare_tools fio=fio qemu-nbd=qemu-utils nbdkit=nbdkit
    exec "$NODE" --disable-sigusr1 "$file" "$@"
  fi
done

[ -z "$name" ] || complain "hast: no benchmark is called $name"
echo "npm run bench -- NAME, where NAME is one of:"
for file in bench/*.ts bench/*/*.ts; do
  case $file in
    *.test.ts) continue ;;
    bench/*/*) [ "$(basename "$(dirname "$file")")" = "$(basename "$file" .ts)" ] || continue ;;
  esac
  [ -f "$file" ] || continue
  printf '  %-12s %s\n' "$(basename "$file" .ts)" \
    "$(sed -n '/^ \* /{s/^ \* //p;q;}; /^\/\*\* /{s/^\/\*\* //; s/ \*\/$//; p; q;}' "$file")"
done
[ -z "$name" ] || exit 64
