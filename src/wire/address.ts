// SPDX-License-Identifier: BSD-2-Clause
/** Stub: signatures are final. */

export const DEFAULT_PORT = 8457;

export type Address =
  | {
      readonly kind: "tcp";
      /** From tcp4://, tcp6:// or the host being an IP address; null for a name under tcp:// */
      readonly family: 4 | 6 | null;
      readonly host: string; // name or IP address, without brackets
      readonly port: number | null; // null = not given
    }
  | { readonly kind: "unix"; readonly path: string }; // absolute

/** @throws WireError "address-invalid", with the reason */
export function parseAddress(_text: string): Address {
  throw new Error("stub");
}
/** The text form, which parseAddress() reads back to an equal value. */
export function formatAddress(_address: Address): string {
  throw new Error("stub");
}
/** 4 or 16 bytes; null for what is no IP address. A scope (%eth0) is ignored, ::ffff:a.b.c.d is a.b.c.d. */
export function ipBytes(_text: string): Uint8Array | null {
  throw new Error("stub");
}
/** Whether two IP addresses name the same host (wire protocol §5, access check). False unless both are IP addresses. */
export function sameHost(_a: string, _b: string): boolean {
  throw new Error("stub");
}
