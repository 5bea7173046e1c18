// SPDX-License-Identifier: BSD-2-Clause
/**
 * What both ends of a TLS connection ask for, and whether the certificate at the other end will do.
 *
 *   dates ─► pinned? its fingerprint, and nothing else
 *        └─► not pinned? an authority's signature, and the peer's name in it
 *
 * OpenSSL checks that the peer has the certificate's key, and the chain. Who is refused is told so over the
 * connection, which is why it comes about first: after an alert neither side's operator knows more than that.
 * Source: RFC 8446, RFC 6125.
 */

import { X509Certificate } from "node:crypto";
import { isIP } from "node:net";
import type { TLSSocket } from "node:tls";
import type { Credentials, ReadCertificate } from "../tls.ts";

/** For tls.connect() and tls.createServer(). The verdict is refusalOf()'s. */
export interface TlsOptions {
  readonly key: string;
  readonly cert: string;
  readonly ca: string[];
  readonly minVersion: "TLSv1.3";
  readonly requestCert: true;
  readonly rejectUnauthorized: false;
}

/** @param authorities never the system's: an empty list if there are none */
export function tlsOptions(credentials: Credentials, authorities: string | null): TlsOptions {
  return {
    key: credentials.key,
    cert: credentials.certificate,
    ca: authorities === null ? [] : [authorities],
    minVersion: "TLSv1.3",
    requestCert: true,
    rejectUnauthorized: false,
  };
}

/** Whose certificate will do. */
export interface Acceptable {
  readonly pin: string | null;
  /** The name or address it has to be for; null = any that an authority has signed. */
  readonly host: string | null;
  /** There are authorities, and the connection was made with them. */
  readonly hasAuthorities: boolean;
}

/** Why the certificate at the other end of an established connection will not do, or null. No full stop. */
export function refusalOf(socket: TLSSocket, acceptable: Acceptable): string | null {
  const certificate = socket.getPeerX509Certificate();
  if (certificate === undefined)
    return "there was no certificate, or none that is said to be accepted";
  const trouble = dateTrouble(certificate, new Date());
  if (trouble !== null) return `the certificate ${trouble}`;
  const { pin, host, hasAuthorities } = acceptable;
  if (pin !== null) {
    const shown = fingerprintOf(certificate);
    return shown === pin ? null : `the certificate is ${shown}, and tlspeer says ${pin}`;
  }
  if (!hasAuthorities) {
    return `the certificate is ${fingerprintOf(certificate)}, and there is neither a tlspeer nor a ca.pem`;
  }
  if (!socket.authorized) {
    const error = socket.authorizationError as unknown;
    const code = error instanceof Error ? error.message : String(error);
    return `the certificate ${fingerprintOf(certificate)} is not vouched for by ca.pem (${code})`;
  }
  if (host === null || isFor(certificate, host)) return null;
  const names = certificate.subjectAltName ?? certificate.subject;
  return `the certificate is not for ${host}, but for ${names}`;
}

function dateTrouble(certificate: X509Certificate, now: Date): string | null {
  const { validFromDate, validToDate } = certificate;
  if (now > validToDate) return `expired at ${text(validToDate)}, and now is ${text(now)}`;
  if (now < validFromDate) {
    return `is valid from ${text(validFromDate)} only, and now is ${text(now)}`;
  }
  return null;
}

function text(date: Date): string {
  return date.toISOString().replace(/\.\d+/, "");
}

function isFor(certificate: X509Certificate, host: string): boolean {
  const found = isIP(host) === 0 ? certificate.checkHost(host) : certificate.checkIP(host);
  return found !== undefined;
}

/** "sha256:" and 64 hexadecimal digits, as `tlspeer` has it. */
export function fingerprintOf(certificate: X509Certificate): string {
  return `sha256:${certificate.fingerprint256.replaceAll(":", "").toLowerCase()}`;
}

/** Of the first certificate in a PEM file. */
export const readCertificate: ReadCertificate = (pem) => {
  let certificate: X509Certificate;
  try {
    certificate = new X509Certificate(pem);
  } catch (error) {
    return { failure: error instanceof Error ? error.message : String(error) };
  }
  return {
    fingerprint: fingerprintOf(certificate),
    names: certificate.subjectAltName ?? certificate.subject,
    validUntil: text(certificate.validToDate),
    dateTrouble: dateTrouble(certificate, new Date()),
  };
};
