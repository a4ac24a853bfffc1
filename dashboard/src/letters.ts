// Dead letters in the API: found, replayed one or many, dropped.

import { ask, askText, Refused } from "./api";

export interface Letter {
  id: string;
  version: number;
  created_at: string;
  updated_at: string;
  stage: string;
  subject: string | null;
  class: string | null;
  error: string | null;
  attempts: number | null;
  trace: string | null;
  payload: unknown;
}
/** What letters must have; an empty text is no condition. */
export interface Filter { stage: string; class: string; subject: string }
export interface Page { items: Letter[]; total: number; next_cursor: string | null }
/** What a replay of many did so far, and whether there may be more. */
export interface Replayed { replayed: number; failed: number; more: boolean }

export const CLASSES = ["validation", "not_retryable", "retryable", "system"];

const LETTERS = "/api/v1/dead-letters";
/** Letters of one answer at most: each may hold a large payload. */
const PAGE_MAX = 100;
/** After such an answer nothing else would be answered better. */
const HOPELESS = [401, 403, 429];

export async function page(filter: Filter, limit: number, cursor: string | null): Promise<Page> {
  const query = new URLSearchParams({ limit: String(limit) });
  for (const [name, value] of Object.entries({ ...filter, cursor })) if (value) query.set(name, value);
  return JSON.parse(await askText(`${LETTERS}?${query}`), exact) as Page;
}

/** The first so many, in as many answers as that takes. */
export async function first(filter: Filter, wanted: number): Promise<Page> {
  const all = await page(filter, Math.min(wanted, PAGE_MAX), null);
  while (all.items.length < wanted && all.next_cursor) {
    const next = await page(filter, Math.min(wanted - all.items.length, PAGE_MAX), all.next_cursor);
    all.items.push(...next.items);
    all.next_cursor = next.next_cursor;
  }
  return all;
}

export async function replay(id: string): Promise<void> {
  await ask(`${LETTERS}/${encodeURIComponent(id)}/replay`, "POST");
}

export async function drop(id: string): Promise<void> {
  await ask(`${LETTERS}/${encodeURIComponent(id)}`, "DELETE");
}

/** Replays what a filter finds and says again and again how far it is; it ends when nobody listens any more. */
export function replayMany(filter: Filter): AsyncGenerator<Replayed> {
  // the service replays by stage and subject, not by class
  return filter.class ? oneByOne(filter) : byTheService(filter);
}

async function* byTheService({ stage, subject }: Filter): AsyncGenerator<Replayed> {
  const sum: Replayed = { replayed: 0, failed: 0, more: true };
  let cursor: string | undefined;
  do {
    const body = { ...(stage && { stage }), ...(subject && { subject }), ...(cursor && { cursor }) };
    const part = await ask<Replayed & { next_cursor?: string | null }>(`${LETTERS}/replay`, "POST", body);
    sum.replayed += part.replayed;
    sum.failed += part.failed;
    sum.more = part.more;
    cursor = part.next_cursor ?? undefined;
    yield { ...sum };
  } while (sum.more && cursor);
}

async function* oneByOne(filter: Filter): AsyncGenerator<Replayed> {
  const sum: Replayed = { replayed: 0, failed: 0, more: true };
  let cursor: string | null = null;
  do {
    const found: Page = await page(filter, PAGE_MAX, cursor);
    cursor = found.next_cursor;
    for (const [index, letter] of found.items.entries()) {
      const done = await replayed(letter.id);
      if (done === true) sum.replayed += 1;
      if (done === false) sum.failed += 1;
      sum.more = cursor !== null || index + 1 < found.items.length;
      yield { ...sum };
    }
  } while (cursor);
  yield { ...sum, more: false };
}

/** Whether a letter is being done again; null where it is gone already. */
async function replayed(id: string): Promise<boolean | null> {
  try {
    await replay(id);
    return true;
  } catch (error) {
    if (!(error instanceof Refused) || HOPELESS.includes(error.status)) throw error;
    return error.status === 404 ? null : false;
  }
}

/** Leaves a number of a payload as it was written where a browser would change it, such as a long id; newer browsers can. */
function exact(_name: string, value: unknown, context?: { source?: string }): unknown {
  const raw = (JSON as { rawJSON?: (text: string) => unknown }).rawJSON;
  const source = context?.source;
  return raw && source !== undefined && typeof value === "number" && String(value) !== source ? raw(source) : value;
}
