// SPDX-License-Identifier: BSD-2-Clause
/**
 * The system calls Node lacks, through koffi.
 *
 * Synchronous ones return what the call returned, or -errno. Asynchronous ones run on libuv's
 * pool and report a positive errno, 0 for success. Constants: Linux, the same on x86-64 and arm64.
 */
import koffi from "koffi";

const libc = koffi.load(null);

const callFlock = libc.func("int flock(int fd, int operation)");
const callFcntl = libc.func("int fcntl(int fd, int command, int argument)");
const callFallocate = libc.func("int fallocate(int fd, int mode, int64_t offset, int64_t length)");
const callFadvise = libc.func(
  "int posix_fadvise(int fd, int64_t offset, int64_t length, int advice)",
);
const callIoctl = libc.func("int ioctl(int fd, ulong request, void *argument)");
const callLseek = libc.func("int64_t lseek(int fd, int64_t offset, int whence)");
const callSyscall = libc.func(
  "int64_t syscall(int64_t number, int64_t a, int64_t b, int64_t c, int64_t d, void *e, int64_t f)",
);
const callIoUringSetup = libc.func("syscall", "int64_t", ["int64_t", "int64_t", "void *"]);
const callMmap = libc.func(
  "intptr_t mmap(void *at, size_t length, int protection, int flags, int fd, int64_t offset)",
);
const callMunmap = libc.func("int munmap(intptr_t at, size_t length)");
const callGethostid = libc.func("long gethostid()");
const callGetsockopt = libc.func(
  "int getsockopt(int fd, int level, int name, void *value, void *size)",
);
const callGetpwnam = libc.func("void *getpwnam(str name)");
const callGetgrnam = libc.func("void *getgrnam(str name)");
const callSocket = libc.func("int socket(int domain, int type, int protocol)");
const callSendto = libc.func(
  "int64_t sendto(int fd, void *bytes, size_t length, int flags, void *address, uint32_t addressLength)",
);
const callSocketpair = libc.func("int socketpair(int domain, int type, int protocol, void *ends)");
const callPoll = libc.func("int poll(void *descriptors, ulong count, int timeout)");

/** errno values that the platform code tells apart. */
export const EINTR = 4;
export const EIO = 5;
export const ENXIO = 6;
export const EAGAIN = 11;
export const EBUSY = 16;
export const ENODEV = 19;
export const EINVAL = 22;
export const ENOSYS = 38;
export const EOPNOTSUPP = 95;

function negativeErrno(result: number): number {
  return result < 0 ? -koffi.errno() : result;
}

/**
 * Locks the open file description exclusively, without waiting. The lock lasts until its last
 * descriptor is closed *and* the kernel has finished I/O begun through it.
 *
 * @returns 0, -EAGAIN where another description holds the lock, or another -errno
 */
export function flockExclusive(fd: number): number {
  const LOCK_EX = 2;
  const LOCK_NB = 4;
  return negativeErrno(callFlock(fd, LOCK_EX | LOCK_NB));
}

/** Switches O_DIRECT on or off for an open description. @returns 0 or -errno (EINVAL: not supported) */
export function setDirectIo(fd: number, on: boolean): number {
  const F_GETFL = 3;
  const F_SETFL = 4;
  // The one open(2) flag here that differs between the two architectures.
  const O_DIRECT = process.arch === "arm64" ? 0o200000 : 0o40000;
  const flags = negativeErrno(callFcntl(fd, F_GETFL, 0));
  if (flags < 0) return flags;
  return negativeErrno(callFcntl(fd, F_SETFL, on ? flags | O_DIRECT : flags & ~O_DIRECT));
}

/** Keeps a descriptor from programs that are started from now on. @returns 0 or -errno */
export function setCloseOnExec(fd: number): number {
  const F_SETFD = 2;
  const FD_CLOEXEC = 1;
  return negativeErrno(callFcntl(fd, F_SETFD, FD_CLOEXEC));
}

/** Drops the clean pages of a whole file or block device from the page cache. @returns 0 or a positive errno */
export function dropCleanPages(fd: number): number {
  const POSIX_FADV_DONTNEED = 4;
  return callFadvise(fd, 0, 0, POSIX_FADV_DONTNEED); // which returns its errno, unlike the others here
}

export const FALLOC_KEEP_SIZE = 1;
export const FALLOC_PUNCH_HOLE = 2;
export const FALLOC_ZERO_RANGE = 16;

/**
 * fallocate(2) on libuv's pool.
 *
 * @param mode FALLOC_… flags
 * @param done called later with koffi's error (our misuse, null otherwise) and the call's result;
 *   inside it, {@link lastErrno} is that of the call
 */
export const fallocateAsync: (
  fd: number,
  mode: number,
  offset: number,
  length: number,
  done: (error: Error | null, result: number) => void,
) => void = callFallocate.async;

/** errno of the call just made, or, inside the callback of an asynchronous call, of that one. */
export function lastErrno(): number {
  return koffi.errno();
}

/** Where data begins at or after `offset`. @returns a byte offset, -ENXIO when only a hole follows, or -errno */
export function seekData(fd: number, offset: number): number {
  const SEEK_DATA = 3;
  return negativeErrno(Number(callLseek(fd, offset, SEEK_DATA)));
}

/** Where a hole begins at or after `offset`; the end of the file counts as one. @returns a byte offset or -errno */
export function seekHole(fd: number, offset: number): number {
  const SEEK_HOLE = 4;
  return negativeErrno(Number(callLseek(fd, offset, SEEK_HOLE)));
}

/** A block device's size in bytes, or -errno. */
export function blockDeviceSize(fd: number): number {
  const BLKGETSIZE64 = 0x80081272;
  const argument = Buffer.alloc(8);
  const result = negativeErrno(callIoctl(fd, BLKGETSIZE64, argument));
  return result < 0 ? result : Number(argument.readBigUInt64LE());
}

/** A block device's logical sector size in bytes (what requests must be multiples of), or -errno. */
export function logicalSectorSize(fd: number): number {
  const BLKSSZGET = 0x1268;
  const argument = Buffer.alloc(4);
  const result = negativeErrno(callIoctl(fd, BLKSSZGET, argument));
  return result < 0 ? result : argument.readInt32LE();
}

/** A block device's physical sector size in bytes (what it writes in one piece), or -errno. */
export function physicalSectorSize(fd: number): number {
  const BLKPBSZGET = 0x127b;
  const argument = Buffer.alloc(4);
  const result = negativeErrno(callIoctl(fd, BLKPBSZGET, argument));
  return result < 0 ? result : argument.readUInt32LE();
}

/**
 * This machine's host id, 32 bits, unsigned. Without /etc/hostid, glibc derives it from the address
 * of the host name, which can ask a name server: call it at start, not while serving.
 */
export function hostId(): number {
  return Number(callGethostid()) >>> 0;
}

/** The user at the other end of a connected UNIX socket (SO_PEERCRED), or -1. */
export function peerUser(fd: number): number {
  const SOL_SOCKET = 1;
  const SO_PEERCRED = 17;
  // struct ucred: process, user, group.
  const credentials = Buffer.alloc(12);
  const size = Buffer.alloc(4);
  size.writeUInt32LE(credentials.length);
  const result = callGetsockopt(fd, SOL_SOCKET, SO_PEERCRED, credentials, size);
  return result === 0 ? credentials.readUInt32LE(4) : -1;
}

/** A user and its group, by name; null where there is none. May ask a directory server: at start only. */
export function findUser(name: string): { readonly uid: number; readonly gid: number } | null {
  // struct passwd: name, password, user, group, …
  const entry = callGetpwnam(name);
  if (entry === null) return null;
  return { uid: koffi.decode(entry, 16, "uint32_t"), gid: koffi.decode(entry, 20, "uint32_t") };
}

/** A group by name; null where there is none. Likewise. */
export function findGroup(name: string): number | null {
  // struct group: name, password, group, …
  const entry = callGetgrnam(name);
  return entry === null ? null : koffi.decode(entry, 16, "uint32_t");
}

const AF_UNIX = 1;

/** An unconnected datagram socket for paths. @returns a descriptor or -errno */
export function unixDatagramSocket(): number {
  const SOCK_DGRAM = 2;
  const SOCK_CLOEXEC = 0o2000000;
  return negativeErrno(callSocket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
}

/** Two connected stream sockets. @returns their descriptors or -errno */
export function socketPair(): readonly [number, number] | number {
  const SOCK_STREAM = 1;
  const SOCK_CLOEXEC = 0o2000000;
  const ends = Buffer.alloc(8);
  const result = negativeErrno(callSocketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends));
  return result < 0 ? result : [ends.readInt32LE(0), ends.readInt32LE(4)];
}

/** struct sockaddr_un of a path of at most 107 bytes; or of "@name", a name in the abstract namespace. */
export function unixAddress(path: string): Uint8Array {
  const name = Buffer.from(path);
  const address = Buffer.alloc(110);
  address.writeUInt16LE(AF_UNIX);
  address.set(name, 2);
  if (!path.startsWith("@")) return address.subarray(0, 2 + name.length + 1);
  address[2] = 0;
  return address.subarray(0, 2 + name.length);
}

/** Sends one datagram, if that is possible without waiting. @returns how many bytes, or -errno */
export function sendDatagram(fd: number, bytes: Uint8Array, address: Uint8Array): number {
  const MSG_DONTWAIT = 0x40;
  const MSG_NOSIGNAL = 0x4000;
  const flags = MSG_DONTWAIT | MSG_NOSIGNAL;
  return negativeErrno(Number(callSendto(fd, bytes, bytes.length, flags, address, address.length)));
}

/** Whether a write of at most 4096 bytes to `fd` would not wait. */
export function isWritable(fd: number): boolean {
  const POLLOUT = 4;
  // struct pollfd: descriptor, events wanted, events found.
  const descriptor = Buffer.alloc(8);
  descriptor.writeInt32LE(fd, 0);
  descriptor.writeInt16LE(POLLOUT, 4);
  return callPoll(descriptor, 1, 0) === 1 && (descriptor.readInt16LE(6) & POLLOUT) !== 0;
}

// Since io_uring, new system calls have one number on every architecture.
const SYS_IO_URING_SETUP = 425;
const SYS_IO_URING_ENTER = 426;

/** @param params struct io_uring_params, 120 bytes, read and written. @returns the ring's descriptor or -errno */
export function ioUringSetup(entryCount: number, params: Uint8Array): number {
  return negativeErrno(Number(callIoUringSetup(SYS_IO_URING_SETUP, entryCount, params)));
}

/** @returns how many submissions the kernel has taken, or -errno */
export function ioUringEnter(
  fd: number,
  submitCount: number,
  waitCount: number,
  flags: number,
): number {
  return negativeErrno(
    Number(callSyscall(SYS_IO_URING_ENTER, fd, submitCount, waitCount, flags, null, 0)),
  );
}

/** Memory shared with the kernel; its bytes must not be touched after {@link unmap}. */
export interface Mapping {
  readonly address: number;
  readonly bytes: ArrayBuffer;
}

/** Maps `length` bytes of `fd` at `offset`, shared, for reading and writing. @returns -errno if that fails */
export function mapShared(fd: number, offset: number, length: number): Mapping | number {
  const PROT_READ_WRITE = 3;
  const MAP_SHARED_POPULATE = 0x8001;
  const address = callMmap(null, length, PROT_READ_WRITE, MAP_SHARED_POPULATE, fd, offset);
  if (Number(address) === -1) return -koffi.errno();
  return { address: Number(address), bytes: koffi.view(BigInt(address), length) };
}

export function unmap(mapping: Mapping): void {
  callMunmap(mapping.address, mapping.bytes.byteLength);
}

/** Where `bytes` lie in this process: exact, since user addresses stay below 2^48. */
export function addressOf(bytes: Uint8Array): number {
  return Number(koffi.address(bytes));
}

export interface Poll {
  close(): void;
}

/** koffi stops calling back for a handle that has been collected, although its descriptor is being watched. */
const polls = new Set<Poll>();

/**
 * Calls `readable` from the event loop whenever `fd` has something to read, for as long as it has.
 * Node sees to nothing after that call (next ticks, exceptions): hand over to setImmediate().
 */
export function pollReadable(fd: number, readable: () => void): Poll {
  const handle = koffi.node.poll(fd, { readable: true }, readable);
  const poll = {
    close() {
      handle.close();
      polls.delete(poll);
    },
    handle,
  };
  polls.add(poll);
  return poll;
}
