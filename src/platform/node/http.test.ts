// SPDX-License-Identifier: BSD-2-Clause
import { strict as expect } from "node:assert";
import { copyFileSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createServer, type RequestListener, type Server } from "node:http";
import { createServer as createSecureServer } from "node:https";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { Authority, type Certified } from "../../../test/certificates.ts";
import type { HttpFiles } from "../http.ts";
import { createHttp, httpFilesTrouble } from "./http.ts";

const nodeHttp = createHttp({ authorities: null, own: null });

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

test("an answer that breaks off is none", async () => {
  await served(
    (_request, response) => {
      response.writeHead(200, { "content-length": "10" });
      response.write("{}", () => response.destroy());
    },
    async (url) => {
      const answer = await nodeHttp.post(url, "{}", 5_000);
      expect.match("failure" in answer ? answer.failure : "", /aborted|ECONNRESET/);
    },
  );
});

test("one connection serves question after question", async () => {
  const ports = new Set<number | undefined>();
  await served(
    (request, response) => {
      ports.add(request.socket.remotePort);
      response.end("{}");
    },
    async (url) => {
      for (let count = 0; count < 5; count++) await nodeHttp.post(url, "{}", 5_000);
      expect.equal(ports.size, 1);
    },
  );
});

test("post() follows nobody elsewhere", async () => {
  await served(
    (_request, response) => {
      response.writeHead(307, { location: "http://127.0.0.1:1/" });
      response.end();
    },
    async (url) => {
      expect.deepEqual(await nodeHttp.post(url, "{}", 5_000), { status: 307, text: "" });
    },
  );
});

/** A service that answers who shows a certificate of this authority, and with what name. */
async function secured(
  use: (place: { url: string; directory: string; connections: () => number }) => Promise<void>,
): Promise<void> {
  const [authority, stranger] = [new Authority("etcd"), new Authority("stranger")];
  const directory = mkdtempSync(join(tmpdir(), "hast-http-"));
  const write = (name: string, { key, certificate }: Certified): void => {
    writeFileSync(join(directory, `${name}.key`), key);
    writeFileSync(join(directory, `${name}.pem`), certificate);
  };
  try {
    const names = "IP:127.0.0.1";
    const { key, certificate } = authority.certify({ names });
    write("client", authority.certify({ names: "DNS:alpha" }));
    write("foreign", stranger.certify({ names: "DNS:alpha" }));
    writeFileSync(join(directory, "ca.pem"), authority.certificate);
    writeFileSync(join(directory, "stranger.pem"), stranger.certificate);
    const options = { key, cert: certificate, ca: authority.certificate, requestCert: true };
    let count = 0;
    const server = createSecureServer(options, (_request, response) => response.end("{}"));
    server.on("secureConnection", () => {
      count += 1;
    });
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    try {
      const url = `https://127.0.0.1:${(server.address() as AddressInfo).port}/v3/x`;
      await use({ url, directory, connections: () => count });
    } finally {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    }
  } finally {
    authority.close();
    stranger.close();
    rmSync(directory, { recursive: true });
  }
}

test("https: believes the authority that it was told of, and shows its own certificate", async () => {
  await secured(async ({ url, directory, connections }) => {
    const file = (name: string): string => join(directory, name);
    const own = (name: string) => ({ certificate: file(`${name}.pem`), key: file(`${name}.key`) });
    const post = async (files: HttpFiles) => {
      const answer = await createHttp(files).post(url, "{}", 5_000);
      return "failure" in answer ? answer.failure : answer.text;
    };
    const authorities = file("ca.pem");
    expect.equal(await post({ authorities, own: own("client") }), "{}");
    // Node's server hangs up; what one says that sends an alert, is in test/e2e/etcd-tls.test.ts.
    const refused = /socket hang up|ECONNRESET|it wants a certificate/;
    expect.match(await post({ authorities, own: null }), refused);
    expect.match(await post({ authorities, own: own("foreign") }), refused);
    const unknown = /^no authority that is known here vouches for its certificate/;
    expect.match(await post({ authorities: file("stranger.pem"), own: own("client") }), unknown);
    expect.match(await post({ authorities: null, own: own("client") }), unknown);
    expect.match(
      await post({ authorities: file("none"), own: null }),
      /none cannot be read: no such/,
    );

    const http = createHttp({ authorities, own: own("foreign") });
    expect.ok("failure" in (await http.post(url, "{}", 5_000)));
    for (const end of ["pem", "key"]) copyFileSync(file(`client.${end}`), file(`foreign.${end}`));
    const before = connections();
    for (let count = 0; count < 3; count++) {
      expect.ok("text" in (await http.post(url, "{}", 5_000)), "renewed in its place");
    }
    expect.equal(connections(), before + 1);
  });
});

test("httpFilesTrouble() says which file is of no use", async () => {
  await secured(async ({ directory }) => {
    const file = (name: string): string => join(directory, name);
    const authorities = file("ca.pem");
    const own = { certificate: file("client.pem"), key: file("client.key") };
    expect.equal(httpFilesTrouble({ authorities: null, own: null }), null);
    expect.equal(httpFilesTrouble({ authorities, own }), null);
    const missing = { ...own, key: file("missing") };
    expect.match(httpFilesTrouble({ authorities, own: missing }) ?? "", /missing cannot be read/);
    const other = { ...own, key: file("foreign.key") };
    expect.match(httpFilesTrouble({ authorities, own: other }) ?? "", /key values mismatch/);
  });
});
