// SPDX-License-Identifier: BSD-2-Clause
import { strict as expect } from "node:assert";
import { test } from "node:test";
import { getI16, getI32, getU16, getU32, getU64Big } from "../../src/base/bytes.ts";
import { decodeNv, type NvEntry, NvWriter } from "../../src/wire/nv.ts";
import { type Field, golden, goldenJson, zeroNamePadding } from "./vectors.ts";

const TYPES = "int8 uint8 int16 uint16 int32 uint32 int64 uint64".split(" ");

function typeName(type: number): string {
  if (type === 17) return "string";
  return type > 8 ? `${TYPES[type - 9]}_array` : TYPES[type - 1]!;
}

/** The value of an entry of any type, in the form the .json files use. */
function decodedValue(entry: NvEntry): unknown {
  const { data } = entry;
  if (entry.type === 17) return Buffer.from(data.subarray(0, -1)).toString();
  if (entry.type === 9 || entry.type === 10) return Buffer.from(data).toString("hex");
  const scalar = entry.type > 8 ? entry.type - 8 : entry.type;
  const size = 2 ** ((scalar - 1) >> 1);
  const values: unknown[] = [];
  for (let at = 0; at < data.length; at += size) values.push(integer(scalar, data, at));
  return entry.type > 8 ? values : values[0];
}

function integer(type: number, data: Uint8Array, at: number): number | bigint {
  switch (type) {
    case 1:
      return (data[at]! << 24) >> 24;
    case 2:
      return data[at]!;
    case 3:
      return getI16(data, at);
    case 4:
      return getU16(data, at);
    case 5:
      return getI32(data, at);
    case 6:
      return getU32(data, at);
    default: {
      const value = getU64Big(data, at);
      const signed = type === 7 ? BigInt.asIntN(64, value) : value;
      return Number.isSafeInteger(Number(signed)) ? Number(signed) : signed;
    }
  }
}

test("decodeNv() reads every type and name length that the original can write", () => {
  const list = decodeNv(golden("nv/all-types.bin"));
  const fields: Field[] = list.entries.map((entry) => ({
    name: entry.name,
    type: typeName(entry.type),
    value: decodedValue(entry),
  }));
  const expected = goldenJson("nv/all-types.json") as (Field & { typebyte: number })[];
  expect.deepEqual(
    fields,
    expected.map(({ name, type, value }) => ({ name, type, value })),
  );
  expect.equal(fields.length, 21);
});

test("NvWriter writes every type as the original does, padding aside", () => {
  const bytes = golden("nv/all-types.bin");
  const writer = new NvWriter();
  for (const entry of decodeNv(bytes).entries) writer.add(entry.type, entry.name, entry.data);
  expect.deepEqual(writer.finish(), zeroNamePadding(bytes));
});
