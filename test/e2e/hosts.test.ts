// SPDX-License-Identifier: BSD-2-Clause
/** The hosts themselves: what the scenarios rely on. */
import { strict as expect } from "node:assert";
import { existsSync, readFileSync } from "node:fs";
import { test } from "node:test";
import { until } from "../system/until.ts";
import { type Host, Lan } from "./hosts.ts";

const HOSTS = [
  { name: "h1", cards: [{ name: "svc0", address: "10.10.10.181/24" }] },
  { name: "h2", cards: [{ name: "svc0", address: "10.10.10.182/24" }] },
];

async function reaches(from: Host, address: string): Promise<boolean> {
  const script = `const s = require("net").connect(7, ${JSON.stringify(address)});
    s.setTimeout(400, () => process.exit(1));
    s.on("error", (e) => process.exit(e.code === "ECONNREFUSED" ? 0 : 1));`;
  return (await from.run([process.execPath, "-e", script])).code === 0;
}

test("hosts have a name, a network, processes and files of their own, and a reboot keeps the disk's", async () => {
  const lan = await Lan.start(HOSTS);
  try {
    const [h1, h2] = [lan.host("h1"), lan.host("h2")];
    await h1.boot();
    await h2.boot();
    expect.equal(await h1.expect("hostname"), "h1\n");
    expect.notEqual(await h1.expect("hostid"), await h2.expect("hostid"));
    await until("they reach each other", () => reaches(h1, "10.10.10.182"));

    await lan.cut(h2, "svc0");
    expect.ok(!(await reaches(h1, "10.10.10.182")));
    await lan.heal(h2, "svc0");
    await until("they reach each other", () => reaches(h1, "10.10.10.182"));
    await lan.oneWay(h2, "svc0", "from");
    expect.ok(!(await reaches(h1, "10.10.10.182")));
    await lan.heal(h2, "svc0");
    await lan.lose(h1, "svc0", 99);
    expect.ok(!(await reaches(h1, "10.10.10.182")));
    await lan.heal(h1, "svc0");
    await until("they reach each other", () => reaches(h1, "10.10.10.182"));

    await h1.expect("sh", "-c", "echo kept >/etc/kept; echo lost >/run/lost; touch /dev/hast/lost");
    expect.ok(!existsSync("/etc/kept"));
    const sleeper = h1.spawn("sleeper", "sleep", "1000");
    await h1.powerOff();
    await until("what it ran has ended", () => (sleeper.exitCode ?? sleeper.signalCode) !== null);
    await h1.boot();
    expect.equal(await h1.expect("cat", "/etc/kept"), "kept\n");
    expect.equal((await h1.run(["ls", "/run/lost", "/dev/hast/lost"])).code, 2);
    await until("they reach each other", () => reaches(h2, "10.10.10.181"));
  } finally {
    await lan.stop();
  }
  expect.ok(!readFileSync("/proc/self/mounts", "utf8").includes(lan.directory));
  expect.ok(!existsSync(lan.directory));
});
