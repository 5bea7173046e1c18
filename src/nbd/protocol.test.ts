// SPDX-License-Identifier: BSD-2-Clause
import { strict as expect } from "node:assert";
import { constants } from "node:os";
import { test } from "node:test";
import * as nbd from "./protocol.ts";

const NBD_ERRORS = [
  nbd.NBD_EPERM,
  nbd.NBD_EIO,
  nbd.NBD_ENOMEM,
  nbd.NBD_EINVAL,
  nbd.NBD_ENOSPC,
  nbd.NBD_EOVERFLOW,
  nbd.NBD_ENOTSUP,
  nbd.NBD_ESHUTDOWN,
];

test("nbdError() maps errnos as the specification asks", () => {
  const { errno } = constants;
  const wanted: readonly (readonly [number, number])[] = [
    [0, 0],
    [errno.EPERM, nbd.NBD_EPERM],
    [errno.EACCES, nbd.NBD_EPERM],
    [errno.EROFS, nbd.NBD_EPERM],
    [errno.EIO, nbd.NBD_EIO],
    [errno.ENOMEM, nbd.NBD_ENOMEM],
    [errno.EINVAL, nbd.NBD_EINVAL],
    [errno.ENOSPC, nbd.NBD_ENOSPC],
    [errno.EDQUOT, nbd.NBD_ENOSPC],
    [errno.EFBIG, nbd.NBD_ENOSPC],
    [errno.ENXIO, nbd.NBD_EIO],
    [errno.ETIMEDOUT, nbd.NBD_EIO],
    [errno.EOPNOTSUPP, nbd.NBD_EINVAL],
    [errno.EOVERFLOW, nbd.NBD_EINVAL],
    [108, nbd.NBD_ESHUTDOWN],
  ];
  for (const [linux, expected] of wanted) expect.equal(nbd.nbdError(linux), expected, `${linux}`);
});

test("nbdError() gives an error that NBD defines for every errno", () => {
  for (let errno = 1; errno < 4096; errno++) {
    expect.ok(NBD_ERRORS.includes(nbd.nbdError(errno)), `errno ${errno}`);
  }
});
