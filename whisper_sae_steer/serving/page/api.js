/** What the page asks the server. */

let key = "";

export function useKey(given) {
  key = given;
}

/** A request that the server refuses, in words; `status` is HTTP's, 0 where none came. */
export class Refused extends Error {
  constructor(message, status = 0) {
    super(message);
    this.status = status;
  }
}

/** Models by their own names, each {id, languages, loaded, steer_alpha, …}; aliases are left out. */
export async function models() {
  const { data } = await fetched("v1/models");
  return data.filter(({ id, root }) => root === undefined || root === id);
}

/** JSON for a recording and further fields of the form; waits while the server is busy. */
export function ask(path, { blob, name }, fields, signal) {
  const form = new FormData();
  form.append("file", blob, name);
  for (const [field, values] of Object.entries(fields)) for (const value of [values].flat()) form.append(field, value);
  return fetched(path, { method: "POST", body: form, signal });
}

/** A socket for live audio; a browser gives a WebSocket no headers, so the key goes as a sub-protocol. */
export function liveSocket() {
  const url = new URL("v1/audio/stream", document.baseURI);
  url.protocol = url.protocol.replace("http", "ws");
  return new WebSocket(url, key ? ["audio", `openai-insecure-api-key.${key}`] : []);
}

async function fetched(path, { signal, ...request } = {}) {
  let response;
  for (let attempt = 0; ; attempt++) {
    const headers = key ? { Authorization: `Bearer ${key}` } : {};
    try {
      response = await fetch(path, { ...request, headers, signal });
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new Refused("The server can't be reached. Is it still running?");
    }
    if (response.status !== 429 || attempt === 5) break;
    await pause(1000 * Number(response.headers.get("Retry-After") || 1), signal);
  }
  if (response.ok) return response.json();
  const body = await response.json().catch(() => null);
  const message = body?.error?.message ?? `The server answered with status ${response.status}.`;
  throw new Refused(message, response.status);
}

function pause(milliseconds, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, milliseconds);
    signal?.addEventListener("abort", () => {
      clearTimeout(timer);
      reject(new DOMException("", "AbortError"));
    });
  });
}
