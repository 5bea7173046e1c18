// SPDX-License-Identifier: BSD-2-Clause
import { strict as expect } from "node:assert";
import { createServer, type RequestListener, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { test } from "node:test";
import { nodeHttp } from "./http.ts";

async function served(
  listener: RequestListener,
  use: (url: string, server: Server) => Promise<void>,
): Promise<void> {
  const server = createServer(listener);
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  try {
    await use(`http://127.0.0.1:${(server.address() as AddressInfo).port}/v3/x`, server);
  } finally {
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
  }
}

test("post() sends a JSON text and gives the answer, also of a refusal", async () => {
  await served(
    (request, response) => {
      let text = "";
      request.setEncoding("utf8").on("data", (piece) => {
        text += piece;
      });
      request.on("end", () => {
        response.statusCode = 418;
        response.end(`${request.method} ${request.headers["content-type"]} ${text}`);
      });
    },
    async (url) => {
      expect.deepEqual(await nodeHttp.post(url, '{"a":1}', 5_000), {
        status: 418,
        text: 'POST application/json {"a":1}',
      });
    },
  );
});

test("post() gives up on an answer that does not come, or does not end", async () => {
  await served(
    (_request, response) => {
      response.write("{");
    },
    async (url) => {
      expect.deepEqual(await nodeHttp.post(url, "{}", 100), {
        failure: "no answer within 0.1 s",
      });
    },
  );
});

test("post() says why nobody can be asked", async () => {
  let left = "";
  await served(
    () => undefined,
    async (url) => {
      left = url;
    },
  );
  const answer = await nodeHttp.post(left, "{}", 5_000);
  expect.match("failure" in answer ? answer.failure : "", /ECONNREFUSED/);
  const nonsense = await nodeHttp.post("http://", "{}", 5_000);
  expect.match("failure" in nonsense ? nonsense.failure : "", /URL/);
});

test("post() follows nobody elsewhere", async () => {
  await served(
    (_request, response) => {
      response.writeHead(307, { location: "http://127.0.0.1:1/" });
      response.end();
    },
    async (url) => {
      expect.ok("failure" in (await nodeHttp.post(url, "{}", 5_000)));
    },
  );
});
