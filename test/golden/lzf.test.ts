// SPDX-License-Identifier: BSD-2-Clause
import { strict as expect } from "node:assert";
import { test } from "node:test";
import { crc32 } from "../../src/base/crc32.ts";
import { LzfCompressor, lzfDecompress } from "../../src/wire/lzf.ts";
import {
  CHECKSUM_NONE,
  COMPRESSION_HOLE,
  COMPRESSION_LZF,
  COMPRESSION_NONE,
  decodePayload,
  OutgoingPayload,
  PayloadEncoder,
} from "../../src/wire/payload.ts";
import { golden, goldenExists, goldenJson, nodeHashes } from "./vectors.ts";

interface Sample {
  readonly name: string;
  readonly in_bytes: number;
  readonly crc32_hex: string;
  readonly raw_limit_len_minus_1: number; // 0 = did not fit
  readonly hast_limit?: number;
  readonly hast_out?: number;
}

const SAMPLES: readonly Sample[] = goldenJson("lzf/manifest.json");

for (const sample of SAMPLES) {
  const input = golden(`lzf/${sample.name}.in.bin`);

  test(`${sample.name}: what the original compressed comes out as it went in`, () => {
    expect.equal(input.length, sample.in_bytes);
    expect.equal(crc32(input).toString(16).padStart(8, "0"), sample.crc32_hex);
    const fits = sample.raw_limit_len_minus_1 > 0;
    expect.equal(goldenExists(`lzf/${sample.name}.lzf.bin`), fits);
    if (!fits) return;
    const stream = golden(`lzf/${sample.name}.lzf.bin`);
    const out = new Uint8Array(input.length);
    lzfDecompress(stream, 0, stream.length, out, 0, out.length);
    expect.deepEqual(out, input);
  });

  test(`${sample.name}: what the original sends is accepted`, () => {
    expect.equal(goldenExists(`lzf/${sample.name}.hast.bin`), (sample.hast_out ?? 0) > 0);
    if (!goldenExists(`lzf/${sample.name}.hast.bin`)) return;
    const sent = golden(`lzf/${sample.name}.hast.bin`);
    const header = new OutgoingPayload();
    header.compression = COMPRESSION_LZF;
    header.size = sent.length;
    const out = new Uint8Array(input.length);
    expect.equal(decodePayload(nodeHashes, header, sent, 0, out.length, out, 0), "decoded");
    expect.deepEqual(out, input);
  });

  test(`${sample.name}: we compress where the original does, and keep its limit`, () => {
    const encoder = new PayloadEncoder(nodeHashes);
    const payload = new OutgoingPayload();
    encoder.encode(COMPRESSION_LZF, CHECKSUM_NONE, input, 0, input.length, payload);
    if (sample.name.startsWith("zeros")) {
      expect.equal(payload.compression, COMPRESSION_HOLE);
      return;
    }
    const expected = (sample.hast_out ?? 0) > 0 ? COMPRESSION_LZF : COMPRESSION_NONE;
    expect.equal(payload.compression, expected);
    if (expected === COMPRESSION_NONE) return;
    expect.ok(payload.size <= 4 + input.length - 1024);
    const out = new Uint8Array(input.length);
    decodePayload(nodeHashes, payload, payload.bytes, payload.at, out.length, out, 0);
    expect.deepEqual(out, input);
  });

  test(`${sample.name}: we compress no worse than a tenth beyond the original`, () => {
    const out = new Uint8Array(input.length - 1);
    const size = new LzfCompressor().compress(input, 0, input.length, out, 0, out.length);
    expect.equal(size > 0, sample.raw_limit_len_minus_1 > 0);
    expect.ok(size <= sample.raw_limit_len_minus_1 * 1.1 + 8, `${size} bytes`);
  });
}
