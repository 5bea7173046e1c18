// SPDX-License-Identifier: BSD-2-Clause
/** TLS 1.3 on a link: who this node is, and who the other one has to be. */

import type { HandshakeSocket } from "./handshake-socket.ts";

/** The files of hast.conf's `tlsdir`, each as PEM. */
export interface Credentials {
  readonly key: string;
  /** This node's certificate, and what its peer needs to trace it to an authority. */
  readonly certificate: string;
  /** Authorities whose word on a peer without `tlspeer` counts; null = there are none. */
  readonly authorities: string | null;
  /** Certificates of NBD clients, or of authorities that sign them; null = there are none. */
  readonly clients: string | null;
}

/** What an operator wants to know of a certificate. */
export interface CertificateFacts {
  /** "sha256:" and 64 hexadecimal digits. */
  readonly fingerprint: string;
  /** "DNS:alpha, IP Address:10.0.0.1". */
  readonly names: string;
  /** "2036-11-18T09:00:00Z". */
  readonly validUntil: string;
  /** "expired at …", "is valid from … only", or null. */
  readonly dateTrouble: string | null;
}

/** The facts of the first certificate in a PEM file, or why there are none. */
export type ReadCertificate = (pem: string) => CertificateFacts | { readonly failure: string };

/** Whose certificate is accepted at the other end. */
export interface ExpectedPeer {
  /** The resource that the link is for. */
  readonly resource: string;
  /** "sha256:" and 64 hexadecimal digits, hast.conf's `tlspeer`; null = an authority's word, for the host's name. */
  readonly pin: string | null;
}

/** An incoming connection whose TLS has been ended here; what follows is plain text. */
export interface Terminated {
  /** A fresh one. */
  readonly socket: HandshakeSocket;
  /** Why the peer is not the expected one, for people on both nodes, without a full stop; or null. */
  readonly refusal: string | null;
}

/** Ends the TLS of incoming connections, outside the main daemon. */
export interface TlsTerminator {
  /**
   * @param socket has received `hello`, a whole ClientHello, and is no longer the caller's
   * @param host of the peer, as hast.conf's `remote` names it
   * @throws HandshakeSocketError where no TLS connection came about, with the reason
   */
  terminate(
    socket: HandshakeSocket,
    hello: Uint8Array,
    expected: ExpectedPeer & { readonly host: string },
  ): Promise<Terminated>;
}
