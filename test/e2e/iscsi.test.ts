// SPDX-License-Identifier: BSD-2-Clause
/** iSCSI by tgt, as docs/failover/iscsi.md says, and qemu's initiator: the writes go on through a failover. */
import { test } from "node:test";
import { SERVICE } from "./pair.ts";
import { RemoteDisk } from "./remote-disk.ts";

test("iSCSI: the initiator's disk loses nothing when the target moves, and its writes just take longer", async () => {
  await RemoteDisk.play(
    {
      resources: ["disk1"],
      sizeMib: 64,
      use: 'mounts=""',
      make: async () => {},
      service: "iscsi",
    },
    `iscsi://${SERVICE}/iqn.2026-11.org.example:disk1/1`,
  );
});
