// SPDX-License-Identifier: BSD-2-Clause
/** NFS by ganesha, as docs/failover/nfs.md says, and qemu's client: the writes go on through a failover. */
import { test } from "node:test";
import { SERVICE } from "./pair.ts";
import { recipe } from "./recipe.ts";
import { RemoteDisk } from "./remote-disk.ts";

test("NFS: an image on the server loses nothing when the service moves, and its writes just take longer", async () => {
  const make = recipe("nfs.md", "The file system");
  await RemoteDisk.play(
    {
      resources: ["disk1"],
      sizeMib: 64,
      use: 'mounts="disk1:/mnt/data"',
      make: (host) => host.expect("sh", "-euc", make),
      service: "nfs",
    },
    `nfs://${SERVICE}/mnt/data/image`,
  );
});
