# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=sh
#
# Sourced by the other scripts, so that each of them can be the first command of a fresh clone:
#
#   prepare_packages            npm packages as the lock file has them, Node 26 among them;
#                               afterwards NODE is that Node, and the first one on PATH
#   prepare_tools NAME=PKG ...  each program NAME, from the Debian package PKG where it is missing

set -eu
unset NODE_OPTIONS
cd "$(dirname "$0")/.."
# mkfs.ext4 lives in sbin, which is not on everybody's PATH.
PATH=$PATH:/usr/sbin:/sbin
export PATH

complain() {
  printf '%s\n' "$*" >&2
}

prepare_packages() {
  # npm writes node_modules/.package-lock.json last: where it is older than the lock file, or
  # missing, the installation is stale or was cut short. A node_modules that is a link is shared
  # with another checkout, which looks after it.
  if [ ! -L node_modules ] && {
    [ ! -e node_modules/.package-lock.json ] ||
      [ package-lock.json -nt node_modules/.package-lock.json ]
  }; then
    if ! command -v npm >/dev/null; then
      complain "hast: npm is missing. Run, as root:  apt-get install -y npm"
      exit 1
    fi
    echo "hast: installing npm packages from package-lock.json (about 200 MB the first time)"
    npm ci --ignore-scripts --include=dev --include=optional --no-audit --no-fund
    touch node_modules/.package-lock.json
  fi
  case $(uname -m) in
    x86_64) platform=x64 ;;
    aarch64) platform=arm64 ;;
    *)
      complain "hast: no Node 26 package for $(uname -m); x86_64 and aarch64 have one."
      exit 1
      ;;
  esac
  NODE=$PWD/node_modules/node-linux-$platform/bin/node
  if [ ! -x "$NODE" ]; then
    complain "hast: $NODE is missing although npm packages are installed." \
      "Remove node_modules and try again."
    exit 1
  fi
  PATH=$(dirname "$NODE"):$PATH
}

prepare_tools() {
  missing=
  for pair in "$@"; do
    command -v "${pair%%=*}" >/dev/null || case " $missing " in
      *" ${pair#*=} "*) ;;
      *) missing="$missing ${pair#*=}" ;;
    esac
  done
  [ -n "$missing" ] || return 0
  if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    complain "hast: some tools are missing. Run, as root:"
    complain "  apt-get update && apt-get install -y --no-install-recommends$missing"
    exit 1
  fi
  echo "hast: installing Debian packages:$missing"
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -qq
  # Unquoted on purpose: a list of package names.
  # shellcheck disable=SC2086
  apt-get install -y -qq --no-install-recommends $missing </dev/null
}
