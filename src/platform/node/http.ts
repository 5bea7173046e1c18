// SPDX-License-Identifier: BSD-2-Clause
/** HTTP by Node's clients, which keep connections open between questions. */

import http from "node:http";
import https from "node:https";
import tls from "node:tls";
import type { Http, HttpFiles } from "../http.ts";
import { readTextFile } from "./text-file.ts";

export function createHttp(files: HttpFiles): Http {
  const plain = new http.Agent({ keepAlive: true });
  const secured = new SecuredConnections(files);
  return {
    post: (url, body, timeoutMs) =>
      new Promise((resolve) => {
        let request: http.ClientRequest | null = null;
        const end = (answer: Awaited<ReturnType<Http["post"]>>) => {
          clearTimeout(timer);
          resolve(answer);
        };
        const fail = (error: unknown) => end({ failure: reasonOf(error) });
        const timer = setTimeout(() => {
          end({ failure: `no answer within ${timeoutMs / 1000} s` });
          request?.destroy();
        }, timeoutMs);
        try {
          const isSecured = url.startsWith("https:");
          request = (isSecured ? https : http).request(url, {
            method: "POST",
            agent: isSecured ? secured : plain,
            headers: { "content-type": "application/json" },
          });
        } catch (error) {
          fail(error);
          return;
        }
        request.on("error", fail);
        request.on("response", (response) => {
          let text = "";
          response.setEncoding("utf8");
          response.on("data", (piece: string) => {
            text += piece;
          });
          response.on("end", () => end({ status: response.statusCode ?? 0, text }));
          // One that breaks off has no end.
          response.on("error", fail);
        });
        request.end(body);
      }),
  };
}

/** Why these files cannot be used; null where they can, or none is named. */
export function httpFilesTrouble(files: HttpFiles): string | null {
  try {
    contextOf(files);
    return null;
  } catch (error) {
    return reasonOf(error);
  }
}

/** The files are read for each connection, since certificates are renewed in their places. */
class SecuredConnections extends https.Agent {
  readonly #files: HttpFiles;

  constructor(files: HttpFiles) {
    super({ keepAlive: true });
    this.#files = files;
  }

  override createConnection(...[options, made]: Parameters<https.Agent["createConnection"]>) {
    const secureContext = contextOf(this.#files);
    return super.createConnection({ ...options, secureContext } as typeof options, made);
  }
}

/** @throws Error */
function contextOf({ authorities, own }: HttpFiles): tls.SecureContext {
  return tls.createSecureContext({
    ...(authorities === null ? {} : { ca: textOf(authorities) }),
    ...(own === null ? {} : { cert: textOf(own.certificate), key: textOf(own.key) }),
  });
}

function textOf(file: string): string {
  const read = readTextFile(file);
  if ("text" in read) return read.text;
  throw new Error(`${file} cannot be read: ${read.failure}`);
}

function reasonOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  // Of several addresses, each has its own reason, and all together none.
  if (error instanceof AggregateError && error.errors.length > 0) return reasonOf(error.errors[0]);
  const { code } = error as NodeJS.ErrnoException;
  if (code !== undefined && ALERTS.test(code)) return "it wants a certificate that it accepts";
  if (code !== undefined && UNKNOWN.test(code)) {
    return `no authority that is known here vouches for its certificate (${code})`;
  }
  return error.message === "" ? (code ?? error.name) : error.message;
}

/** OpenSSL's words for the alerts that end a connection where ours is none, or not good enough. */
const ALERTS = /ALERT_(CERTIFICATE_REQUIRED|BAD_CERTIFICATE|UNKNOWN_CA)$/;
/** And for a certificate of nobody's. */
const UNKNOWN =
  /^(UNABLE_TO_VERIFY_LEAF_SIGNATURE|UNABLE_TO_GET_ISSUER_CERT(_LOCALLY)?|(DEPTH_ZERO_)?SELF_SIGNED_CERT(_IN_CHAIN)?)$/;
