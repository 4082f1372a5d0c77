// The model runs on the server that the page came from.

import { Attention, EngineError } from "./engine.js";

const LOST =
  "The connection to the server is lost. Start crossmask explore again if it has ended, then try again.";

export class Engine {
  kind = "server";
  canAudit = true;

  async load() {
    this.facts = await (await ask("facts")).json();
    return this.facts;
  }

  /** The tokens of a sentence, each with the number of its word. */
  async source(text, signal) {
    return (await (await ask("source", { text }, signal)).json()).tokens;
  }

  async translate(question, signal) {
    const answer = await (await ask("translate", question, signal)).json();
    const bytes = Uint8Array.from(atob(answer.attention.data), (sign) => sign.charCodeAt(0));
    return { ...answer, attention: new Attention(answer.attention, Float32Array.from(bytes, (byte) => byte / 255)) };
  }

  async audit(question, signal) {
    return (await ask("audit", question, signal)).json();
  }

  /** Events `{read, word, written, finished}`, one for each source word. */
  async *stream(question, signal) {
    const reader = (await ask("stream", question, signal)).body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    let finished = false;
    while (!finished) {
      const { value, done } = await reader.read().catch((error) => {
        throw signal?.aborted ? error : new EngineError(LOST, true);
      });
      if (done) throw new EngineError(LOST, true);
      const lines = (rest + value).split("\n");
      rest = lines.pop();
      for (const line of lines) {
        const event = JSON.parse(line);
        if (event.error) throw new EngineError(event.error);
        finished = event.finished;
        yield event;
      }
    }
  }
}

async function ask(name, question, signal) {
  const options = question && {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(question),
  };
  let response;
  try {
    response = await fetch(`api/${name}`, { ...options, signal });
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new EngineError(LOST, true);
  }
  if (response.ok) return response;
  const { error } = await response.json().catch(() => ({}));
  const reason = error ?? `The server answered with status ${response.status}. Look at what it printed.`;
  throw new EngineError(reason, response.status >= 500 || response.status === 408);
}
