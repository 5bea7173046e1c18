// SPDX-License-Identifier: BSD-2-Clause
/**
 * What an operator can do about a peer that is not connected, or that must not be.
 *
 * A reason is what the link saw, or what the peer said in its own words (wire protocol §6.3, §6.5); FreeBSD's
 * hastd says the same ones. Advice names the node on which each command is to be typed: whoever reads
 * it may be logged in on either.
 */

import type { Admission } from "../replication/promotion.ts";
import { SPLIT_BRAIN_ERRMSG } from "../wire/handshake.ts";
import { discardAdvice, time } from "./divergence.ts";
import type { PeerLacks } from "./worker-messages.ts";

/** One resource, as far as advice has to name it. */
export interface Peering {
  readonly resource: string;
  /** "source" of hast.conf, or null. */
  readonly source: string | null;
}

/** `reason`, and after it what to do, as far as that is known. */
export function withAdvice(reason: string, peering: Peering): string {
  const advice = adviceOn(reason, peering);
  return advice === null ? reason : `${reason.replace(/\.$/, "")}. ${advice}`;
}

/** Why a copy that its own metadata call unfit is not promoted, and what to do. */
export function refusalOf(state: "outdated" | "inconsistent", { resource }: Peering): string {
  const what =
    state === "outdated"
      ? "this copy is outdated: the other node has gone on without it"
      : "this copy is inconsistent, the target of an unfinished synchronization: a mix of old and new blocks, " +
        "or it lacks what its disk failed to write";
  return (
    `${what}. On the other node: hastctl role primary ${resource}; then here, so that the ` +
    `synchronization goes on: hastctl role secondary ${resource}. If that node is lost for good, ` +
    `and this copy is all there is: hastctl role --force primary ${resource}`
  );
}

/** Where a primary's disk has failed, and the other node lacks something: sentences without full stops. */
export function saveDiskAdvice({ since }: PeerLacks, resource: string): readonly string[] {
  return [
    since === null
      ? "The other node lacks writes that were acknowledged here, or may"
      : `The other node lacks what was acknowledged here since ${time(since)}`,
    "First try to save this disk (cables, controller, ddrescue to another one; runbook failed-disk.md, case B); then " +
      `here: hastctl role primary ${resource}`,
    `Only if it cannot be saved, to go on without those writes, there: hastctl role primary ${resource}`,
  ];
}

/** Why the other node's answer, or its silence, stands in the way of a promotion, and what to do. */
export function doubtOf(
  reason: string,
  asked: {
    readonly needs: Extract<Admission, { readonly kind: "ask" }>["needs"];
    readonly primarySeen: boolean;
    /** The other node's data is newer, or may be, and this node's gate has not let it in. */
    readonly newer: boolean;
    /** This copy is inconsistent: what it lacks was read from the other node. */
    readonly lacking: boolean;
  },
  peering: Peering,
): string {
  const { resource } = peering;
  const force =
    `If ${asked.lacking ? "that node is lost for good, and this copy is all there is" : "you know that this copy is the newest"}` +
    `: hastctl role --force primary ${resource}`;
  if (asked.needs === "no-objection" && DISCONNECTED.test(reason)) {
    return (
      "this copy is new, and the other node, which may hold data, was disconnected by an operator. Join them; " +
      `there: hastctl connect ${resource}; then try again. ${force}`
    );
  }
  // A new copy that was written before the two ever met holds data, too (S-18).
  if (asked.needs === "no-objection" && !reason.startsWith("Split-brain")) {
    const join = `Let this one be filled from there; here: hastctl role secondary ${resource}`;
    return asked.primarySeen
      ? `this copy is new, and the other node is primary. ${join}`
      : `this copy is new, and the other node holds data (${reason.replace(/\.$/, "")}). ` +
          `${join}; then on the other node: hastctl role primary ${resource}`;
  }
  if (asked.primarySeen) {
    return (
      `${OTHER_IS_PRIMARY}, or is being promoted at this very moment, too. See which; there: hastctl ` +
      `status ${resource}. If it is primary and shall not be, there: hastctl role secondary ${resource}. ` +
      `If it is not, again here: hastctl role primary ${resource}`
    );
  }
  if (asked.newer) {
    return (
      `the other node has data that this copy lacks, or may, and is not let overwrite it (${reason.replace(/\.$/, "")}). ` +
      `To work with what that node has; there: hastctl role primary ${resource}. To have it copied here, ` +
      `once the gate agrees, again here: hastctl role primary ${resource}. ${force}`
    );
  }
  if (NO_WHOLE_COPY.test(reason)) return withAdvice(reason, peering);
  if (OPINION.test(reason)) return `${withAdvice(reason, peering)}. ${force}`;
  const what = asked.lacking
    ? "this copy is inconsistent, and what it lacks is on the other node, which is not connected "
    : "this copy was complete when the nodes last met, but the other node may have gone on without it, and does not say ";
  return (
    `${what}(${reason.replace(/\.$/, "")}). Make it answer; there: ` +
    `hastctl ${DISCONNECTED.test(reason) ? "connect" : "role secondary"} ${resource}; then try again. ${force}`
  );
}

/** How a refusal begins that has no other reason. */
export const OTHER_IS_PRIMARY = "the other node is primary";
/** What a node says of its data, rather than that it cannot say anything. */
const OPINION = /mismatch|differ|counters|^Split-brain/;
const DISCONNECTED = /disconnected by an operator/;
/** Of the only copy there is, as the link says it. */
const NO_WHOLE_COPY = /no whole copy of its own/;

function adviceOn(reason: string, peering: Peering): string | null {
  const { resource, source } = peering;
  const role = /^Remote node acts as (\w+) for the resource/.exec(reason)?.[1];
  if (role === "primary") {
    return `If that lasts, both nodes are primary. On the one that shall not be: hastctl role secondary ${resource}`;
  }
  if (role !== undefined) return `On that node: hastctl role secondary ${resource}`;
  if (DISCONNECTED.test(reason)) {
    return `To end that, on that node: hastctl connect ${resource}`;
  }
  if (reason === SPLIT_BRAIN_ERRMSG) return discardAdvice(resource);
  if (/unique ID mismatch/.test(reason)) {
    return `One of the two components was created anew, or promoted by force while it was inconsistent, or belongs elsewhere. ${discardAdvice(resource)}`;
  }
  if (/counters ran backwards/.test(reason)) return discardAdvice(resource);
  if (NO_WHOLE_COPY.test(reason)) {
    return (
      "To go on with it as it is, and have it copied there, here: " +
      `hastctl role init ${resource} && hastctl role --force primary ${resource}; ` +
      "then check it, and restore from a backup what is damaged"
    );
  }
  if (/older than the one that it has worked over/.test(reason)) {
    return (
      "Give that node back the disk that it had. If that is lost, and what it has now is all there is, here: " +
      `hastctl role init ${resource}; then there: hastctl role --force primary ${resource}`
    );
  }
  if (/not configured/.test(reason)) return `hast.conf of that node has no resource ${resource}`;
  if (/No access/.test(reason)) {
    return `hast.conf of that node names another host than this one as remote of ${resource}`;
  }
  if (/before it answered/.test(reason)) {
    return "If that lasts, hast.conf of that node does not name this one's address as a remote: see hastd's log there";
  }
  if (/does not answer/.test(reason)) return "Is hastd stopped there? See its log";
  if (/connection refused/.test(reason)) return "Is hastd running there?";
  if (/no connection within|unreachable|timed out/.test(reason)) {
    return "Is that machine up, and does nothing on the way block the port?";
  }
  if (/address not available/.test(reason) && source !== null) {
    return `Is source ${source} an address of this node?`;
  }
  if (/host name/.test(reason)) return "Correct remote in hast.conf, or see to the name service";
  return null;
}
