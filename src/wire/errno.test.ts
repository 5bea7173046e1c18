// SPDX-License-Identifier: BSD-2-Clause
import { strict as expect } from "node:assert";
import { constants } from "node:os";
import { test } from "node:test";
import { getSystemErrorMessage } from "node:util";
import { errnoFromWire, errnoText, errnoToWire } from "./errno.ts";

/** FreeBSD numbers, from the table of wire protocol §11. */
const FREEBSD: Readonly<Record<string, number>> = {
  EPERM: 1,
  ENOENT: 2,
  EIO: 5,
  ENXIO: 6,
  EBADF: 9,
  ENOMEM: 12,
  EACCES: 13,
  EFAULT: 14,
  EBUSY: 16,
  ENODEV: 19,
  EINVAL: 22,
  ENOTTY: 25,
  EFBIG: 27,
  ENOSPC: 28,
  EROFS: 30,
  EAGAIN: 35,
  EINPROGRESS: 36,
  EOPNOTSUPP: 45,
  ECONNABORTED: 53,
  ECONNRESET: 54,
  ENOBUFS: 55,
  ENOTCONN: 57,
  ETIMEDOUT: 60,
  ECONNREFUSED: 61,
  ENAMETOOLONG: 63,
  EDQUOT: 69,
  ENOSYS: 78,
  EOVERFLOW: 84,
  ECANCELED: 85,
};

const linux = constants.errno as Readonly<Record<string, number>>;

for (const [name, freebsd] of Object.entries(FREEBSD)) {
  test(`${name} is ${freebsd} on the wire and ${linux[name]} here`, () => {
    expect.notEqual(linux[name], undefined);
    expect.equal(errnoToWire(linux[name]!), freebsd);
    expect.equal(errnoFromWire(freebsd), linux[name]);
    expect.ok(errnoText(linux[name]!).length > 3);
    expect.doesNotMatch(errnoText(linux[name]!), /^error/);
  });
}

test("success stays success in both directions", () => {
  expect.equal(errnoToWire(0), 0);
  expect.equal(errnoFromWire(0), 0);
});

test("what the other side has no number for is an input/output error, never success", () => {
  for (const errno of [117, 121, 4711, -1]) expect.equal(errnoToWire(errno), 5);
  for (const errno of [73, 79, 88, 999, -5, 32767]) expect.equal(errnoFromWire(errno), 5);
  for (let errno = 1; errno < 200; errno++) {
    expect.ok(errnoToWire(errno) > 0);
    expect.ok(errnoFromWire(errno) > 0);
  }
});

test("errors are told in words", () => {
  expect.equal(errnoText(28), "No space left on device");
  expect.equal(getSystemErrorMessage(-28).toLowerCase(), errnoText(28).toLowerCase());
  expect.equal(errnoText(4711), "error 4711");
  expect.equal(errnoText(0), "error 0");
});
