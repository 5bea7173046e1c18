// SPDX-License-Identifier: BSD-2-Clause
/** Connecting and listening, on TCP and on unix sockets. Source: FreeBSD sbin/hastd/proto_tcp.c, proto_uds.c. */

import dns from "node:dns";
import fs from "node:fs";
import net from "node:net";
import path from "node:path";
import tls from "node:tls";
import { assert } from "../../base/assert.ts";
import {
  type Address,
  DEFAULT_PORT,
  formatAddress,
  type NetworkAddress,
  parseAddress,
  plainHost,
} from "../../wire/address.ts";
import { WireError } from "../../wire/error.ts";
import { encodeS1 } from "../../wire/handshake.ts";
import {
  type ConnectOptions,
  type Listener,
  type Net,
  NetError,
  type NetFailure,
  type SecuredClient,
  type SocketAccess,
  type Stream,
} from "../net.ts";
import type { Credentials, ExpectedPeer } from "../tls.ts";
import { refusalOf, tlsOptions } from "./certificate.ts";
import { canOpen, SPARE_FOR_CLIENTS, TOO_FEW_DESCRIPTORS } from "./descriptors.ts";
import { peerUser } from "./libc.ts";
import { failureText } from "./net-failure.ts";
import { adoptSocket, releaseSocket } from "./socket-stream.ts";
import { linger, TlsStream } from "./tls-stream.ts";

/** @param credentials for tls:// addresses and clients with STARTTLS; asked for at each connection */
export function createNet(credentials: () => Credentials | null): Net {
  return {
    connect: (address, options, done) => connect(address, options, credentials, done),
    listen,
    startTls: (stream, timeoutMs, done) => startTls(stream, timeoutMs, credentials(), done),
  };
}

/** One that knows no TLS. */
export const nodeNet: Net = createNet(() => null);

/**
 * Connections the kernel may hold for us to accept, within net.core.somaxconn. Beyond it a UNIX
 * socket does not make a client wait: connect() fails with EAGAIN.
 */
const BACKLOG = 1024;

/** Only the owner of the daemon may open the disks it offers. */
const UNIX_SOCKET_MODE = 0o600;
const OWN_ACCESS: SocketAccess = { mode: UNIX_SOCKET_MODE, user: null, group: null };

function connect(
  text: string,
  options: ConnectOptions,
  credentials: () => Credentials | null,
  done: (result: Stream | NetFailure) => void,
): () => void {
  let socket: net.Socket | null = null;
  let over = false;

  const abandon = () => {
    over = true;
    clearTimeout(timer);
    socket?.destroy();
  };
  const fail = (failure: string) => {
    if (over) return;
    abandon();
    done({ failure });
  };
  const timer = setTimeout(
    () => fail(`no connection within ${options.timeoutMs / 1000} s`),
    options.timeoutMs,
  );

  let address: Address;
  let source: Address | null;
  try {
    address = parseAddress(text);
    source = options.source === null ? null : parseAddress(options.source);
  } catch (error) {
    if (!(error instanceof WireError)) throw error;
    process.nextTick(fail, error.message);
    return abandon;
  }

  const open = (where: net.SocketConnectOpts) => {
    if (over) return;
    socket = new net.Socket();
    socket.pause(); // the reader's memory is not known yet
    socket.on("error", (error: NodeJS.ErrnoException) => fail(failureText(error)));
    socket.on("connect", () => {
      if (over) return;
      if (address.kind === "tls") {
        secure(address);
        return;
      }
      over = true;
      clearTimeout(timer);
      done(adoptSocket(socket!, formatAddress(withPort(address))));
    });
    socket.connect(where);
  };

  const secure = (address: NetworkAddress) => {
    const { expected } = options;
    const own = credentials();
    assert(expected !== undefined);
    if (own === null) {
      fail(NO_CREDENTIALS);
      return;
    }
    setUp(socket!);
    const secured = tls.connect({
      ...tlsOptions(own, own.authorities),
      socket: socket!,
      servername: expected.resource,
      // The server name is the resource's; the certificate is judged below.
      checkServerIdentity: () => undefined,
    });
    secured.on("error", (error: NodeJS.ErrnoException) => fail(tlsFailure(error)));
    secured.on("secureConnect", () => {
      if (over) return;
      const { host } = address;
      const refusal = peerRefusal(secured, own, expected, host);
      if (refusal === null) {
        over = true;
        clearTimeout(timer);
        secured.pause();
        done(new TlsStream(secured, formatAddress(withPort(address))));
        return;
      }
      // Its operator hears of it, too.
      secured.write(encodeS1({ kind: "refused", errmsg: refusal, wait: false }));
      linger(secured);
      over = true;
      clearTimeout(timer);
      done({
        failure: `the node at ${host} is refused: ${refusal}. Compare, there: hastctl tls show`,
      });
    });
  };

  if (address.kind === "unix") {
    open({ path: address.path });
    return abandon;
  }
  if (source !== null && source.kind === "unix") {
    process.nextTick(fail, `source ${options.source} is no TCP address`);
    return abandon;
  }
  const port = address.port ?? DEFAULT_PORT;
  resolve(address.host, address.family, (failure, host) => {
    if (failure !== null) {
      fail(failure);
    } else if (source === null) {
      open({ host, port });
    } else {
      // A socket's two ends are of one family.
      resolve(source.host, net.isIPv6(host) ? 6 : 4, (sourceFailure, localAddress) => {
        if (sourceFailure !== null) fail(`source ${options.source}: ${sourceFailure}`);
        else open({ host, port, localAddress, localPort: source.port ?? 0 });
      });
    }
  });
  return abandon;
}

/** hastd gives them to whoever has such an address, and takes them away when a reload has changed that. */
const NO_CREDENTIALS = "hast.conf wants no TLS any more";

/** As an accepted socket is set up: see socket-stream.ts, for those that are no Stream. */
export function setUp(socket: net.Socket): void {
  socket.setNoDelay(true);
  socket.setKeepAlive(true, 60_000, 10_000, 6);
}

/** Whether the other node is the one that hast.conf names. @returns why not, or null */
export function peerRefusal(
  socket: tls.TLSSocket,
  own: Credentials,
  { pin }: ExpectedPeer,
  host: string,
): string | null {
  return refusalOf(socket, { pin, host, hasAuthorities: own.authorities !== null });
}

/** Why no TLS connection came about, for people. */
export function tlsFailure(error: NodeJS.ErrnoException): string {
  switch (error.code) {
    case "ERR_SSL_TLSV1_UNRECOGNIZED_NAME":
      return "the other node takes no TLS for this resource: its remote there is no tls:// address. Its log says more";
    case "ERR_SSL_TLSV1_ALERT_ACCESS_DENIED":
    case "ERR_SSL_SSL/TLS_ALERT_ACCESS_DENIED":
      return "the other node has no access for this address: its remote there is another. Its log says more";
    case "ECONNRESET":
      return "the peer closed the connection instead of answering TLS: it may know no TLS, or not this address";
    case "ERR_SSL_WRONG_VERSION_NUMBER":
      return "the peer did not answer with TLS";
    case "ERR_SSL_TLSV1_ALERT_PROTOCOL_VERSION":
    case "ERR_SSL_UNSUPPORTED_PROTOCOL":
      return "the peer has no TLS 1.3";
    default:
      return error.errno === undefined ? `TLS: ${reasonOf(error)}` : failureText(error);
  }
}

/** OpenSSL's words without its numbers and places. */
function reasonOf(error: Error & { reason?: unknown }): string {
  return typeof error.reason === "string" ? error.reason : error.message.split("\n", 1)[0]!;
}

function startTls(
  stream: Stream,
  timeoutMs: number,
  own: Credentials | null,
  done: (result: SecuredClient | NetFailure) => void,
): () => void {
  const socket = releaseSocket(stream);
  if (socket === null || own === null) {
    socket?.destroy();
    process.nextTick(done, { failure: own === null ? NO_CREDENTIALS : "the client has gone" });
    return () => undefined;
  }
  const authorities = own.clients ?? own.authorities;
  const acceptable = { pin: null, host: null, hasAuthorities: authorities !== null };
  serveTls(socket, tlsOptions(own, authorities), timeoutMs, (secured) => {
    if ("failure" in secured) done(secured);
    else {
      const refusal = refusalOf(secured, acceptable);
      done({ stream: new TlsStream(secured, stream.peer), refusal });
    }
  });
  return () => socket.destroy();
}

/**
 * The server's side of TLS on a connected socket.
 * @param done is called once: with a paused socket, or with why there is none
 */
export function serveTls(
  socket: net.Socket,
  options: tls.TlsOptions,
  timeoutMs: number,
  done: (secured: tls.TLSSocket | NetFailure) => void,
): void {
  let over = false;
  const finish = (result: tls.TLSSocket | NetFailure) => {
    if (over) return;
    over = true;
    clearTimeout(timer);
    if ("failure" in result) socket.destroy();
    done(result);
  };
  const timer = setTimeout(
    () => finish({ failure: `no TLS within ${timeoutMs / 1000} s` }),
    timeoutMs,
  );
  const fail = (error: NodeJS.ErrnoException) => finish({ failure: tlsFailure(error) });
  // A server of its own for each: no session is ever resumed, so every certificate is shown anew.
  const server = tls.createServer({ ...options, handshakeTimeout: timeoutMs + 1000 }, (secured) => {
    secured.pause();
    secured.on("error", () => undefined); // until its owner listens, "close" is enough
    finish(secured);
  });
  server.on("tlsClientError", fail);
  socket.on("error", fail);
  socket.on("close", () => finish({ failure: "the peer closed the connection" }));
  server.emit("connection", socket);
}

/** Calls `done` with the first address of `host`, at once if it is one itself; or with a failure, later. */
function resolve(
  host: string,
  family: 4 | 6 | null,
  done: (failure: string | null, ip: string) => void,
): void {
  const literal = net.isIP(host);
  if (literal !== 0) {
    const plain = plainHost(host);
    if (family === null || literal === family || plain !== host) done(null, plain);
    else process.nextTick(done, `${host} is no IPv${family} address`, "");
    return;
  }
  dns.lookup(host, { family: family ?? 0 }, (error, ip) => {
    if (error === null) done(null, ip);
    else done(`${host}: ${failureText(error)}`, "");
  });
}

function withPort(address: Address): Address {
  return address.kind === "unix" ? address : { ...address, port: address.port ?? DEFAULT_PORT };
}

async function listen(
  text: string,
  accepted: (stream: Stream, user: number | null) => void,
  failed: (reason: string) => void,
  access: SocketAccess = OWN_ACCESS,
): Promise<Listener> {
  let address: Address;
  try {
    address = parseAddress(text);
  } catch (error) {
    if (!(error instanceof WireError)) throw error;
    throw new NetError("EINVAL", error.message, { cause: error });
  }
  if (address.kind === "tls") {
    throw new NetError("EINVAL", `Cannot listen on ${text}: write tcp:// instead of tls://.`);
  }
  return address.kind === "unix"
    ? await listenUnix(address.path, accepted, failed, access)
    : await listenTcp(address, text, accepted, failed);
}

async function listenTcp(
  address: NetworkAddress,
  text: string,
  accepted: (stream: Stream, user: null) => void,
  failed: (reason: string) => void,
): Promise<Listener> {
  const host = await new Promise<string>((fulfil, reject) =>
    resolve(address.host, address.family, (failure, ip) => {
      if (failure === null) fulfil(ip);
      else reject(new NetError("EINVAL", `Cannot listen on ${text}: ${failure}.`));
    }),
  );
  const server = createServer(failed, (socket) =>
    accepted(adoptSocket(socket, peerOf(socket)), null),
  );
  // ipv6Only, since tcp4://0.0.0.0 and tcp6://[::] are listened on side by side.
  const options = {
    host,
    port: address.port ?? DEFAULT_PORT,
    ipv6Only: net.isIPv6(host),
    backlog: BACKLOG,
  };
  await bind(server, options, text);
  server.on("error", (error: NodeJS.ErrnoException) => failed(failureText(error)));
  const bound = server.address() as net.AddressInfo;
  const family = net.isIPv6(bound.address) ? 6 : 4;
  return {
    address: formatAddress({ kind: "tcp", family, host: bound.address, port: bound.port }),
    close: () => void server.close(),
  };
}

async function listenUnix(
  file: string,
  accepted: (stream: Stream, user: number) => void,
  failed: (reason: string) => void,
  access: SocketAccess,
): Promise<Listener> {
  const address = `unix://${file}`;
  const server = createServer(failed, (socket) => {
    const user = userOf(socket);
    accepted(adoptSocket(socket, address), user);
  });
  makeDirectory(path.dirname(file), address);
  try {
    await bindUnix(server, file, address);
  } catch (error) {
    if (!(error instanceof NetError) || error.code !== "EADDRINUSE") throw error;
    await removeStaleSocket(file);
    await bindUnix(server, file, address);
  }
  try {
    // Its owner first: until then it is our own user's alone.
    fs.chownSync(file, access.user ?? -1, access.group ?? -1);
    fs.chmodSync(file, access.mode);
  } catch (error) {
    server.close();
    const { code } = error as NodeJS.ErrnoException;
    throw new NetError(
      code ?? "EIO",
      `Cannot give ${file} its owner and permissions: ${failureText(error as NodeJS.ErrnoException)}. ` +
        "Run hastd as root, or leave controlowner and controlgroup out of hast.conf.",
      { cause: error },
    );
  }
  server.on("error", (error: NodeJS.ErrnoException) => failed(failureText(error)));
  // Node unlinks the path when the server closes.
  return { address, close: () => void server.close() };
}

/** Binds before it returns, and the socket has its mode from the start: nobody slips in. */
function bindUnix(server: net.Server, file: string, address: string): Promise<void> {
  const before = process.umask(0o777 & ~UNIX_SOCKET_MODE);
  try {
    return bind(server, { path: file, backlog: BACKLOG }, address);
  } finally {
    process.umask(before);
  }
}

/** Makes the last component only: a wrong path is better refused than built. */
function makeDirectory(directory: string, address: string): void {
  try {
    fs.mkdirSync(directory, { mode: 0o755 });
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === "EEXIST") return;
    throw new NetError(
      code ?? "EIO",
      `Cannot listen on ${address}: its directory ${directory} does not exist and cannot be made: ` +
        `${failureText(error as NodeJS.ErrnoException)}. Make it: mkdir -p ${directory}`,
      { cause: error },
    );
  }
}

/** Removes a unix socket that nobody listens on any more. @throws NetError if somebody does, or it is no socket */
async function removeStaleSocket(file: string): Promise<void> {
  const code = await new Promise<string>((fulfil) => {
    const probe = net.connect({ path: file });
    probe.on("connect", () => {
      probe.destroy();
      fulfil("");
    });
    probe.on("error", (error: NodeJS.ErrnoException) => fulfil(error.code ?? "EIO"));
  });
  if (code === "ENOENT") return;
  const stat = fs.lstatSync(file, { throwIfNoEntry: false });
  if (stat !== undefined && !stat.isSocket()) {
    throw new NetError(
      "EEXIST",
      `Cannot listen on unix://${file}: a file that is no socket is in the way. Move it.`,
    );
  }
  if (code !== "ECONNREFUSED") {
    throw new NetError(
      "EADDRINUSE",
      `Cannot listen on unix://${file}: another process listens there. ` +
        `Stop it, or choose another address. See who: fuser -v ${file}`,
    );
  }
  fs.rmSync(file, { force: true });
}

function createServer(
  failed: (reason: string) => void,
  accepted: (socket: net.Socket) => void,
): net.Server {
  return net.createServer({ pauseOnConnect: true }, (socket) => {
    if (canOpen(SPARE_FOR_CLIENTS)) {
      accepted(socket);
      return;
    }
    socket.destroy();
    failed(TOO_FEW_DESCRIPTORS);
  });
}

/** Who connected to a UNIX socket; -1 if the kernel does not say. */
function userOf(socket: net.Socket): number {
  // Node's internal, see socket-stream.ts.
  const fd = (socket as unknown as { _handle: { fd: number } | null })._handle?.fd ?? -1;
  return peerUser(fd);
}

/**
 * Listens.
 * @param text the address, for the message
 * @throws NetError that says what to do next
 */
export function bind(server: net.Server, options: net.ListenOptions, text: string): Promise<void> {
  return new Promise((fulfil, reject) => {
    const failed = (error: NodeJS.ErrnoException) => {
      reject(
        new NetError(error.code ?? "EIO", `Cannot listen on ${text}: ${bindFailure(error)}`, {
          cause: error,
        }),
      );
    };
    server.once("error", failed);
    server.listen(options, () => {
      server.off("error", failed);
      fulfil();
    });
  });
}

function bindFailure(error: NodeJS.ErrnoException): string {
  const words = failureText(error);
  switch (error.code) {
    case "EADDRINUSE":
      return `${words}. Stop the other process or choose another port. See who: ss -ltnp`;
    case "EADDRNOTAVAIL":
      return `${words}: no interface of this machine has it. See which: ip address`;
    case "EACCES":
      return `${words}. Run as root, or choose a port above 1023, or a directory you may write to.`;
    default:
      return `${words}.`;
  }
}

function peerOf(socket: net.Socket): string {
  const host = socket.remoteAddress;
  if (host === undefined) return "tcp://unknown"; // it has already gone
  const port = socket.remotePort ?? null;
  return formatAddress({ kind: "tcp", family: null, host: plainHost(host), port });
}
