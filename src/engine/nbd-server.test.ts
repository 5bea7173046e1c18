// SPDX-License-Identifier: BSD-2-Clause
import { strict as expect } from "node:assert";
import { test } from "node:test";
import fc from "fast-check";
import { fuzz, mutated } from "../../test/fuzz.ts";
import { infoRequest, option, request, u32 } from "../../test/nbd-peer.ts";
import {
  NBD_BLOCK_STATUS,
  NBD_CACHE,
  NBD_DISC,
  NBD_FLUSH,
  NBD_FUA,
  NBD_READ,
  NBD_TRIM,
  NBD_WRITE,
  NBD_WRITE_ZEROES,
  NbdClient,
} from "../../test/pretend/nbd-client.ts";
import { sameBytes } from "../../test/pretend/same-bytes.ts";
import { PretendSecondary } from "../../test/pretend/secondary.ts";
import { createComponent, dirtyArena, World, type WorldOptions } from "../../test/pretend/world.ts";
import type { Metadata } from "../metadata/block.ts";
import type { Net, NetFailure, Stream } from "../platform/net.ts";
import { EXT_ZERO } from "../wire/extensions.ts";
import { COMPRESSION_HOLE } from "../wire/payload.ts";
import { CMD_DELETE, CMD_WRITE } from "../wire/request.ts";
import { PrimaryEngine } from "./primary-engine.ts";

const ARENA = dirtyArena();
const MIB = 1024 * 1024;
const GIB = 1024 * MIB;

interface Setup extends WorldOptions {
  readonly metadata?: Partial<Metadata>;
  /** Extensions of a peer in step; without it, `remote none`. */
  readonly peer?: bigint;
}

class Server {
  readonly world: World;
  readonly engine: PrimaryEngine;
  readonly peer: PretendSecondary | null;
  readonly localoff: number;

  private constructor(
    world: World,
    engine: PrimaryEngine,
    peer: PretendSecondary | null,
    localoff: number,
  ) {
    this.world = world;
    this.engine = engine;
    this.peer = peer;
    this.localoff = localoff;
  }

  static async start(setup: Setup = {}): Promise<Server> {
    const remote = setup.peer === undefined ? { remote: "none" } : {};
    const world = new World({
      arena: ARENA,
      mediaSize: 4 * MIB,
      ...setup,
      completion: "inside",
      settings: { ...remote, ...setup.settings },
    });
    const extentsize = setup.metadata?.extentsize ?? 65536;
    const { datasize, localoff } = createComponent(world.disk, {
      resuid: 77n,
      state: "uptodate",
      sequence: 1n,
      ...setup.metadata,
      extentsize,
    });
    let peer: PretendSecondary | null = null;
    if (setup.peer !== undefined) {
      const options = { datasize, extentsize, extensions: setup.peer };
      const secondary = new PretendSecondary(world.events, options);
      world.net.onConnect = () => secondary.connect();
      peer = secondary;
    }
    const { settings, disk, environment, host } = world;
    const engine = await world.until(PrimaryEngine.open(settings, disk, environment, host));
    await world.until(engine.start());
    disk.completion = setup.completion ?? "inside";
    return new Server(world, engine, peer, localoff);
  }

  /** A client in the middle of its session. */
  async client(...contexts: readonly string[]): Promise<NbdClient> {
    const client = this.dial();
    expect.ok(await client.begin(...contexts), "the server hung up");
    return client;
  }

  dial(): NbdClient {
    return new NbdClient(this.world.events, this.world.net.dial(this.world.settings.export));
  }

  data(offset: number, length: number): Uint8Array {
    return this.world.disk.peek(this.localoff + offset, length);
  }

  async settle(): Promise<void> {
    await this.world.events.settle();
  }

  /** This client gets on. */
  async expectServed(client: NbdClient): Promise<void> {
    const payload = bytes(4096, 0xc1);
    await client.done({ type: NBD_WRITE, offset: 3 * MIB, payload });
    sameBytes((await client.done({ type: NBD_READ, offset: 3 * MIB, length: 4096 })).data, payload);
    await client.done({ type: NBD_FLUSH });
  }

  async stop(): Promise<void> {
    this.engine.stop(10_000);
    for (let second = 0; second < 12 && this.world.host.exit === null; second++) {
      await this.world.clock.pass(1_000);
    }
    expect.equal(this.world.host.exit?.code, 0);
  }
}

function bytes(length: number, value: number): Uint8Array {
  return new Uint8Array(length).fill(value);
}

function pattern(length: number, seed: number): Uint8Array {
  const words = new Uint32Array(length / 4);
  for (let index = 0; index < words.length; index++) words[index] = (index + seed) * 2654435761;
  return new Uint8Array(words.buffer);
}

// ---- clients that behave badly ------------------------------------------------------------------

test("where TLS is required, it begins after the client has our word; what it put behind STARTTLS does not count", async () => {
  const server = await Server.start({ settings: { exportTls: true } });
  const begun: { readonly stream: Stream; readonly done: (result: NetFailure) => void }[] = [];
  const net: Net = server.world.environment.net;
  net.startTls = (stream, _timeoutMs, done) => {
    begun.push({ stream, done });
    return () => done({ failure: "ended" });
  };
  const injecting = server.dial();
  await server.settle();
  injecting.connection.send(u32(3));
  injecting.connection.send(Buffer.concat([option(5), option(7, infoRequest(""))]));
  await server.settle();
  expect.equal(injecting.connection.closedByPeer, true);
  expect.equal(begun.length, 0);
  expect.match(server.world.host.notices.join("\n"), /sent more before TLS than STARTTLS/);

  const client = server.dial();
  await server.settle();
  client.connection.send(u32(3));
  client.connection.send(option(5));
  await server.settle();
  expect.equal(begun.map(({ stream }) => stream).length, 1);
  expect.equal(Buffer.from(client.connection.takeHeard()).readUInt32BE(18 + 12), 1); // ACK
  begun[0]!.done({ failure: "no TLS within 15 s" });
  await server.settle();
  expect.match(server.world.host.notices.join("\n"), /no TLS: no TLS within 15 s/);
  await server.stop();
});

test("a client that vanishes in the middle of a WRITE has written nothing of it", async () => {
  const server = await Server.start();
  const good = await server.client();
  const whole = request({ type: NBD_WRITE, cookie: 1n, offset: 512, payload: bytes(1024, 1) });
  for (let cut = 0; cut < whole.length; cut++) {
    const client = await server.client();
    client.connection.send(whole.subarray(0, cut));
    if (cut % 2 === 0) client.connection.end();
    else client.connection.reset();
    await server.settle();
    expect.equal(client.connection.closedByPeer, true);
    sameBytes(server.data(0, 4096), bytes(4096, 0), `cut at byte ${cut}`);
  }
  await server.expectServed(good);
  await server.stop();
});

test("a client that vanishes with commands under way harms nobody", async () => {
  const server = await Server.start({ completion: "held" });
  const good = await server.client();
  const client = await server.client();
  for (let index = 0; index < 20; index++) {
    client.send({ type: NBD_WRITE, offset: index * 65536, payload: bytes(65536, index) });
    client.send({ type: NBD_READ, offset: index * 65536, length: 65536 });
    client.send({ type: NBD_WRITE, flags: NBD_FUA, offset: 2 * MIB, payload: bytes(512, index) });
  }
  await server.settle();
  client.connection.reset();
  await server.settle();
  server.world.disk.completion = "inside";
  server.world.disk.release();
  await server.settle();
  await server.expectServed(good);
  expect.equal(server.engine.report().idleQueue, 256);
  await server.stop();
});

test("garbage ends the session it comes from, and no other", async () => {
  const server = await Server.start();
  const good = await server.client();
  const dialog = fc.uint8Array({ minLength: 1, maxLength: 400 });
  await fuzz(
    fc.asyncProperty(
      dialog,
      fc.boolean(),
      fc.integer({ min: 1, max: 50 }),
      async (said, inside, size) => {
        const client = inside ? await server.client() : server.dial();
        client.connection.chunk = () => size;
        client.connection.send(said);
        await server.settle();
        client.connection.end();
        await server.settle();
        expect.equal(client.connection.closedByPeer, true);
      },
    ),
  );
  await server.expectServed(good);
  expect.equal(server.engine.report().idleQueue, 256);
  await server.stop();
});

test("valid requests with a byte changed are answered, or end the session", async () => {
  const server = await Server.start();
  const good = await server.client();
  const stream = Buffer.concat([
    request({ type: NBD_WRITE, cookie: 1n, offset: 0, payload: bytes(512, 1) }),
    request({ type: NBD_READ, cookie: 2n, offset: 0, length: 4096 }),
    request({ type: NBD_WRITE_ZEROES, cookie: 3n, offset: 4096, length: 4096 }),
    request({ type: NBD_TRIM, cookie: 4n, offset: 4096, length: 4096 }),
    request({ type: NBD_FLUSH, cookie: 5n }),
    request({ type: NBD_CACHE, cookie: 6n, offset: 0, length: 512 }),
  ]);
  await fuzz(
    fc.asyncProperty(mutated(stream), fc.integer({ min: 1, max: 200 }), async (said, size) => {
      const client = await server.client();
      client.connection.chunk = () => size;
      client.connection.send(said);
      await server.settle();
      client.connection.end();
      await server.settle();
      expect.equal(client.connection.closedByPeer, true);
    }),
  );
  await server.expectServed(good);
  expect.equal(server.engine.report().idleQueue, 256);
  await server.stop();
});

test("clients that take no replies use bounded memory, and others are served meanwhile", async () => {
  const server = await Server.start();
  const good = await server.client();
  const flooders: NbdClient[] = [];
  for (let index = 0; index < 15; index++) {
    const flooder = await server.client("base:allocation", "hast:dirty");
    flooder.connection.stopListening();
    flooders.push(flooder);
  }
  for (const [index, flooder] of flooders.entries()) {
    if (index % 3 === 0) {
      for (let count = 0; count < 60; count++) {
        flooder.send({ type: NBD_READ, offset: 0, length: 131072 });
      }
    } else if (index % 3 === 1) {
      for (let count = 0; count < 6; count++) {
        flooder.send({ type: NBD_READ, offset: 0, length: 2 * MIB });
      }
    } else {
      for (let count = 0; count < 3_000; count++) {
        flooder.send({ type: NBD_BLOCK_STATUS, offset: 0, length: 4 * MIB - 8192 });
      }
    }
  }
  await server.settle();
  for (const { connection } of flooders) {
    expect.ok(connection.stuck < 5 * MIB, `${connection.stuck} bytes wait`);
  }
  await server.expectServed(good);
  const large = await good.done({ type: NBD_READ, offset: 0, length: 2 * MIB });
  expect.equal(large.data.length, 2 * MIB);

  for (const flooder of flooders) flooder.connection.listenAgain();
  await server.world.clock.pass(1);
  for (const [index, flooder] of flooders.entries()) {
    expect.equal(flooder.answerCount, [60, 6, 3_000][index % 3]);
  }
  await server.stop();
});

test("BLOCK_STATUS without end leaves others their turn, in the event loop and among themselves", async () => {
  const server = await Server.start();
  const good = await server.client();
  const flooders = [await server.client("hast:dirty"), await server.client("hast:dirty")];
  for (const flooder of flooders) {
    for (let count = 0; count < 500; count++) {
      flooder.send({ type: NBD_BLOCK_STATUS, offset: 0, length: 65536 });
    }
  }
  await server.settle();
  const answered = () => flooders.map(({ answerCount }) => answerCount);
  expect.equal(answered()[0]! + answered()[1]!, 8);
  await server.expectServed(good);
  let breaths = 0;
  for (; answered()[0]! + answered()[1]! < 800; breaths++) {
    expect.ok(await server.world.clock.step(server.world.clock.now()));
  }
  expect.ok(breaths > 90);
  expect.ok(Math.min(...answered()) > 200, String(answered()));
  await server.world.clock.pass(1);
  expect.deepEqual(answered(), [500, 500]);
  await server.stop();
});

test("a client that asks without end does not keep others waiting", async () => {
  const server = await Server.start({ completion: "held" });
  const greedy = await server.client();
  const good = await server.client();
  for (let index = 0; index < 5_000; index++) {
    greedy.send({ type: NBD_READ, offset: 0, length: 4096 });
  }
  await server.settle();
  const cookie = good.send({ type: NBD_READ, offset: 4096, length: 4096 });
  await server.settle();
  let rounds = 0;
  while (good.answer(cookie) === null) {
    server.world.disk.release();
    await server.settle();
    rounds++;
    expect.ok(rounds < 5, `${greedy.answerCount} of the other's commands came first`);
  }
  server.world.disk.completion = "inside";
  server.world.disk.release();
  await server.settle();
  expect.equal(greedy.answerCount, 5_000);
  await server.stop();
});

test("a 17th client is sent away, until one of the others leaves", async () => {
  const server = await Server.start();
  const clients: NbdClient[] = [];
  for (let index = 0; index < 16; index++) clients.push(await server.client());
  const late = server.dial();
  expect.equal(await late.begin(), false);
  expect.equal(late.connection.closedByPeer, true);
  expect.match(server.world.host.notices.join(), /16 are connected already/);
  clients[3]!.send({ type: NBD_DISC });
  await server.settle();
  expect.equal(clients[3]!.connection.closedByPeer, true);
  await server.expectServed(await server.client());
  await server.stop();
});

test("clients that connect and say nothing do not keep others out for ever", async () => {
  const server = await Server.start();
  const silent: NbdClient[] = [];
  for (let index = 0; index < 15; index++) silent.push(server.dial());
  const idle = await server.client();
  await server.world.clock.pass(61_000);
  for (const { connection } of silent) expect.equal(connection.closedByPeer, true);
  await server.expectServed(await server.client());
  await server.expectServed(idle);
  await server.stop();
});

test("clients that connect and say nothing keep nobody out even for a moment, and nobody else gives way", async () => {
  const server = await Server.start();
  const first = await server.client();
  const silent = Array.from({ length: 15 }, () => server.dial());
  await server.settle();
  const others = [];
  for (let count = 0; count < 15; count++) others.push(await server.client());
  await server.settle();
  expect.equal(silent.filter(({ connection }) => connection.closedByPeer).length, 15);
  for (const client of [first, ...others]) await server.expectServed(client);
  await server.stop();
});

test("a client that stops reading a long answer does not keep the large buffer from others", async () => {
  const server = await Server.start({ mediaSize: 80 * MIB });
  const good = await server.client();
  const bad = await server.client();
  bad.connection.stopListening();
  bad.send({ type: NBD_READ, offset: 0, length: 32 * MIB });
  await server.settle();
  const cookie = good.send({ type: NBD_READ, offset: 0, length: 32 * MIB });
  await server.settle();
  await server.world.clock.pass(61_000);
  expect.equal(good.answer(cookie)?.error, 0);
  await server.expectServed(good);
  await server.stop();
});

test("a client that stops in the middle of a long WRITE does not keep the large buffer from others", async () => {
  const server = await Server.start({ mediaSize: 80 * MIB });
  const [good, bad] = [await server.client(), await server.client()];
  const long = request({ type: NBD_WRITE, offset: 0, payload: bytes(32 * MIB, 1) });
  bad.connection.send(long.subarray(0, 28 + 5 * MIB));
  await server.settle();
  const cookie = good.send({ type: NBD_WRITE, offset: 33 * MIB, payload: bytes(32 * MIB, 2) });
  await server.world.clock.pass(20_000);
  expect.equal(good.answer(cookie), null);
  bad.connection.send(long.subarray(28 + 5 * MIB, 28 + 6 * MIB));
  await server.world.clock.pass(20_000);
  expect.equal(bad.connection.closedByPeer, false, "it goes on, slowly");
  await server.world.clock.pass(20_000);
  expect.equal(bad.connection.closedByPeer, true);
  expect.equal(good.answer(cookie)?.error, 0);
  sameBytes(server.data(0, 4096), bytes(4096, 0));
  await server.expectServed(good);
  await server.stop();
});

test("a client that says goodbye and does not take its replies is not waited for", async () => {
  const server = await Server.start();
  const client = await server.client();
  client.connection.stopListening();
  client.send({ type: NBD_READ, offset: 0, length: MIB });
  client.send({ type: NBD_DISC });
  await server.settle();
  expect.ok(client.connection.stuck > 0);
  await server.world.clock.pass(40_000);
  expect.equal(client.connection.stuck, 0, "the connection was given up");
  client.connection.listenAgain();
  await server.settle();
  expect.equal(client.connection.closedByPeer, true);
  await server.stop();
});

test("clients that come again and again, whatever they do, do not fill the log", async () => {
  const server = await Server.start();
  for (let index = 0; index < 500; index++) {
    const { connection } = server.dial();
    connection.send(bytes(64, 0xff));
    await server.settle();
    expect.equal(connection.closedByPeer, true);
  }
  const clients: NbdClient[] = [];
  for (let index = 0; index < 100; index++) clients.push(server.dial());
  await server.settle();
  expect.ok(server.world.host.notices.length <= 20, `${server.world.host.notices.length} lines`);
  await server.world.clock.pass(11_000);
  server.dial();
  await server.settle();
  expect.match(server.world.host.notices.at(-1)!, /NBD client .*others come \(left out .*: \d+ /);
  await server.stop();
});

test("everything is answered by what follows from it, not by a timer that looks after forgotten things", async () => {
  const size = 24 * MIB;
  const place = (most: number) =>
    fc
      .record({ at: fc.nat(size / 512 - 1), sectors: fc.integer({ min: 1, max: most / 512 }) })
      .map(({ at, sectors }) => {
        const length = Math.min(sectors * 512, size - at * 512);
        return { offset: at * 512, length };
      });
  const flags = fc.constantFrom(0, NBD_FUA);
  const command = fc.oneof(
    fc.record({
      type: fc.constant(NBD_READ),
      place: fc.oneof(place(65536), place(6 * MIB)),
      flags,
    }),
    fc.record({
      type: fc.constant(NBD_WRITE),
      place: fc.oneof(place(65536), place(5 * MIB)),
      flags,
    }),
    fc.record({
      type: fc.constantFrom(NBD_TRIM, NBD_WRITE_ZEROES, NBD_CACHE),
      place: place(20 * MIB),
      flags,
    }),
    fc.record({
      type: fc.constant(NBD_FLUSH),
      place: fc.constant({ offset: 0, length: 0 }),
      flags,
    }),
  );
  const round = fc.record({
    commands: fc.array(fc.tuple(fc.nat(2), command), { maxLength: 60 }),
    seed: fc.integer({ min: 1, max: 2 ** 31 - 2 }),
    completion: fc.constantFrom("inside" as const, "later" as const),
    peer: fc.constantFrom(undefined, 0n, EXT_ZERO),
    replication: fc.constantFrom("fullsync" as const, "memsync" as const, "async" as const),
  });
  await fc.assert(
    fc.asyncProperty(round, async ({ commands, seed, completion, peer, replication }) => {
      let state = seed;
      const random = (count: number) => {
        state = (state * 48271) % 2147483647;
        return state % count;
      };
      const server = await Server.start({
        mediaSize: 32 * MIB,
        completion,
        ...(peer === undefined ? {} : { peer }),
        settings: { replication },
      });
      const clients = [await server.client(), await server.client(), await server.client()];
      for (const { connection } of clients) connection.chunk = (most) => 1 + random(most);
      const asked = commands.map(([who, { type, place, flags: withFlags }]) => {
        const payload = type === NBD_WRITE ? bytes(place.length, who + 1) : undefined;
        const wanted = payload === undefined ? place : { offset: place.offset, payload };
        const fua = type === NBD_FLUSH || type === NBD_CACHE ? 0 : withFlags;
        return [clients[who]!, clients[who]!.send({ type, flags: fua, ...wanted })] as const;
      });
      await server.settle();
      for (const [client, cookie] of asked) expect.equal(client.answer(cookie)?.error, 0);
      expect.equal(server.engine.report().idleQueue, 256);
      await server.stop();
    }),
    { numRuns: 60, interruptAfterTimeLimit: 5_000 },
  );
});

// ---- commands -----------------------------------------------------------------------------------

test("32 MiB are written and read, by two clients at once", async () => {
  const server = await Server.start({ mediaSize: 80 * MIB, completion: "later" });
  const [one, two] = [await server.client(), await server.client()];
  two.connection.chunk = () => 1_000_000;
  const [first, second] = [pattern(32 * MIB, 1), pattern(32 * MIB, 2)];
  const writes = [
    one.send({ type: NBD_WRITE, offset: 0, payload: first }),
    two.send({ type: NBD_WRITE, offset: 33 * MIB, payload: second }),
  ];
  await server.settle();
  expect.deepEqual([one.answer(writes[0]!)?.error, two.answer(writes[1]!)?.error], [0, 0]);
  sameBytes(server.data(0, 32 * MIB), first);
  const reads = [
    one.send({ type: NBD_READ, offset: 33 * MIB, length: 32 * MIB }),
    two.send({ type: NBD_READ, offset: 0, length: 32 * MIB }),
  ];
  await server.settle();
  sameBytes(one.answer(reads[0]!)!.data, second);
  sameBytes(two.answer(reads[1]!)!.data, first);
  const tooLong = await one.call({ type: NBD_READ, offset: 0, length: 32 * MIB + 512 });
  expect.equal(tooLong?.error, 22);
  await server.expectServed(one);
  await server.stop();
});

test("what waits for a slow disk is not overwritten by what comes after it", async () => {
  const server = await Server.start({ mediaSize: 40 * MIB, completion: "held" });
  const client = await server.client();
  client.connection.chunk = () => 1_000_000;
  const cookies = Array.from({ length: 28 }, (_, index) =>
    client.send({ type: NBD_WRITE, offset: index * MIB, payload: bytes(MIB, index + 1) }),
  );
  await server.settle();
  for (let round = 0; round < 10; round++) {
    server.world.disk.release();
    await server.settle();
  }
  for (const [index, cookie] of cookies.entries()) {
    expect.equal(client.answer(cookie)?.error, 0);
    sameBytes(server.data(index * MIB, MIB), bytes(MIB, index + 1));
  }
  server.world.disk.completion = "inside";
  await server.stop();
});

test("a command of which one piece fails is an error, whichever piece it is (BD-3)", async () => {
  const server = await Server.start();
  const client = await server.client();
  for (const failing of [0, 1, 2]) {
    const at = server.localoff + failing * 131072;
    server.world.disk.fail = ({ op, offset }) => (op === "read" && offset === at ? 5 : 0);
    const answer = await client.call({ type: NBD_READ, offset: 0, length: 3 * 131072 });
    expect.equal(answer?.error, 5);
  }
  server.world.disk.fail = () => 0;
  await server.stop();
});

test("FUA is a write and then a flush, and answered after both", async () => {
  const server = await Server.start({ peer: 0n, completion: "held" });
  const client = await server.client();
  const { disk } = server.world;
  server.peer!.automatic = false;
  for (const type of [NBD_WRITE, NBD_WRITE_ZEROES, NBD_TRIM]) {
    const payload = type === NBD_WRITE ? { payload: bytes(4096, 1) } : { length: 4096 };
    const cookie = client.send({ type, flags: NBD_FUA, offset: 0, ...payload });
    await server.settle();
    disk.history.length = 0;
    const steps: string[] = [];
    while (client.answer(cookie) === null) {
      steps.push(
        ...disk.running
          .filter(({ offset, op }) => op === "flush" || offset >= server.localoff)
          .map(({ op }) => op),
      );
      expect.ok(steps.length < 20);
      disk.release();
      server.peer!.answerAll();
      await server.settle();
    }
    expect.match(steps.join(), type === NBD_WRITE ? /write,flush$/ : /zero,flush$/);
    expect.equal(server.peer!.heard.at(-1)!.header.cmd, 4, "the peer flushes too");
  }
  disk.completion = "inside";
  server.peer!.automatic = true;
  await server.stop();
});

test("FUA whose flush fails is an error, and the end of this disk", async () => {
  const server = await Server.start();
  const client = await server.client();
  await client.done({ type: NBD_WRITE, offset: 0, payload: bytes(512, 1) });
  server.world.disk.fail = ({ op }) => (op === "flush" ? 5 : 0);
  const answer = await client.call({
    type: NBD_WRITE,
    flags: NBD_FUA,
    offset: 0,
    payload: bytes(512, 2),
  });
  expect.equal(answer?.error, 5);
  expect.equal(server.world.host.exit?.code, 74);
});

test("a FLUSH covers what other connections were told", async () => {
  const server = await Server.start({ completion: "later" });
  const [one, two] = [await server.client(), await server.client()];
  await one.done({ type: NBD_WRITE, offset: 0, payload: bytes(512, 1) });
  server.world.disk.history.length = 0;
  await two.done({ type: NBD_FLUSH });
  expect.deepEqual(
    server.world.disk.history.map(({ op }) => op),
    ["flush"],
  );
  await server.stop();
});

for (const [what, peer] of [
  ["alone", undefined],
  ["with a FreeBSD peer", 0n],
  ["with a peer that zeroes ranges", EXT_ZERO],
] as const) {
  test(`TRIM and WRITE_ZEROES of 3 GiB, ${what} (S-20)`, async () => {
    const server = await Server.start({
      mediaSize: 4 * GIB,
      metadata: { extentsize: 2 * MIB },
      ...(peer === undefined ? {} : { peer }),
    });
    const client = await server.client();
    const other = await server.client();
    const length = 3 * GIB;
    await client.done({ type: NBD_WRITE, offset: MIB, payload: bytes(65536, 1) });
    await client.done({ type: NBD_WRITE, offset: MIB + length - 512, payload: bytes(1024, 2) });
    const heardBefore = server.peer?.heard.length ?? 0;
    for (const type of [NBD_TRIM, NBD_WRITE_ZEROES]) {
      await client.done({ type, offset: MIB, length });
      sameBytes(server.data(MIB, 65536), bytes(65536, 0));
      sameBytes(server.data(MIB + length - 512, 1024), bytes(1024, 0).fill(2, 512));
      await server.expectServed(other);
    }
    const zeroes = (server.peer?.heard ?? [])
      .slice(heardBefore)
      .map(({ header }) => header)
      .filter(({ offset }) => offset !== 3 * MIB || peer === 0n);
    if (peer === 0n) {
      const holes = zeroes.filter(({ compression }) => compression === COMPRESSION_HOLE);
      expect.equal(sum(holes.map(({ length: part }) => part)), 2 * length);
      expect.ok(holes.every((header) => header.cmd === CMD_WRITE && header.length <= 131072));
    } else if (peer === EXT_ZERO) {
      const deletes = zeroes.filter(({ cmd }) => cmd === CMD_DELETE);
      expect.equal(sum(deletes.map(({ length: part }) => part)), 2 * length);
      expect.ok(deletes.length < 300);
    }
    expect.equal(server.engine.report().idleQueue, 256);
    await server.stop();
  });
}

function sum(numbers: readonly number[]): number {
  return numbers.reduce((total, number) => total + number, 0);
}

test("BLOCK_STATUS tells holes, and what the peer lacks", async () => {
  const server = await Server.start({ peer: 0n, mediaSize: 8 * MIB });
  const client = await server.client("base:allocation", "hast:dirty");
  const allocation = client.contexts.get("base:allocation")!;
  const dirty = client.contexts.get("hast:dirty")!;
  const status = async (offset: number, length: number, flags = 0) =>
    (await client.done({ type: NBD_BLOCK_STATUS, flags, offset, length })).extents;

  const before = await status(0, MIB);
  expect.deepEqual(before.get(dirty), [[MIB, 0]]);
  expect.equal(sum((before.get(allocation) ?? []).map(([length]) => length)), MIB);

  server.world.net.onConnect = () => "connection refused";
  server.peer!.leave();
  await server.settle();
  await client.done({ type: NBD_WRITE, offset: 2 * 65536, payload: bytes(65536, 1) });
  await client.done({ type: NBD_WRITE, offset: 4 * MIB, payload: bytes(512, 1) });
  const after = await status(65536, 4 * MIB);
  expect.deepEqual(after.get(dirty), [
    [65536, 0],
    [65536, 1],
    [4 * MIB - 3 * 65536, 0],
    [65536, 1],
  ]);
  // The chunks of the pretended disk do not begin where the data area does.
  expect.ok(after.get(allocation)!.some(([, flags]) => flags === 3));
  expect.ok(after.get(allocation)!.some(([, flags]) => flags === 0));
  const one = await status(0, MIB, 8);
  expect.deepEqual(one.get(dirty), [[2 * 65536, 0]]);
  expect.equal(one.get(allocation)!.length, 1);
  await server.stop();
});

test("BLOCK_STATUS tells of no holes while part of the data is at the peer only (BD-13)", async () => {
  const metadata = { state: "inconsistent", prevrole: "primary" } as const;
  const server = await Server.start({ metadata, settings: { remote: "tcp://peer" } });
  const client = await server.client("base:allocation");
  const { extents } = await client.done({ type: NBD_BLOCK_STATUS, offset: 0, length: 2 * MIB });
  expect.deepEqual([...extents.values()], [[[2 * MIB, 0]]]);
  await server.stop();
});

test("BLOCK_STATUS of more ranges than one answer holds is answered in part", async () => {
  const server = await Server.start({ mediaSize: 512 * MIB });
  const client = await server.client("base:allocation");
  for (let index = 0; index < 1100; index++) {
    server.world.disk.poke(index * 2 * 65536 + 65536, bytes(1, 1));
  }
  const { extents } = await client.done({ type: NBD_BLOCK_STATUS, offset: 0, length: 500 * MIB });
  const [ranges] = extents.values();
  expect.equal(ranges!.length, 1024);
  await server.stop();
});

// ---- the end ------------------------------------------------------------------------------------

test("commands that were accepted are answered before stop() ends, and none after", async () => {
  const server = await Server.start({ completion: "held" });
  const client = await server.client();
  const cookies = [
    client.send({ type: NBD_WRITE, offset: 0, payload: bytes(65536, 1) }),
    client.send({ type: NBD_WRITE, flags: NBD_FUA, offset: 65536, payload: bytes(65536, 2) }),
    client.send({ type: NBD_FLUSH }),
  ];
  await server.settle();
  server.engine.stop(10_000);
  await server.settle();
  expect.equal(server.world.net.isListening(server.world.settings.export), false);
  const late = client.send({ type: NBD_READ, offset: 0, length: 512 });
  for (let round = 0; round < 20; round++) {
    server.world.disk.release();
    await server.settle();
  }
  expect.equal(server.world.host.exit?.code, 0);
  expect.deepEqual(
    cookies.map((cookie) => client.answer(cookie)?.error),
    [0, 0, 0],
  );
  expect.equal(client.answer(late), null);
  expect.equal(client.connection.closedByPeer, true);
});

test("a client in the middle of negotiation does not hold up stop()", async () => {
  const server = await Server.start();
  const client = server.dial();
  client.connection.send(u32(3), option(8).subarray(0, 9));
  await server.settle();
  await server.stop();
  expect.equal(client.connection.closedByPeer, true);
});
