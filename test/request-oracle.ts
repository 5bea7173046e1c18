// SPDX-License-Identifier: BSD-2-Clause
/**
 * What a stream of bytes on connection A may do to a secondary's data, told without our decoders:
 *
 *   bytes ─► whole messages, one after the other ─► a WRITE or DELETE in order: its bytes, all of them
 *                                                ├─► another request, or one to be refused: nothing, but
 *                                                │   that this copy lacks what it was to change
 *                                                └─► a broken one: nothing, and nothing after it
 *
 * Source: wire protocol §2.3, §2.4, §3, §4, §8. Only LZF streams are unpacked by our own code.
 */

import { createHash } from "node:crypto";
import { crc32 } from "node:zlib";
import { lzfDecompress } from "../src/wire/lzf.ts";

const NV_SIZE_MAX = 65536;
const PAYLOAD_MAX = 1024 * 1024;
const STRING = 17;
const READ = 1;
const WRITE = 2;
const DELETE = 3;
const KEEPALIVE = 5;
const STATE = 6;

export interface Rules {
  /** Bytes of the data area. */
  readonly dataSize: number;
  readonly sectorSize: number;
  /** STATE was agreed upon. */
  readonly states: boolean;
}

export interface Verdict {
  /** Something in the stream is not to be believed: the connection ends there. */
  readonly broken: boolean;
  /** Whole requests in front of that. */
  readonly requests: number;
  /** One of them was refused that was to change a part of this copy. */
  readonly lacks: boolean;
}

/** Does to `data` what the secondary has to do to its own. */
export function obey(stream: Uint8Array, rules: Rules, data: Uint8Array): Verdict {
  const view = new DataView(stream.buffer, stream.byteOffset, stream.length);
  let requests = 0;
  let lacks = false;
  for (let at = 0; ; requests++) {
    if (stream.length - at < 5) return { broken: false, requests, lacks };
    const nvSize = view.getUint32(at + 1, true);
    if (stream[at]! > 2 || nvSize === 0 || nvSize > NV_SIZE_MAX)
      return { broken: true, requests, lacks };
    const nvEnd = at + 5 + nvSize;
    if (nvEnd > stream.length) return { broken: false, requests, lacks };
    const values = entries(stream.subarray(at + 5, nvEnd));
    if (values === null) return { broken: true, requests, lacks };
    const cmd = integer(values, "cmd", 2);
    const size = Number(integer(values, "size", 6) ?? 0n);
    if (size > PAYLOAD_MAX || (size > 0 && cmd !== BigInt(WRITE)))
      return { broken: true, requests, lacks };
    if (nvEnd + size > stream.length) return { broken: false, requests, lacks };
    const done = obeyOne(
      values,
      Number(cmd ?? 0n),
      stream.subarray(nvEnd, nvEnd + size),
      rules,
      data,
    );
    if (done === "broken") return { broken: true, requests, lacks };
    if (done === "lacks") lacks = true;
    at = nvEnd + size;
  }
}

/** @returns "broken" if the message is not to be believed */
function obeyOne(
  values: Values,
  cmd: number,
  payload: Uint8Array,
  rules: Rules,
  data: Uint8Array,
): "obeyed" | "lacks" | "broken" {
  if (cmd === KEEPALIVE) return "obeyed";
  if (cmd === STATE) return rules.states && isState(values) ? "obeyed" : "broken";
  if (cmd < READ || cmd > KEEPALIVE) return "broken";
  if (cmd !== WRITE && cmd !== DELETE) return "obeyed";
  const seq = integer(values, "seq", 8);
  const offset = integer(values, "offset", 8);
  const length = integer(values, "length", 8);
  const sector = BigInt(rules.sectorSize);
  const longest = BigInt(cmd === WRITE ? PAYLOAD_MAX : rules.dataSize);
  const refused =
    seq === null ||
    offset === null ||
    length === null ||
    length === 0n ||
    length > longest ||
    offset + length > BigInt(rules.dataSize) ||
    offset % sector !== 0n ||
    length % sector !== 0n;
  if (refused) {
    const somewhere = offset !== null && offset < BigInt(rules.dataSize);
    const something = length !== null && length > 0n && length < 2n ** 53n;
    return somewhere && something ? "lacks" : "obeyed";
  }
  if (cmd === DELETE) {
    data.fill(0, Number(offset), Number(offset + length));
    return "obeyed";
  }
  const bytes = unpacked(values, payload, Number(length));
  if (bytes === null) return "broken";
  data.set(bytes, Number(offset));
  return "obeyed";
}

function isState(values: Values): boolean {
  const word = text(values, "state");
  const known = word === "inconsistent" || word === "uptodate";
  return known && integer(values, "localcnt", 8) !== null;
}

/** The data of a WRITE, or null. */
function unpacked(values: Values, payload: Uint8Array, length: number): Uint8Array | null {
  const checksum = text(values, "checksum");
  if (checksum !== null) {
    const hash = values.get("hash");
    const own =
      checksum === "crc32"
        ? Buffer.from(Uint32Array.of(crc32(payload)).buffer)
        : checksum === "sha256"
          ? createHash("sha256").update(payload).digest()
          : null;
    if (own === null || hash?.type !== 10 || !own.equals(hash.data)) return null;
  }
  const compression = text(values, "compression");
  if (compression === null) return payload.length === length ? payload : null;
  if (payload.length < 4) return null;
  const claimed = new DataView(payload.buffer, payload.byteOffset).getUint32(0, true);
  if (claimed !== length) return null;
  const out = new Uint8Array(length);
  if (compression === "hole") return payload.length === 4 ? out : null;
  if (compression !== "lzf" || payload.length <= 4 || length <= 1024) return null;
  try {
    lzfDecompress(payload, 4, payload.length, out, 0, length);
    return out;
  } catch {
    return null;
  }
}

/** The first entry of each name. */
type Values = Map<string, { readonly type: number; readonly data: Uint8Array }>;

/** @returns null if any entry is not as it must be */
function entries(nv: Uint8Array): Values | null {
  const values: Values = new Map();
  let left = nv;
  while (left.length > 0 && left[0] !== 0) {
    if (left.length < 8) return null;
    const type = left[0]! & 0x7f;
    const nameSize = left[1]!;
    const dataSize = new DataView(left.buffer, left.byteOffset).getUint32(2, true);
    const dataAt = 6 + 8 * Math.ceil(nameSize / 8);
    const end = dataAt + 8 * Math.ceil(dataSize / 8);
    if (nameSize === 0 || dataSize === 0 || end > left.length) return null;
    const name = left.subarray(6, 6 + nameSize);
    if (name.indexOf(0) !== nameSize - 1) return null;
    const data = left.subarray(dataAt, dataAt + dataSize);
    if (type < 1 || type > STRING) return null;
    if (type === STRING) {
      if (data.indexOf(0) !== dataSize - 1) return null;
    } else {
      const width = [8, 1, 1, 2, 2, 4, 4, 8][type % 8]!;
      if (type <= 8 ? dataSize !== width : dataSize % width !== 0) return null;
    }
    const key = Buffer.from(name.subarray(0, -1)).toString("latin1");
    if (!values.has(key)) values.set(key, { type, data });
    left = left.subarray(end);
  }
  return values;
}

function integer(values: Values, name: string, type: 2 | 6 | 8): bigint | null {
  const value = values.get(name);
  if (value?.type !== type) return null;
  let result = 0n;
  for (const byte of [...value.data].reverse()) result = (result << 8n) | BigInt(byte);
  return result;
}

function text(values: Values, name: string): string | null {
  const value = values.get(name);
  return value?.type === STRING ? Buffer.from(value.data.subarray(0, -1)).toString("latin1") : null;
}
