// SPDX-License-Identifier: BSD-2-Clause
/**
 * The files that TLS needs, in hast.conf's `tlsdir`.
 *
 *   key.pem       this node's private key, for root alone
 *   cert.pem      this node's certificate, then those between it and its authority
 *   ca.pem        authorities for the peer's certificate, where there is no tlspeer       may be missing
 *   clients.pem   certificates of NBD clients, or of their authority; else ca.pem counts  may be missing
 */

import { createPrivateKey, X509Certificate } from "node:crypto";
import { statSync } from "node:fs";
import path from "node:path";
import tls from "node:tls";
import type { CertificateFacts, Credentials } from "../tls.ts";
import { readCertificate } from "./certificate.ts";
import { readTextFile } from "./text-file.ts";

export const KEY_FILE = "key.pem";
export const CERTIFICATE_FILE = "cert.pem";
export const AUTHORITIES_FILE = "ca.pem";
export const CLIENTS_FILE = "clients.pem";

/** A file is missing, cannot be read, or is not what it should be; `message` is a sentence, with advice. */
export class TlsFilesError extends Error {
  override readonly name = "TlsFilesError";
}

export interface TlsFiles {
  readonly credentials: Credentials;
  /** Of this node's certificate. */
  readonly own: CertificateFacts;
  /** What works and should not stay so, a sentence each. */
  readonly warnings: readonly string[];
}

/** @throws TlsFilesError */
export function readTlsFiles(directory: string): TlsFiles {
  const keyPath = path.join(directory, KEY_FILE);
  const certificatePath = path.join(directory, CERTIFICATE_FILE);
  const credentials: Credentials = {
    key: required(keyPath),
    certificate: required(certificatePath),
    authorities: optional(path.join(directory, AUTHORITIES_FILE)),
    clients: optional(path.join(directory, CLIENTS_FILE)),
  };
  const own = factsOf(certificatePath, credentials.certificate);
  try {
    const certificate = new X509Certificate(credentials.certificate);
    if (!certificate.checkPrivateKey(createPrivateKey(credentials.key))) {
      throw new TlsFilesError(`${keyPath} is not the key of ${certificatePath}. ${ADVICE}`);
    }
  } catch (error) {
    if (error instanceof TlsFilesError) throw error;
    throw new TlsFilesError(`${keyPath} holds no private key: ${(error as Error).message}.`, {
      cause: error,
    });
  }
  for (const name of [AUTHORITIES_FILE, CLIENTS_FILE] as const) {
    const pem = name === AUTHORITIES_FILE ? credentials.authorities : credentials.clients;
    if (pem !== null) factsOf(path.join(directory, name), pem);
  }
  try {
    tls.createSecureContext({ key: credentials.key, cert: credentials.certificate });
  } catch (error) {
    throw new TlsFilesError(
      `${certificatePath} cannot be used: ${(error as Error).message}. ${ADVICE}`,
      { cause: error },
    );
  }
  const warnings: string[] = [];
  if ((statSync(keyPath).mode & 0o077) !== 0) {
    warnings.push(`Others may read ${keyPath}. Forbid it: chmod 600 ${keyPath}`);
  }
  if (own.dateTrouble !== null) {
    warnings.push(
      `${certificatePath} will be refused by every peer: it ${own.dateTrouble}. Make another: hastctl tls init --force`,
    );
  }
  return { credentials, own, warnings };
}

const ADVICE = "Make both: hastctl tls init --force";

function required(file: string): string {
  const read = readTextFile(file);
  if ("text" in read) return read.text;
  throw new TlsFilesError(
    `${file} cannot be read: ${read.failure}. Make it, on each node: hastctl tls init`,
  );
}

function optional(file: string): string | null {
  if (statSync(file, { throwIfNoEntry: false }) === undefined) return null;
  return required(file);
}

function factsOf(file: string, pem: string): CertificateFacts {
  const facts = readCertificate(pem);
  if ("failure" in facts)
    throw new TlsFilesError(`${file} holds no certificate: ${facts.failure}.`);
  return facts;
}
