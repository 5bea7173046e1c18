// SPDX-License-Identifier: BSD-2-Clause
import { strict as assert } from "node:assert";
import { tmpdir } from "node:os";
import { test } from "node:test";
import { compare, type Results, table, WORKLOADS } from "./fio.ts";

test("the fio benchmark runs every workload on every server", async () => {
  const options = { rounds: 1, seconds: 1, sizeMib: 16, only: "", under: tmpdir(), requests: 64 };
  const results = await compare(options, () => {});
  assert.deepEqual(
    [...results.keys()],
    WORKLOADS.map(({ name }) => name),
  );
  for (const [workload, row] of results) {
    assert.deepEqual([...row.keys()], ["hast, two copies", "qemu-nbd", "nbdkit"]);
    for (const [contender, samples] of row) {
      assert.equal(samples.length, 1);
      assert.ok(samples[0]!.rate > 0, `${workload}, ${contender}`);
      assert.ok(samples[0]!.p99 > 0, `${workload}, ${contender}`);
    }
  }
});

test("the table shows median, spread and how hast compares", () => {
  const samples = (...rates: number[]) => rates.map((rate) => ({ rate, p99: 100, cpu: 5 }));
  const results: Results = new Map([
    [
      "4k randwrite QD32",
      new Map([
        ["hast, two copies", samples(30_000, 50_000, 40_000)],
        ["nbdkit", samples(80_000, 70_000, 90_000)],
      ]),
    ],
  ]);
  const text = table(results);
  assert.match(text, /hast, two copies +40\.0k IOPS \[30\.0k–50\.0k\] +p99 +100 µs +CPU +5\.0/);
  assert.match(text, /nbdkit +80\.0k IOPS .* hast is 0\.50×$/);
});
