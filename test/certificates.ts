// SPDX-License-Identifier: BSD-2-Clause
/** Certificates for tests, made by openssl(1): an authority, and what it signs, with whatever dates. */

import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

export interface Certified {
  /** PEM. */
  readonly key: string;
  readonly certificate: string;
}

export interface Wishes {
  /** "DNS:alpha,IP:10.0.0.1". */
  readonly names: string;
  readonly from?: Date;
  readonly until?: Date;
}

const DAY_MS = 86_400_000;

/** Signs for as long as the tests live; close() removes its files. */
export class Authority {
  readonly #directory: string = mkdtempSync(join(tmpdir(), "hast-ca-"));
  readonly certificate: string;

  constructor(name: string) {
    this.#openssl(
      "genpkey",
      "-algorithm",
      "EC",
      "-pkeyopt",
      "ec_paramgen_curve:P-256",
      "-out",
      "ca.key",
    );
    this.#openssl(
      "req",
      "-x509",
      "-new",
      "-key",
      "ca.key",
      "-subj",
      `/CN=${name}`,
      "-days",
      "30",
      "-out",
      "ca.pem",
    );
    this.certificate = this.#read("ca.pem");
    const sections =
      "[ca]\ndefault_ca=d\n[d]\ndatabase=index\nserial=serial\nnew_certs_dir=.\ndefault_md=sha256\npolicy=p\nunique_subject=no\n[p]\ncommonName=supplied\n";
    writeFileSync(join(this.#directory, "config"), sections);
    writeFileSync(join(this.#directory, "index"), "");
    writeFileSync(join(this.#directory, "serial"), "01\n");
  }

  /** @returns a key, and a certificate that this authority has signed */
  certify({ names, from, until }: Wishes): Certified {
    this.#openssl(
      "genpkey",
      "-algorithm",
      "EC",
      "-pkeyopt",
      "ec_paramgen_curve:P-256",
      "-out",
      "key",
    );
    this.#openssl("req", "-new", "-key", "key", "-subj", "/CN=node", "-out", "request");
    writeFileSync(join(this.#directory, "extensions"), `subjectAltName=${names}\n`);
    const now = Date.now();
    const dates = [
      ["-startdate", stamp(from ?? new Date(now - DAY_MS))],
      ["-enddate", stamp(until ?? new Date(now + DAY_MS))],
    ].flat();
    const files = ["-cert", "ca.pem", "-keyfile", "ca.key", "-in", "request", "-out", "signed"];
    this.#openssl(
      "ca",
      "-batch",
      "-notext",
      "-config",
      "config",
      "-extfile",
      "extensions",
      ...files,
      ...dates,
    );
    return { key: this.#read("key"), certificate: this.#read("signed") };
  }

  close(): void {
    rmSync(this.#directory, { recursive: true, force: true });
  }

  #openssl(...args: readonly string[]): void {
    execFileSync("openssl", args, { cwd: this.#directory, stdio: "pipe" });
  }

  #read(name: string): string {
    return readFileSync(join(this.#directory, name), "utf8");
  }
}

/** "20260102030405Z" */
function stamp(date: Date): string {
  return `${date.toISOString().replace(/[-:T]|\.\d+Z/g, "")}Z`;
}
