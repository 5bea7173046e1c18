// SPDX-License-Identifier: BSD-2-Clause
/** hast.conf, as the main daemon and its workers need it. */

import { assert } from "../base/assert.ts";
import { type Config, exportNeedsTls, type ResourceConfig } from "../config/config.ts";
import type { WorkerSettings } from "../engine/worker-messages.ts";
import type { DaemonSettings } from "./daemon.ts";

/** @param rights of the control socket, whose names have been looked up */
export function daemonSettings(
  config: Config,
  rights: Pick<DaemonSettings, "controlAccess" | "administrators">,
): DaemonSettings {
  return {
    ...rights,
    control: config.control,
    listen: config.listen,
    listenByDefault: config.listenByDefault,
    resources: config.resources.map(workerSettings),
    hooks: (name) => {
      const resource = config.resources.find((each) => each.name === name);
      assert(resource !== undefined);
      const { exec, gate, exectimeout } = resource;
      return { exec, gate, timeoutMs: exectimeout * 1000 };
    },
  };
}

/** Everything about one resource that can be sent to another process. */
export function workerSettings(resource: ResourceConfig): WorkerSettings {
  return {
    resource: resource.name,
    provname: resource.provname,
    local: resource.local,
    remote: resource.remote,
    source: resource.source,
    replication: resource.replication,
    checksum: resource.checksum,
    compression: resource.compression,
    timeout: resource.timeout,
    metaflush: resource.metaflush,
    export: resource.export,
    exportTls: exportNeedsTls(resource),
    tlspeer: resource.tlspeer,
    device: resource.device,
    arbiter: resource.arbiter,
  };
}
