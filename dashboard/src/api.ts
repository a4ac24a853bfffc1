// What the data plane answers, and how it is asked.

export interface Tier { name: string; hits: number; misses: number; entries: number }
export interface Operation { operation: string; requests: number; errors: number; buckets: number[] }
export interface Pool {
  name: string;
  entity: string;
  path: string;
  entities: number;
  distinct: number;
  shared: number;
  bytes: number;
  bytes_saved: number;
  evictions: number;
  tiers: Tier[];
  operations: Operation[];
}
export interface Check { status: "healthy" | "degraded" | "unhealthy"; latency_ms: number; message?: string }
/** What waits is null until it was measured. */
export interface Outbox { backend: string; backlog: number | null; oldest_ms: number | null; published: number }
export interface Figures {
  process: string;
  service: string;
  version: string;
  uptime_s: number;
  bounds_s: number[];
  pools: Pool[];
  outboxes: Outbox[];
  live: { connections: number; sent: number; refused: number; resyncs: number };
  status: Check["status"];
  checks: Record<string, Check>;
}
export interface FeedEvent { id: string; type: string; entity: string; key: string; version: number; cursor?: string; at: string }
export interface Stage { stage: string; workers: number; queued: number; in_flight: number; done: number; retried: number; dead_letters: number }

const TOKEN = "flyweight-token";
const READ_MS = 5000;
/** What changes something is told what it did, also when that took a while. */
const WRITE_MS = 30_000;

/** The token that the person gave, kept as long as the tab. */
export function token(): string | null {
  return sessionStorage.getItem(TOKEN);
}

export function setToken(text: string): void {
  sessionStorage.setItem(TOKEN, text);
}

/** An answer that is no success. */
export class Refused extends Error {
  constructor(readonly status: number, detail: string) {
    super(detail);
  }
}

export async function ask<T>(path: string, method = "GET", body?: object): Promise<T> {
  const text = await askText(path, method, body);
  return (text ? JSON.parse(text) : null) as T;
}

/** What is answered as it came. */
export async function askText(path: string, method = "GET", body?: object): Promise<string> {
  const headers: Record<string, string> = {};
  const known = token();
  if (known) headers["authorization"] = `Bearer ${known}`;
  if (body) headers["content-type"] = "application/json";
  const signal = AbortSignal.timeout(method === "GET" ? READ_MS : WRITE_MS);
  const response = await fetch(path, { method, headers, signal, ...(body && { body: JSON.stringify(body) }) });
  const text = await response.text();
  if (response.ok) return text;
  let detail = `${response.status} ${response.statusText}`;
  try {
    detail = (JSON.parse(text) as { detail?: string }).detail ?? detail;
  } catch {
    // not a problem document: the status says enough
  }
  throw new Refused(response.status, detail);
}

/** The answer, or null where this service has nothing of the kind, or not for this person. */
export async function optional<T>(answer: Promise<T>): Promise<T | null> {
  try {
    return await answer;
  } catch (error) {
    if (error instanceof Refused && (error.status === 404 || error.status === 403)) return null;
    throw error;
  }
}

/** Why something was not done, for a person. */
export function why(error: unknown): string {
  if (error instanceof Refused) return error.message.replace(/\.$/, "");
  const late = error instanceof DOMException && error.name === "TimeoutError";
  return late ? "there was no answer in time, so it may have been done or not" : "the service does not answer";
}

/** Follows the live feed for ever: each event, and whether the feed is connected. */
export function follow(take: (event: FeedEvent) => void, say: (connected: boolean) => void): void {
  let cursor: string | undefined;
  let wait = 250;
  const again = () => {
    say(false);
    setTimeout(() => void connect().catch(again), wait);
    wait = Math.min(wait * 2, 5000);
  };
  const connect = async () => {
    const query = new URLSearchParams({ client_id: "dashboard" });
    if (cursor) query.set("since", cursor);
    // a browser sends no header with a WebSocket, and an address gets into logs: it has what is good only once
    if (token()) query.set("ticket", (await ask<{ ticket: string }>("/api/v1/ws/tickets", "POST")).ticket);
    const socket = new WebSocket(`${location.origin.replace(/^http/, "ws")}/ws?${query}`);
    let opened = false;
    socket.onopen = () => {
      opened = true;
      wait = 250;
      say(true);
    };
    socket.onmessage = (message) => {
      const event = JSON.parse(String(message.data)) as FeedEvent;
      if (event.cursor) cursor = event.cursor;
      if (event.id) take(event);
    };
    socket.onclose = () => {
      // a cursor that is too old would be refused again and again
      if (!opened) cursor = undefined;
      again();
    };
  };
  void connect().catch(again);
}
