/** The microphone live: audio to the server as it is heard, and text back while somebody speaks. */

import { liveSocket } from "./api.js";
import { RATE, microphone } from "./sound.js";

const SENTENCE_END = /[.?!。？！]["'”’)]*$/;

/**
 * Starts a session with the options of the WebSocket's first message. `changed(session)` is called whenever
 * something is new, and `ended(error)` once, if it could start at all; the error is null where all went well.
 */
export async function startLive(options, changed, ended) {
  const stream = await microphone();
  const context = new AudioContext({ sampleRate: RATE });
  const session = { sent: 0, heard: 0, step: 0.1, speech: [], final: [], partial: [] };
  const socket = liveSocket();
  let refusal = "the connection was lost", capture;

  function release() {
    stream.getTracks().forEach((track) => track.stop());
    if (context.state !== "closed") context.close();
    socket.onclose = null;
    socket.close();
  }

  function over(error) {
    release();
    ended(error);
  }

  socket.onmessage = ({ data }) => {
    const message = JSON.parse(data);
    if (message.type === "error") refusal = message.message;
    if (message.type === "ready") session.step = message.step;
    if (message.type === "update" || message.type === "end") {
      session.heard = message.seconds;
      session.speech.push(...message.speech_prob);
      session.final.push(...message.final);
      session.partial = message.partial;
      changed(session);
    }
    if (message.type === "end") over(null);
  };
  socket.onclose = () => over(new Error(`The server ended the session: ${refusal}.`));

  try {
    await Promise.all([opened(socket), context.audioWorklet.addModule(new URL("worklet.js", import.meta.url))]);
    capture = new AudioWorkletNode(context, "capture");
    context.createMediaStreamSource(stream).connect(capture).connect(context.destination); // which hears silence
  } catch (error) {
    release();
    throw error;
  }
  socket.send(JSON.stringify(options));
  capture.port.onmessage = ({ data: samples }) => {
    if (socket.readyState !== WebSocket.OPEN) return;
    socket.send(samples ?? JSON.stringify({ type: "end" }));
    session.sent += (samples?.length ?? 0) / RATE;
    changed(session);
  };
  return { stop: () => capture.port.postMessage("end") };
}

function opened(socket) {
  return new Promise((resolve, reject) => {
    socket.onopen = resolve;
    socket.onerror = () => reject(new Error("The server lets nobody listen live: it is gone, or wants another key."));
  });
}

/** Final segments, which come by the phrase, as sentences: {start, end, text, hallucination_risk}. */
export function sentences(segments) {
  const found = [];
  let open = null;
  for (const { start, end, text, hallucination_risk: risk } of segments) {
    if (open && start - open.end < 1) {
      const share = (end - start) / Math.max(end - open.start, 1e-3);
      open.hallucination_risk = risk === null ? null : (1 - share) * open.hallucination_risk + share * risk;
      open.text += text;
      open.end = end;
    } else {
      open = { start, end, text, hallucination_risk: risk };
      found.push(open);
    }
    if (SENTENCE_END.test(text)) open = null;
  }
  return found;
}
