// SPDX-License-Identifier: BSD-2-Clause
/**
 * The OCF resource agent, action by action, on a pair of hosts; no Pacemaker: what it says of scores is heard
 * by a crm_attribute of this test's.
 */
import { strict as expect } from "node:assert";
import { join } from "node:path";
import { test } from "node:test";
import type { Outcome } from "../system/command.ts";
import { type Host, Lan } from "./hosts.ts";

const AGENT = join(import.meta.dirname, "..", "..", "contrib", "ocf", "hast");
/** OCF Resource Agent API: what an action's exit code means. */
const SUCCESS = 0;
const ERR_GENERIC = 1;
const ERR_UNIMPLEMENTED = 3;
const ERR_CONFIGURED = 6;
const NOT_RUNNING = 7;
const RUNNING_PROMOTED = 8;
const FAILED_PROMOTED = 9;

/** $1 the agent, $2 the host's directory. Scores are written down where a cluster would take them. */
const INSTALL = `set -eu
mkdir -p /run/ocf /run/crm
cp "$1" /run/ocf/hast
printf '#!/bin/sh\necho "$*" >>"%s/scores"\n' "$2" >/run/crm/crm_master
chmod 755 /run/crm/crm_master
cp /run/crm/crm_master /run/crm/crm_attribute
`;

function resource(name: string): string {
  const on = [1, 2].map((index) => {
    const peer = `tcp4://192.168.100.10${2 - index}`;
    return `on hast${index} { local /var/lib/${name} remote ${peer} }`;
  });
  return `resource ${name} { ${on.join(" ")} }`;
}

class Agents {
  readonly lan: Lan;
  readonly one: Host;
  readonly two: Host;

  private constructor(lan: Lan) {
    this.lan = lan;
    [this.one, this.two] = lan.hosts as [Host, Host];
  }

  /** Two hosts with a hastd each, in role init. */
  static async start(): Promise<Agents> {
    const configuration = `timeout 5\n${["disk1", "disk2"].map(resource).join("\n")}\n`;
    const host = (index: number) => ({
      name: `hast${index}`,
      cards: [{ name: "hast0", address: `192.168.100.10${index - 1}/24` }],
      etc: { hosts: "127.0.0.1 localhost\n", "hast.conf": configuration },
    });
    const agents = new Agents(await Lan.start([host(1), host(2)]));
    try {
      for (const each of agents.lan.hosts) {
        await each.boot();
        for (const disk of ["disk1", "disk2"]) {
          await each.expect("truncate", "-s", "16M", `/var/lib/${disk}`);
        }
        await each.expect("hastctl", "create", "disk1", "disk2");
        await agents.startHastd(each);
      }
      return agents;
    } catch (error) {
      await agents.lan.stop();
      throw error;
    }
  }

  async startHastd(host: Host): Promise<void> {
    await host.expect("sh", "-c", INSTALL, "sh", AGENT, host.directory);
    host.spawn("hastd", "hastd", "-F");
    await host.until("hastd answers", async () => (await this.role(host)) !== "");
  }

  /** One action with what Pacemaker gives it. @param more further variables */
  action(host: Host, name: string, more: Readonly<Record<string, string>> = {}): Promise<Outcome> {
    const variables = {
      OCF_ROOT: "/usr/lib/ocf",
      OCF_RESOURCE_INSTANCE: "disks",
      OCF_RESKEY_resources: "disk1 disk2",
      OCF_RESKEY_CRM_meta_timeout: "25000",
      OCF_RESKEY_CRM_meta_interval: "10000",
      HA_SBIN_DIR: "/run/crm",
      __OCF_ACTION: name,
      ...more,
    };
    const words = Object.entries(variables).map(([key, value]) => `${key}=${value}`);
    return host.run(["env", ...words, "/run/ocf/hast", name]);
  }

  /** The action ends so. @returns what it complained of */
  async ends(
    host: Host,
    name: string,
    code: number,
    more?: Record<string, string>,
  ): Promise<string> {
    const outcome = await this.action(host, name, more);
    expect.equal(outcome.code, code, `${name} on ${host.name}: ${outcome.stderr}${outcome.stdout}`);
    return outcome.stderr;
  }

  /** What the agent has told the cluster last, of this node; null: that it must not be promoted. */
  async score(host: Host): Promise<number | null> {
    const scores = await host.expect("tail", "-n", "1", join(host.directory, "scores"));
    const [, score] = /-v (\d+)$/.exec(scores.trim()) ?? [];
    return score === undefined ? null : Number(score);
  }

  /** As a monitor finds it. */
  async hasScore(host: Host, wanted: number | null): Promise<boolean> {
    await this.action(host, "monitor");
    return (await this.score(host)) === wanted;
  }

  /** Of both resources, "" where no hastd answers. */
  async role(host: Host): Promise<string> {
    const { stdout } = await host.run(["hastctl", "list", "disk1", "disk2"]);
    return [...new Set([...stdout.matchAll(/^ {2}role: (.*)$/gm)].map(([, role]) => role))].join();
  }
}

/** Two agents in a test. */
async function withAgents(body: (agents: Agents) => Promise<void>): Promise<void> {
  const agents = await Agents.start();
  try {
    await body(agents);
  } catch (error) {
    console.log(agents.lan.logs());
    throw error;
  } finally {
    await agents.lan.stop();
  }
}

test("ocf-tester is content", () =>
  withAgents(async ({ one }) => {
    const tester = ["-v", "-n", "disks", "-o", "resources=disk1 disk2", "/run/ocf/hast"];
    const words = ["env", "HA_SBIN_DIR=/run/crm", "ocf-tester", ...tester];
    const { code, stdout, stderr } = await one.run(words, { withinMs: 300_000 });
    expect.equal(code, 0, stdout + stderr);
    expect.match(stdout, /\/run\/ocf\/hast passed all tests/);
    expect.doesNotMatch(stdout, /does not support the (?:promote|demote)/);
  }));

test("each action does what it says, and a node is worth what its copies are", () =>
  withAgents(async (agents) => {
    const { one, two } = agents;
    const probe = { OCF_RESKEY_CRM_meta_interval: "0" };
    for (const host of [one, two]) {
      await agents.ends(host, "monitor", NOT_RUNNING, probe);
      await agents.ends(host, "validate-all", SUCCESS);
      await agents.ends(host, "start", SUCCESS);
      await agents.ends(host, "start", SUCCESS);
      await agents.ends(host, "monitor", SUCCESS);
      // Empty: which one is to be the first is for a person to say.
      expect.equal(await agents.score(host), null);
    }
    const none = { OCF_RESKEY_resources: "" };
    expect.match(
      await agents.ends(one, "validate-all", ERR_CONFIGURED, none),
      /say which resources/,
    );
    const unknown = { OCF_RESKEY_resources: "disk1 disk3" };
    expect.match(
      await agents.ends(one, "validate-all", ERR_CONFIGURED, unknown),
      /no resource disk3/,
    );
    await agents.ends(one, "migrate_to", ERR_UNIMPLEMENTED);

    await agents.ends(one, "promote", SUCCESS);
    expect.equal(await agents.role(one), "primary");
    expect.equal(await agents.score(one), 1000);
    await agents.ends(one, "monitor", RUNNING_PROMOTED);
    await agents.ends(one, "monitor", RUNNING_PROMOTED, probe);
    await two.until("it is in step", () => agents.hasScore(two, 100));

    // Who is not allowed leaves it to the other, and nothing is forced.
    expect.match(
      await agents.ends(two, "promote", ERR_GENERIC),
      /ocf-exit-reason:role primary: .*disk1/s,
    );
    expect.equal(await agents.role(two), "secondary");
    expect.equal(await agents.score(two), null);
    await agents.ends(two, "monitor", SUCCESS);
    expect.equal(await agents.score(two), null);

    // One of the two resources is not where the other is.
    await one.expect("hastctl", "role", "secondary", "disk2");
    expect.match(await agents.ends(one, "monitor", ERR_GENERIC), /different roles/);
    expect.equal(await agents.score(one), null);
    await agents.ends(one, "promote", SUCCESS);

    // In use: bounded, and the node lets go.
    await one.expect("mkfs.ext4", "-q", "/dev/hast/disk1");
    await one.expect("mkdir", "/mnt/data");
    await one.expect("mount", "/dev/hast/disk1", "/mnt/data");
    const startedAt = performance.now();
    await agents.ends(one, "demote", SUCCESS);
    const seconds = (performance.now() - startedAt) / 1000;
    console.log(`ocf: demotion by force of a disk that is mounted: ${seconds.toFixed(1)} s`);
    expect.ok(seconds < 25, `${seconds} s`);
    expect.equal(await agents.role(one), "secondary");
    await agents.ends(one, "demote", SUCCESS);
    await agents.ends(one, "monitor", SUCCESS);

    await agents.ends(two, "promote", SUCCESS);
    await one.until("it is in step", () => agents.hasScore(one, 100));
    // What is said of a copy counts.
    await one.expect("hastctl", "disconnect", "disk2");
    await one.expect("hastctl", "outdate", "disk2");
    await agents.ends(one, "monitor", SUCCESS);
    expect.equal(await agents.score(one), null);
    await one.expect("hastctl", "connect", "disk2");
    await one.until("it is in step again", () => agents.hasScore(one, 100));

    await agents.ends(two, "stop", SUCCESS);
    await agents.ends(two, "stop", SUCCESS);
    expect.equal(await agents.role(two), "init");
    await agents.ends(two, "monitor", NOT_RUNNING);
    await agents.ends(two, "demote", NOT_RUNNING);
  }));

test("a power cut, a return, a worker that hangs, a hastd that dies", () =>
  withAgents(async (agents) => {
    const { one, two } = agents;
    for (const host of [one, two]) await agents.ends(host, "start", SUCCESS);
    await agents.ends(one, "promote", SUCCESS);
    await two.until("it is in step", () => agents.hasScore(two, 100));

    await one.powerOff();
    const startedAt = performance.now();
    await agents.ends(two, "promote", SUCCESS);
    console.log(`ocf: promotion: ${((performance.now() - startedAt) / 1000).toFixed(1)} s`);
    await one.boot();
    await agents.startHastd(one);
    await agents.ends(one, "monitor", NOT_RUNNING);
    await agents.ends(one, "start", SUCCESS);
    await one.until("it is in step", () => agents.hasScore(one, 100), { withinMs: 60_000 });

    // A worker that does not answer is given some seconds.
    const pid = await two.expect("pgrep", "-f", "hastd: disk1 .primary.");
    await two.expect("kill", "-STOP", pid.trim());
    expect.match(await agents.ends(two, "monitor", FAILED_PROMOTED), /worker does not answer/);
    await two.expect("kill", "-CONT", pid.trim());
    await two.until(
      "it answers",
      async () => (await agents.action(two, "monitor")).code === RUNNING_PROMOTED,
    );
    await two.expect("kill", "-KILL", pid.trim());
    await agents.ends(two, "monitor", RUNNING_PROMOTED);

    // Without hastd nothing is primary for long; it can be stopped, and is not running.
    await two.expect("sh", "-c", "kill -KILL $(pgrep -xf 'hastd -F' || pgrep -x hastd)");
    await agents.ends(two, "stop", SUCCESS);
    await agents.ends(two, "monitor", NOT_RUNNING);
    expect.equal((await two.run(["pgrep", "-f", "hastd: disk1 .primary."])).code, 1);
    expect.match(await agents.ends(two, "start", ERR_GENERIC), /Unable to connect to hastd/);

    // After that it cannot tell whether the other has gone on: worth a little, asked for, and not forced.
    await one.powerOff();
    await agents.startHastd(two);
    await agents.ends(two, "start", SUCCESS);
    expect.equal(await agents.score(two), 5);
    await agents.ends(two, "promote", ERR_GENERIC);
    expect.equal(await agents.role(two), "secondary");
  }));
