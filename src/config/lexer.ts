// SPDX-License-Identifier: BSD-2-Clause
/**
 * hast.conf as words and braces.
 *
 *   word   one or more of A–Z a–z 0–9 . - _ / : [ ]
 *   #      comment, to the end of the line
 *
 * No quoting, escapes or includes. Line breaks are white space. The original echoes and skips other
 * characters; we reject them. Source: FreeBSD sbin/hastd/token.l; behaviour §15.
 */

export interface Position {
  readonly line: number; // from 1
  readonly column: number; // characters, from 1
}

export interface Token {
  readonly kind: "word" | "{" | "}" | "end";
  readonly text: string;
  readonly at: Position;
  /** False for a word with an illegal character: already complained about, so ask nothing of it. */
  readonly sound: boolean;
}

const LEGAL = /^[A-Za-z0-9._/:[\]-]+$/;
const WORD = /[^\s{}#]+/y;
const BYTE_ORDER_MARK = "\ufeff";

/**
 * Splits `text` into tokens; the last one is "end".
 *
 * @param complain called for each word with an illegal character, where that character is
 */
export function tokenize(text: string, complain: (at: Position, message: string) => void): Token[] {
  const tokens: Token[] = [];
  let index = text.startsWith(BYTE_ORDER_MARK) ? 1 : 0;
  let line = 1;
  let lineStart = index;
  const here = (): Position => ({ line, column: index - lineStart + 1 });

  while (index < text.length) {
    const character = text.charAt(index);
    if (character === "\n") {
      index += 1;
      line += 1;
      lineStart = index;
    } else if (character === " " || character === "\t" || character === "\r") {
      index += 1;
    } else if (character === "#") {
      const end = text.indexOf("\n", index);
      index = end < 0 ? text.length : end;
    } else if (character === "{" || character === "}") {
      tokens.push({ kind: character, text: character, at: here(), sound: true });
      index += 1;
    } else {
      // White space of other kinds (a no-break space, a form feed) is a word of its own here: illegal.
      WORD.lastIndex = index;
      const word = WORD.exec(text)?.[0] ?? character;
      const sound = LEGAL.test(word);
      tokens.push({ kind: "word", text: word, at: here(), sound });
      if (!sound) {
        const offset = firstIllegal(word);
        const at = { line, column: index - lineStart + 1 + offset };
        complain(at, illegalCharacter(word, offset));
      }
      index += word.length;
    }
  }
  tokens.push({ kind: "end", text: "", at: here(), sound: true });
  return tokens;
}

function firstIllegal(word: string): number {
  let offset = 0;
  while (LEGAL.test(word.charAt(offset))) offset += 1;
  return offset;
}

function illegalCharacter(word: string, offset: number): string {
  const code = word.codePointAt(offset)!;
  const character = String.fromCodePoint(code);
  const shown =
    /[\p{L}\p{N}\p{P}\p{S}]/u.test(character) && code !== 0xfffd
      ? `"${character}"`
      : `U+${code.toString(16).toUpperCase().padStart(4, "0")}`;
  const says = `illegal character ${shown}`;
  if (character === '"' || character === "'") {
    return `${says}: hast.conf has no quoting; write the value as it is, without spaces`;
  }
  if (character === "=" || character === ";" || character === ",") {
    return `${says}: a statement is a word and its value, separated by white space only`;
  }
  return `${says}: names, paths and addresses consist of A-Z a-z 0-9 . - _ / : [ ]`;
}
