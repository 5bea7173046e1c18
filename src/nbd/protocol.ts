// SPDX-License-Identifier: BSD-2-Clause
/**
 * The numbers of the NBD protocol, and what a Linux errno becomes on its wire. All integers are big-endian.
 *
 * Source: the NBD protocol (github.com/NetworkBlockDevice/nbd, doc/proto.md), "Values".
 */

// 64-bit magics, as two halves.
/** "NBDMAGIC" */
export const NBD_MAGIC_HI = 0x4e42444d;
export const NBD_MAGIC_LO = 0x41474943;
/** "IHAVEOPT": ends the greeting and opens every option. */
export const NBD_OPTION_MAGIC_HI = 0x49484156;
export const NBD_OPTION_MAGIC_LO = 0x454f5054;
export const NBD_OPTION_REPLY_MAGIC_HI = 0x0003e889;
export const NBD_OPTION_REPLY_MAGIC_LO = 0x045565a9;

export const NBD_REQUEST_MAGIC = 0x25609513;
export const NBD_SIMPLE_REPLY_MAGIC = 0x67446698;
export const NBD_STRUCTURED_REPLY_MAGIC = 0x668e33ef;

// Handshake flags; the client's have the same bits.
export const NBD_FLAG_FIXED_NEWSTYLE = 0x1;
export const NBD_FLAG_NO_ZEROES = 0x2;

// Transmission flags: what the export can do.
export const NBD_FLAG_HAS_FLAGS = 0x1;
export const NBD_FLAG_SEND_FLUSH = 0x4;
export const NBD_FLAG_SEND_FUA = 0x8;
export const NBD_FLAG_SEND_TRIM = 0x20;
export const NBD_FLAG_SEND_WRITE_ZEROES = 0x40;
export const NBD_FLAG_SEND_DF = 0x80;
export const NBD_FLAG_CAN_MULTI_CONN = 0x100;
export const NBD_FLAG_SEND_CACHE = 0x400;

// Options.
export const NBD_OPT_EXPORT_NAME = 1;
export const NBD_OPT_ABORT = 2;
export const NBD_OPT_LIST = 3;
export const NBD_OPT_STARTTLS = 5;
export const NBD_OPT_INFO = 6;
export const NBD_OPT_GO = 7;
export const NBD_OPT_STRUCTURED_REPLY = 8;
export const NBD_OPT_LIST_META_CONTEXT = 9;
export const NBD_OPT_SET_META_CONTEXT = 10;

// Option replies; errors have bit 31.
export const NBD_REP_ACK = 1;
export const NBD_REP_SERVER = 2;
export const NBD_REP_INFO = 3;
export const NBD_REP_META_CONTEXT = 4;
export const NBD_REP_ERR_UNSUP = 0x8000_0001;
export const NBD_REP_ERR_POLICY = 0x8000_0002;
export const NBD_REP_ERR_INVALID = 0x8000_0003;
export const NBD_REP_ERR_TLS_REQD = 0x8000_0005;
export const NBD_REP_ERR_UNKNOWN = 0x8000_0006;
export const NBD_REP_ERR_TOO_BIG = 0x8000_0009;

export const NBD_INFO_EXPORT = 0;
export const NBD_INFO_NAME = 1;
export const NBD_INFO_DESCRIPTION = 2;
export const NBD_INFO_BLOCK_SIZE = 3;

export const NBD_CMD_READ = 0;
export const NBD_CMD_WRITE = 1;
export const NBD_CMD_DISC = 2;
export const NBD_CMD_FLUSH = 3;
export const NBD_CMD_TRIM = 4;
export const NBD_CMD_CACHE = 5;
export const NBD_CMD_WRITE_ZEROES = 6;
export const NBD_CMD_BLOCK_STATUS = 7;

/** Answered only once what the command wrote is durable. */
export const NBD_CMD_FLAG_FUA = 0x1;
/** WRITE_ZEROES: keep the space allocated. */
export const NBD_CMD_FLAG_NO_HOLE = 0x2;
/** READ: the data in one chunk. */
export const NBD_CMD_FLAG_DF = 0x4;
/** BLOCK_STATUS: one extent per context, no longer than asked. */
export const NBD_CMD_FLAG_REQ_ONE = 0x8;

export const NBD_REPLY_FLAG_DONE = 0x1;
export const NBD_REPLY_TYPE_NONE = 0;
export const NBD_REPLY_TYPE_OFFSET_DATA = 1;
export const NBD_REPLY_TYPE_BLOCK_STATUS = 5;
export const NBD_REPLY_TYPE_ERROR = 0x8001;

/** Status flags of the context base:allocation. */
export const NBD_STATE_HOLE = 0x1;
export const NBD_STATE_ZERO = 0x2;

export const NBD_EPERM = 1;
export const NBD_EIO = 5;
export const NBD_ENOMEM = 12;
export const NBD_EINVAL = 22;
export const NBD_ENOSPC = 28;
export const NBD_EOVERFLOW = 75;
export const NBD_ENOTSUP = 95;
export const NBD_ESHUTDOWN = 108;

/** Bytes of a request's header: magic, flags, type, cookie, offset, length. */
export const NBD_REQUEST_SIZE = 28;
/** Bytes of a simple reply: magic, error, cookie. */
export const NBD_SIMPLE_REPLY_SIZE = 16;
/** Bytes that open a structured reply chunk: magic, flags, type, cookie, payload length. */
export const NBD_CHUNK_SIZE = 20;
/** Bytes, the longest string anywhere in the protocol. */
export const NBD_STRING_SIZE_MAX = 4096;

/**
 * The NBD error for a Linux errno (0 stays 0). NBD knows eight errors; a failure it has no word for is EIO.
 * EOVERFLOW and ENOTSUP mean something else in NBD than on a disk, so a disk's become EINVAL.
 */
export function nbdError(linuxErrno: number): number {
  switch (linuxErrno) {
    case 0:
      return 0;
    case 1: // EPERM
    case 13: // EACCES
    case 30: // EROFS
      return NBD_EPERM;
    case 12: // ENOMEM
      return NBD_ENOMEM;
    case 22: // EINVAL
    case 75: // EOVERFLOW
    case 95: // EOPNOTSUPP
      return NBD_EINVAL;
    case 27: // EFBIG
    case 28: // ENOSPC
    case 122: // EDQUOT
      return NBD_ENOSPC;
    case 108: // ESHUTDOWN
      return NBD_ESHUTDOWN;
    default:
      return NBD_EIO;
  }
}
