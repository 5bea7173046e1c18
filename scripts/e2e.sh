#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# npm run e2e: hosts as namespaces, with the tools of the field. npm run e2e -- FILE ...: only those; two
# are run in no other way, for what they take: pacemaker.test.ts (a cluster manager) and kernel-nbd.test.ts (minutes).
. "$(dirname "$0")/prepare.sh"
if [ "$(id -u)" != 0 ]; then
  complain "hast: the hosts of these tests are namespaces with networks and mounts: run this as root"
  exit 1
fi
prepare_packages
prepare_tools ip=iproute2 nft=nftables losetup=mount nbdfuse=libnbd-bin fusermount3=fuse3 \
  nbdkit=nbdkit mkfs.ext4=e2fsprogs fuser=psmisc flock=util-linux logger=bsdutils \
  mkfs.xfs=xfsprogs tc=iproute2 \
  ucarp=ucarp keepalived=keepalived zfs-fuse=zfs-fuse systemctl=systemd \
  etcd=etcd-server etcdctl=etcd-client arping=iputils-arping ping=iputils-ping \
  ocf-tester=resource-agents xmllint=libxml2-utils
libraries=/usr/lib/$(uname -m)-linux-gnu
prepare_tools /usr/lib/postgresql/15/bin/postgres=postgresql-15 psql=postgresql-client-common tgtd=tgt \
  ganesha.nfsd=nfs-ganesha "$libraries/ganesha/libfsalvfs.so=nfs-ganesha-vfs" rpcbind=rpcbind \
  nfs-cp=libnfs-utils qemu-nbd=qemu-utils "$libraries/qemu/block-iscsi.so=qemu-block-extra"

if [ $# -eq 0 ]; then
  for file in test/e2e/*.test.ts; do
    case $file in */pacemaker.test.ts | */kernel-nbd.test.ts) ;; *) set -- "$@" "$file" ;; esac
  done
fi
for file in "$@"; do
  case $file in
    */pacemaker.test.ts) prepare_tools pacemakerd=pacemaker crm_mon=pacemaker-cli-utils corosync=corosync crm=crmsh ;;
    */kernel-nbd.test.ts)
      prepare_tools qemu-system-x86_64=qemu-system-x86 busybox=busybox-static cpio=cpio dash=dash \
        nbd-client=nbd-client pgrep=procps
      ;;
  esac
done
exec "$NODE" scripts/test.ts "$@"
